"""Limits on the models that may be found: the one declaration that the API, the command and the flows are made from."""

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
    """What a request may say beside its data set. A field's description is its help, everywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, **values: Any) -> Self:
        """Check values.

        Raises:
            ParamsError: all that is wrong with them, by name.
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
                raise ValueError(f"min_{column}: got {low:g}, want at most max_{column}, {high:g}")
        return self

    def range_of(self, column: str) -> tuple[float | None, float | None]:
        """Return the least and the most that a column may have."""
        return getattr(self, f"min_{column}"), getattr(self, f"max_{column}")

    def where(self, expressions: Iterable[str]) -> str | None:
        """Return the limits as a filter that LanceDB applies before the search; None where there are none.

        Args:
            expressions: the licences that the index's models have, each once.
        """
        parts = []
        for column in RANGES:
            low, high = self.range_of(column)
            parts += [f"{column} >= {float(low)!r}"] if low is not None else []
            parts += [f"{column} <= {float(high)!r}"] if high is not None else []
        if self.licences is not None:
            allowed = [one for one in expressions if satisfied(one, self.licences)]
            quoted = ", ".join("'" + one.replace("'", "''") + "'" for one in allowed)
            parts.append(f"licence IN ({quoted})" if allowed else "false")
        return " AND ".join(parts) or None

    def fit(self, model: Any) -> bool:
        """Say whether a model, by its params_m, macs_m and licence, satisfies them."""
        for column in RANGES:
            low, high = self.range_of(column)
            value = getattr(model, column)
            if (low is not None and value < low) or (high is not None and value > high):
                return False
        return self.licences is None or satisfied(model.licence, self.licences)

    def in_words(self) -> str:
        """Return the limits for a message."""
        parts = []
        for column in RANGES:
            low, high = self.range_of(column)
            parts += [f"{column} >= {low:g}"] if low is not None else []
            parts += [f"{column} <= {high:g}"] if high is not None else []
        if self.licences is not None:
            parts.append(f"licences within {', '.join(self.licences) or 'none'}")
        return " and ".join(parts) or "no constraint"


def nearest_miss(models: Sequence[Mapping[str, Any]], constraints: Constraints) -> str:
    """Say that no model fits, which one comes nearest to it, and what to give up for it.

    Args:
        models: each with id, params_m, macs_m and licence.
        constraints: that none of them satisfies.
    """
    if not models:
        return "the index holds no model. Run `tans build`, then `tans publish`."
    accepted = constraints.licences
    licences = {one["licence"] for one in models}
    missing = {one: () if accepted is None else lacking(one, accepted) for one in licences}
    measured = [(one, _excess(one, constraints), missing[one["licence"]]) for one in models]
    # What is to be given up is costs or licences, by choice where there is one; both where it has to be.
    ways = [[row for row in measured if not row[2]], [row for row in measured if row[1] <= 1]]
    nearest = [min(way, key=lambda row: (len(row[2]), row[1], row[0]["id"])) for way in ways if way]
    nearest = nearest or [min(measured, key=lambda row: (len(row[2]), row[1], row[0]["id"]))]
    lines = []
    for model, _, lack in nearest:
        costs = ", ".join(f"{model[column]:.2f} {unit}" for column, unit in RANGES.items())
        advice = _relaxed(model, constraints)
        if lack:
            advice.append(f"accept --licence {','.join(lack)} as well")
        lines.append(f"  {model['id']} ({costs}): {' and '.join(advice)}")
    said = f"0 of {len(models):,} models satisfy {constraints.in_words()}. Nearest, and what would let it in:"
    return "\n".join([said, *lines])


def _excess(model: Mapping[str, Any], constraints: Constraints) -> float:
    """Return the largest factor by which a model misses its ranges; 1 where it keeps to them."""
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


def _two_digits(value: float, whole: Callable[[float], int]) -> float:
    """Return a number above 0 of two significant digits, rounded down or up."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(whole(round(value / unit, 9)) * unit, 12)
