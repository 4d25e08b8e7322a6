"""Limits on retrieved models, declared once for the API, the command and the flows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tans_core.errors import ParamsError, problems
from tans_core.licences import check_accepted, lacking, satisfied

Millions = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]
Milliseconds = Annotated[float | None, Field(gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "MS"})]

COSTS = ("params_m", "macs_m")
"""Columns of the index that a range can be set on."""
RANGES = {"params_m": "M parameters", "macs_m": "M MACs", "latency_ms": "ms"}
"""All that a range can be set on, and the units. Latencies depend on a profile, so the index does not contain them."""

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
    """Ranges of costs and of latency under one profile, and licences; None sets no limit."""

    min_params_m: Annotated[Millions, Field(description="The fewest parameters, in millions.")] = None
    max_params_m: Annotated[Millions, Field(description="The most parameters, in millions.")] = None
    min_macs_m: Annotated[Millions, Field(description="The fewest multiply-accumulates of one image, in millions.")] = (
        None
    )
    max_macs_m: Annotated[Millions, Field(description="The most multiply-accumulates of one image, in millions.")] = (
        None
    )
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
            json_schema_extra={"option": "--licence", "metavar": "ID"},
        ),
    ] = None

    @field_validator("licences", mode="before")
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
        for column in RANGES:
            low, high = self.range_of(column)
            if low is not None and high is not None and low > high:
                least, most = (f"--{end}-{column.replace('_', '-')} ({end}_{column})" for end in ("min", "max"))
                raise ValueError(f"{least}: got {low:g}, want at most the {high:g} of {most}")
        if self.range_of("latency_ms") != (None, None) and self.latency_profile is None:
            raise ValueError(
                "latency_profile: missing; want the profile that the limit is for, such as cpu-1-threads-batch-1. "
                "`tans zoo profile` measures under one, and names it"
            )
        if self.range_of("latency_ms") == (None, None) and self.latency_profile is not None:
            raise ValueError("latency_profile: limits nothing without max_latency_ms or min_latency_ms")
        return self

    def range_of(self, column: str) -> tuple[float | None, float | None]:
        """Return the minimum and the maximum of a column."""
        return getattr(self, f"min_{column}"), getattr(self, f"max_{column}")

    def within(self, column: str, value: float | None) -> bool:
        """Return whether a value is within the range of a column. An unknown one is not, if there is a limit."""
        low, high = self.range_of(column)
        if value is None:
            return low is None and high is None
        return (low is None or value >= low) and (high is None or value <= high)

    def fit(self, model: Any, latency_ms: float | None = None) -> bool:
        """Return whether a model's params_m, macs_m and licence satisfy them, and its latency; None if not timed."""
        costs = all(self.within(column, getattr(model, column)) for column in COSTS)
        allowed = self.licences is None or satisfied(model.licence, self.licences)
        return costs and allowed and self.within("latency_ms", latency_ms)

    def in_words(self) -> str:
        """Return the limits as text for a message; empty if there are none."""
        parts = []
        for column in RANGES:
            option = column.replace("_", "-")
            low, high = self.range_of(column)
            parts += [f"--min-{option} {low:g}"] if low is not None else []
            parts += [f"--max-{option} {high:g}"] if high is not None else []
        if self.latency_profile is not None:
            parts.append(f"--latency-profile {self.latency_profile}")
        if self.licences is not None:
            parts.append(f"--licence {','.join(self.licences) or 'none'}")
        return " and ".join(parts)


def nearest_miss(models: Sequence[Mapping[str, Any]], constraints: Constraints) -> str:
    """Return a message: no model fits, which ones come nearest, and which limits to relax for them.

    Args:
        models: each with id, params_m, macs_m and licence; and latency_ms if it was timed under the profile.
        constraints: satisfied by none of them.
    """
    if not models:
        return "the index has no model. Run `tans build`, then `tans publish`."
    accepted = constraints.licences
    licences = {model["licence"] for model in models}
    missing = {name: () if accepted is None else lacking(name, accepted) for name in licences}
    timed = [one for one in models if constraints.latency_profile is None or one.get("latency_ms") is not None]
    measured = [(one, _excess(one, constraints), missing[one["licence"]]) for one in timed or models]
    # One model that needs other costs only, one that needs licences only; if there is neither, one that needs both.
    ways = [[row for row in measured if not row[2]], [row for row in measured if row[1] <= 1]]
    nearest = [min(way, key=lambda row: (len(row[2]), row[1], row[0]["id"])) for way in ways if way]
    nearest = nearest or [min(measured, key=lambda row: (len(row[2]), row[1], row[0]["id"]))]
    lines = []
    for model, _, to_accept in nearest:
        known = {unit: model[column] for column, unit in RANGES.items() if model.get(column) is not None}
        costs = ", ".join(f"{value:.3g} {unit}" for unit, value in known.items())
        advice = _relaxed(model, constraints)
        if to_accept:
            advice.append(f"accept --licence {','.join(to_accept)} as well")
        if not timed:
            advice.append("time it")
        lines.append(f"  {model['id']} ({costs}): {' and '.join(advice)}")
    if untimed := len(models) - len(timed):
        device, threads, batch = _PROFILE.fullmatch(constraints.latency_profile or "").groups()  # type: ignore[union-attr]
        command = f"tans zoo profile --device {device} --threads {threads} --batch {batch}"
        lines.append(f"  {untimed:,} were not timed under {constraints.latency_profile}. Run `{command}`.")
    summary = f"0 of {len(models):,} models satisfy {constraints.in_words()}. The nearest, and what would let it in:"
    return "\n".join([summary, *lines])


def _excess(model: Mapping[str, Any], constraints: Constraints) -> float:
    """Return the largest factor by which a model misses a range; 1 if it misses none."""
    factors = [1.0]
    for column in RANGES:
        low, high = constraints.range_of(column)
        if model.get(column) is None:
            continue
        value = max(float(model[column]), 1e-9)
        factors += [low / value] if low is not None else []
        factors += [value / high] if high is not None else []
    return max(factors)


def _relaxed(model: Mapping[str, Any], constraints: Constraints) -> list[str]:
    advice = []
    for column in RANGES:
        low, high = constraints.range_of(column)
        if model.get(column) is None:
            continue
        option, value = column.replace("_", "-"), float(model[column])
        if low is not None and value < low:
            advice.append(f"lower --min-{option} to {_two_digits(value, math.floor):g}")
        if high is not None and value > high:
            advice.append(f"raise --max-{option} to {_two_digits(value, math.ceil):g}")
    return advice


def _two_digits(value: float, rounding: Callable[[float], int]) -> float:
    """Round a number above 0 to two significant digits, down or up."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(rounding(round(value / unit, 9)) * unit, 12)
