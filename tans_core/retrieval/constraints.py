"""Limits on retrieved models, declared once for the API, the command and the flows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tans_core.errors import ParamsError, problems
from tans_core.licences import check_accepted, lacking, satisfied

Millions = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]
Megabytes = Annotated[float | None, Field(gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "MB"})]
Pixels = Annotated[int | None, Field(gt=0, json_schema_extra={"metavar": "PX"})]
Share = Annotated[float | None, Field(ge=0, le=1, json_schema_extra={"metavar": "SHARE"})]
Milliseconds = Annotated[float | None, Field(gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "MS"})]
_NAMES = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}, {"type": "null"}]}
"""Names are taken as a list, or as text with commas."""
Names = Annotated[tuple[str, ...] | None, Field(json_schema_extra={**_NAMES, "metavar": "TASK"})]


@dataclass(frozen=True)
class Range:
    """What a least and a greatest value can be set for, by `min_` and `max_` with its name.

    Attributes:
        unit: for messages.
        column: of the index; None for values that the index does not contain.
        factor: that turns the column into the value.
        shown: whether messages name the value without a limit on it as well.
        digits: of a limit in advice.
        unknown: what lets in a model without a value, if no limit can.
    """

    unit: str
    column: str | None = None
    factor: float = 1.0
    shown: bool = False
    digits: int = 2
    unknown: str = ""


@dataclass(frozen=True)
class NameSet:
    """What a set of names can be given for.

    Attributes:
        column: of the index.
        lacks: from a model's value and the given names, those that would have to change to let it in.
        option: of the command.
        advice: to change them.
    """

    column: str
    lacks: Callable[[str, Sequence[str]], Sequence[str]]
    option: str
    advice: str


def _licences_lacking(licence: str, accepted: Sequence[str]) -> Sequence[str]:
    return () if satisfied(licence, accepted) else lacking(licence, accepted)


RANGES = {
    "params_m": Range("M parameters", "params_m", shown=True),
    "macs_m": Range("M MACs", "macs_m", shown=True),
    # Files of weights are shared by networks, so this is the size of one network's own: four bytes a parameter.
    "weights_mb": Range("MB", "params_m", factor=4.0),
    "input_size_px": Range("px", digits=4),
    "home_accuracy": Range("at home", "val_accuracy", unknown="leave out --min-home-accuracy"),
    "latency_ms": Range("ms"),
}
"""All ranges. Input sizes are on the cards; latencies depend on a profile."""
SETS = {
    "licences": NameSet("licence", _licences_lacking, "--licence", "accept --licence {} as well"),
    "home": NameSet("home_task", lambda task, wanted: () if task in wanted else (task,), "--home", "add --home {}"),
    "not_home": NameSet(
        "home_task", lambda task, refused: (task,) if task in refused else (), "--not-home", "leave out --not-home {}"
    ),
}
"""All sets of names."""

_PROFILE = re.compile(r"(cpu|cuda)-([1-9][0-9]{0,3})-threads-batch-([1-9][0-9]{0,4})")


class Options(BaseModel):
    """Options of a request beside its data set. A field's description is its help text everywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, **values: Any) -> Self:
        """Check values.

        Raises:
            ParamsError: lists all invalid values by name.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise ParamsError("; ".join(problems(error, cls))) from None


class Constraints(Options):
    """The limits: `RANGES`, with the profile of a latency, and `SETS`; None sets no limit."""

    min_params_m: Annotated[Millions, Field(description="The fewest parameters, in millions.")] = None
    max_params_m: Annotated[Millions, Field(description="The most parameters, in millions.")] = None
    min_macs_m: Annotated[Millions, Field(description="The fewest multiply-accumulates of one image, in millions.")] = (
        None
    )
    max_macs_m: Annotated[Millions, Field(description="The most multiply-accumulates of one image, in millions.")] = (
        None
    )
    min_weights_mb: Annotated[Megabytes, Field(description="The smallest weights, in megabytes, as float32.")] = None
    max_weights_mb: Annotated[Megabytes, Field(description="The largest weights, in megabytes, as float32.")] = None
    min_input_size_px: Annotated[Pixels, Field(description="The smallest side of the input images, in pixels.")] = None
    max_input_size_px: Annotated[Pixels, Field(description="The largest side of the input images, in pixels.")] = None
    min_home_accuracy: Annotated[
        Share,
        Field(
            description="The lowest validation accuracy on the network's own home task, 0 to 1: no measure of its "
            "accuracy on your images. Networks without a home task do not qualify."
        ),
    ] = None
    min_latency_ms: Annotated[
        Milliseconds, Field(description="The shortest time for a batch, in milliseconds, under the latency profile.")
    ] = None
    max_latency_ms: Annotated[
        Milliseconds, Field(description="The longest time for a batch, in milliseconds, under the latency profile.")
    ] = None
    latency_profile: Annotated[
        str | None,
        Field(
            pattern=f"^{_PROFILE.pattern}$",
            description="The profile of these times, such as cpu-1-threads-batch-1: `tans zoo profile` measures them. "
            "Networks that were not timed under it do not qualify.",
            json_schema_extra={"metavar": "PROFILE"},
        ),
    ] = None
    licences: Annotated[
        tuple[str, ...] | None,
        Field(
            description="A licence that you accept, by its SPDX id, or several with commas: code and weights, and all "
            "images and weights that these descend from, may be used under these. All by default.",
            json_schema_extra={**_NAMES, "option": "--licence", "metavar": "ID"},
        ),
    ] = None
    home: Annotated[
        Names, Field(description="Only networks of this home task, or of several with commas. All by default.")
    ] = None
    not_home: Annotated[
        Names, Field(description="No networks of this home task, or of several with commas. None by default.")
    ] = None

    @field_validator(*SETS, mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple | set | frozenset) or not all(isinstance(one, str) for one in values):
            return values
        return [name.strip() for one in values for name in one.split(",") if name.strip()]

    @field_validator("licences")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        try:
            return None if value is None else check_accepted(value)
        except ParamsError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in RANGES:
            low, high = self.range_of(name)
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name}: got {low:g}, want at most the {high:g} of max_{name}")
        if self.range_of("latency_ms") != (None, None) and self.latency_profile is None:
            raise ValueError(
                "latency_profile: missing; want the profile that the limit is for, such as cpu-1-threads-batch-1. "
                "`tans zoo profile` measures under one, and names it"
            )
        if self.range_of("latency_ms") == (None, None) and self.latency_profile is not None:
            raise ValueError(
                f"latency_profile: got {self.latency_profile}, but no limit that uses it. Add max_latency_ms, or leave "
                "it out"
            )
        return self

    def range_of(self, name: str) -> tuple[float | None, float | None]:
        """Return the least and the greatest value of a range."""
        return getattr(self, f"min_{name}", None), getattr(self, f"max_{name}", None)

    def limits(self, name: str) -> bool:
        """Return whether a range is limited."""
        return self.range_of(name) != (None, None)

    def in_words(self) -> str:
        """Return the limits as text for a message; empty if there are none."""
        return " and ".join(f"{option} {value or 'none'}" for option, value in self.arguments())

    def arguments(self) -> list[tuple[str, str]]:
        """Return the limits as options of the command, each with its value."""
        pairs = []
        for name in RANGES:
            ends = zip(("min", "max"), self.range_of(name), strict=True)
            pairs += [(_option(end, name), f"{value:g}") for end, value in ends if value is not None]
        if self.latency_profile is not None:
            pairs.append(("--latency-profile", self.latency_profile))
        given = {one.option: getattr(self, name) for name, one in SETS.items()}
        return pairs + [(option, ",".join(names)) for option, names in given.items() if names is not None]


def nearest_miss(models: Sequence[Mapping[str, Any]], constraints: Constraints) -> str:
    """Return a message: no model fits, which ones come nearest, and which limits to relax for them.

    Args:
        models: each with id, the columns of `SETS`, and a value or None for each of `RANGES`.
        constraints: satisfied by none of them.
    """
    if not models:
        return "the index has no model. Run `tans build`, then `tans publish`."
    timed = [one for one in models if not constraints.limits("latency_ms") or one.get("latency_ms") is not None]
    measured = [(one, _excess(one, constraints), _lacks(one, constraints)) for one in timed or models]

    def order(row: tuple[Mapping[str, Any], float, Mapping[str, int]]) -> tuple[int, float, str]:
        return sum(row[2].values()), row[1], row[0]["id"]

    # One model that misses ranges only, one that misses names only; if there is neither, one that misses both.
    ways = [[row for row in measured if not row[2]], [row for row in measured if row[1] <= 1]]
    nearest = [min(way, key=order) for way in ways if way] or [min(measured, key=order)]
    lines = []
    for model, _, lacks in nearest:
        values = {name: model.get(name) for name, one in RANGES.items() if one.shown or constraints.limits(name)}
        shown = ", ".join(f"{value:.3g} {RANGES[name].unit}" for name, value in values.items() if value is not None)
        advice = [*_relaxed(model, constraints), *lacks, *([] if timed else ["time it"])]
        lines.append(f"  {model['id']} ({shown}): {' and '.join(advice)}")
    if untimed := len(models) - len(timed):
        device, threads, batch = _PROFILE.fullmatch(constraints.latency_profile or "").groups()  # type: ignore[union-attr]
        command = f"tans zoo profile --device {device} --threads {threads} --batch {batch}"
        lines.append(f"  {untimed:,} were not timed under {constraints.latency_profile}. Run `{command}`.")
    summary = f"0 of {len(models):,} models satisfy {constraints.in_words()}. The nearest, and what would let it in:"
    return "\n".join([summary, *lines])


def _option(end: str, name: str) -> str:
    return f"--{end}-{name.replace('_', '-')}"


def _lacks(model: Mapping[str, Any], constraints: Constraints) -> dict[str, int]:
    """Return advice to let a model in that no range can be relaxed for, and how many names each is about."""
    lacks = {}
    for name, one in SETS.items():
        given = getattr(constraints, name)
        if given is not None and (names := one.lacks(model[one.column], given)):
            lacks[one.advice.format(",".join(names))] = len(names)
    for name in filter(constraints.limits, RANGES):
        if RANGES[name].unknown and model.get(name) is None:
            lacks[RANGES[name].unknown] = 1
    return lacks


def _excess(model: Mapping[str, Any], constraints: Constraints) -> float:
    """Return the largest factor by which a model misses a range; 1 if it misses none."""
    factors = [1.0]
    for name in RANGES:
        low, high = constraints.range_of(name)
        if model.get(name) is None:
            continue
        value = max(float(model[name]), 1e-9)
        factors += [low / value] if low is not None else []
        factors += [value / high] if high is not None else []
    return max(factors)


def _relaxed(model: Mapping[str, Any], constraints: Constraints) -> list[str]:
    advice = []
    for name, one in RANGES.items():
        low, high = constraints.range_of(name)
        if model.get(name) is None:
            continue
        value = float(model[name])
        if low is not None and value < low:
            advice.append(f"lower {_option('min', name)} to {_rounded(value, math.floor, one.digits):g}")
        if high is not None and value > high:
            advice.append(f"raise {_option('max', name)} to {_rounded(value, math.ceil, one.digits):g}")
    return advice


def _rounded(value: float, rounding: Callable[[float], int], digits: int) -> float:
    """Round a number from 0 to some significant digits, down or up."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return round(rounding(round(value / unit, 9)) * unit, 12)
