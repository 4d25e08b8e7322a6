"""The expectations of our suites, under short names.

Each function returns a great-expectations object. Importing that package takes seconds, so it is imported at the first
call.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from tans_core.imports import uncollected

# great-expectations' classes lack the types that mypy --strict requires.
Expectation = Any

WARNING = "warning"
"""The severity, in great-expectations, of failures that are listed but stop nothing."""


def great_expectations() -> ModuleType:
    """Import great-expectations, once, and return it."""
    # Its logger reports every function that it registers, and repeats every failure that we report.
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
    with uncollected(), warnings.catch_warnings():
        # It imports deprecated modules of the standard library.
        warnings.simplefilter("ignore", DeprecationWarning)
        import great_expectations as gx
        import great_expectations.expectations

        # One of its modules sets its own level, to log temporary folders.
        logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.CRITICAL)
    return gx


def _make(kind: str, **arguments: Any) -> Expectation:
    return getattr(great_expectations().expectations, kind)(**arguments)


def warning(expectation: Expectation) -> Expectation:
    """Return the same expectation as one whose failure is only a warning."""
    return expectation.copy(update={"severity": WARNING})


def row_count(low: int, high: int | None) -> Expectation:
    return _make("ExpectTableRowCountToBeBetween", min_value=low, max_value=high)


def columns(names: Iterable[str]) -> Expectation:
    """The frame has at least these columns."""
    return _make("ExpectTableColumnsToMatchSet", column_set=sorted(names), exact_match=False)


def present(column: str) -> Expectation:
    """No value is null or NaN. Every other expectation on values skips nulls, so pair it with this one."""
    return _make("ExpectColumnValuesToNotBeNull", column=column)


def between(
    column: str, low: float | None, high: float | None, *, above: bool = False, mostly: float = 1.0
) -> Expectation:
    """Values in [low, high], or in (low, high] with `above`; `mostly` is the least share of rows."""
    return _make(
        "ExpectColumnValuesToBeBetween", column=column, min_value=low, max_value=high, strict_min=above, mostly=mostly
    )


def at_least(column: str, other: str) -> Expectation:
    """Each value of a column is at least that of the other one in its row; rows that lack either are skipped."""
    return _make(
        "ExpectColumnPairValuesAToBeGreaterThanB",
        column_A=column,
        column_B=other,
        or_equal=True,
        ignore_row_if="either_value_is_missing",
    )


def true(column: str) -> Expectation:
    return _make("ExpectColumnValuesToBeInSet", column=column, value_set=[True])


def one_of(column: str, values: Iterable[Any]) -> Expectation:
    return _make("ExpectColumnValuesToBeInSet", column=column, value_set=sorted(values))


def covers(column: str, values: Iterable[Any]) -> Expectation:
    """Each of `values` occurs in the column."""
    return _make("ExpectColumnDistinctValuesToContainSet", column=column, value_set=sorted(values))


def unique(column: str) -> Expectation:
    return _make("ExpectColumnValuesToBeUnique", column=column)


def matches(column: str, pattern: str) -> Expectation:
    return _make("ExpectColumnValuesToMatchRegex", column=column, regex=pattern)


def is_json(column: str) -> Expectation:
    return _make("ExpectColumnValuesToBeJsonParseable", column=column)


def median_at_least(column: str, low: float) -> Expectation:
    return _make("ExpectColumnMedianToBeBetween", column=column, min_value=low)


def max_at_least(column: str, low: float) -> Expectation:
    return _make("ExpectColumnMaxToBeBetween", column=column, min_value=low)


def number(column: str, low: float, high: float, *, above: bool = False) -> list[Expectation]:
    """A finite number in [low, high] in every row."""
    return [present(column), between(column, low, high, above=above)]
