"""Limits on retrieved models, declared once for the API, the command and the flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tans_core.errors import ParamsError, problems
from tans_core.licences import check_accepted, lacking, satisfied

Millions = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]

RANGES = {"params_m": "M parameters", "macs_m": "M MACs"}
"""Columns of the index that a range can be set on, and their units."""


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
    """Ranges of costs, and licences; None sets no limit."""

    min_params_m: Annotated[Millions, Field(description="The fewest parameters, in millions.")] = None
    max_params_m: Annotated[Millions, Field(description="The most parameters, in millions.")] = None
    min_macs_m: Annotated[Millions, Field(description="The fewest multiply-accumulates of one image, in millions.")] = (
        None
    )
    max_macs_m: Annotated[Millions, Field(description="The most multiply-accumulates of one image, in millions.")] = (
        None
    )
    licences: Annotated[
        tuple[str, ...] | None,
        Field(
            description="A licence that you accept, by its SPDX id, or several with commas: the weights, and all "
            "images and weights that they descend from, may be used under these. All by default.",
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
        return self

    def range_of(self, column: str) -> tuple[float | None, float | None]:
        """Return the minimum and the maximum of a column."""
        return getattr(self, f"min_{column}"), getattr(self, f"max_{column}")

    def where(self, expressions: Iterable[str]) -> str | None:
        """Return the limits as a filter for LanceDB; None for no limits.

        Args:
            expressions: the licences of the index's models, each once.
        """
        parts = []
        for column in RANGES:
            low, high = self.range_of(column)
            parts += [f"{column} >= {float(low)!r}"] if low is not None else []
            parts += [f"{column} <= {float(high)!r}"] if high is not None else []
        if self.licences is not None:
            allowed = [licence for licence in expressions if satisfied(licence, self.licences)]
            quoted = ", ".join("'" + licence.replace("'", "''") + "'" for licence in allowed)
            parts.append(f"licence IN ({quoted})" if allowed else "false")
        return " AND ".join(parts) or None

    def fit(self, model: Any) -> bool:
        """Return whether a model's params_m, macs_m and licence satisfy them."""
        for column in RANGES:
            low, high = self.range_of(column)
            value = getattr(model, column)
            if (low is not None and value < low) or (high is not None and value > high):
                return False
        return self.licences is None or satisfied(model.licence, self.licences)

    def in_words(self) -> str:
        """Return the limits as text for a message; empty if there are none."""
        parts = []
        for column in RANGES:
            option = column.replace("_", "-")
            low, high = self.range_of(column)
            parts += [f"--min-{option} {low:g}"] if low is not None else []
            parts += [f"--max-{option} {high:g}"] if high is not None else []
        if self.licences is not None:
            parts.append(f"--licence {','.join(self.licences) or 'none'}")
        return " and ".join(parts)


def nearest_miss(models: Sequence[Mapping[str, Any]], constraints: Constraints) -> str:
    """Return a message: no model fits, which ones come nearest, and which limits to relax for them.

    Args:
        models: each with id, params_m, macs_m and licence.
        constraints: satisfied by none of them.
    """
    if not models:
        return "the index has no model. Run `tans build`, then `tans publish`."
    accepted = constraints.licences
    licences = {model["licence"] for model in models}
    missing = {name: () if accepted is None else lacking(name, accepted) for name in licences}
    measured = [(model, _excess(model, constraints), missing[model["licence"]]) for model in models]
    # One model that needs other costs only, one that needs licences only; if there is neither, one that needs both.
    ways = [[row for row in measured if not row[2]], [row for row in measured if row[1] <= 1]]
    nearest = [min(way, key=lambda row: (len(row[2]), row[1], row[0]["id"])) for way in ways if way]
    nearest = nearest or [min(measured, key=lambda row: (len(row[2]), row[1], row[0]["id"]))]
    lines = []
    for model, _, to_accept in nearest:
        costs = ", ".join(f"{model[column]:.3g} {unit}" for column, unit in RANGES.items())
        advice = _relaxed(model, constraints)
        if to_accept:
            advice.append(f"accept --licence {','.join(to_accept)} as well")
        lines.append(f"  {model['id']} ({costs}): {' and '.join(advice)}")
    summary = f"0 of {len(models):,} models satisfy {constraints.in_words()}. The nearest, and what would let it in:"
    return "\n".join([summary, *lines])


def _excess(model: Mapping[str, Any], constraints: Constraints) -> float:
    """Return the largest factor by which a model misses a range; 1 if it misses none."""
    factors = [1.0]
    for column in RANGES:
        low, high = constraints.range_of(column)
        value = max(float(model[column]), 1e-9)
        factors += [low / value] if low is not None else []
        factors += [value / high] if high is not None else []
    return max(factors)


def _relaxed(model: Mapping[str, Any], constraints: Constraints) -> list[str]:
    advice = []
    for column in RANGES:
        low, high = constraints.range_of(column)
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
