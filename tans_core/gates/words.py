"""great-expectations' results in words: what failed, how often, what was wanted, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

EXAMPLES = 3


def describe(result: dict[str, Any], key: str, rows: int) -> str:
    """Return one line on an expectation that was not met: column, how many, wanted, examples."""
    config = result["expectation_config"]
    kwargs, kind, detail = config["kwargs"], config["type"], result["result"]
    column = kwargs.get("column", "") or kwargs.get("column_A", "")
    raised = exception_of(result)
    if raised is not None:
        return f"{column or kind}: could not be checked: {str(raised['exception_message']).splitlines()[0]}"
    bounds = _bounds(kwargs)
    if kind == "expect_table_row_count_to_be_between":
        return f"got {detail['observed_value']:,} rows, want {bounds}"
    if kind == "expect_table_columns_to_match_set":
        missing = sorted(set(kwargs["column_set"]) - set(detail["observed_value"]))
        return f"lacks the columns {', '.join(missing)}"
    if kind == "expect_column_distinct_values_to_contain_set":
        examples = _list(detail["partial_missing_list"][:EXAMPLES])
        return f"{column}: {detail['missing_count']:,} of {len(kwargs['value_set']):,} have no row: {examples}"
    if "unexpected_count" not in detail:
        return f"{column}: {_aggregate(kind)} is {_number(detail['observed_value'])}, want {bounds}"
    is_fact = kwargs.get("value_set") == [True]
    wanted = {
        "expect_column_values_to_not_be_null": "null or NaN",
        "expect_column_values_to_be_unique": "not unique",
        "expect_column_values_to_be_json_parseable": "not JSON",
        "expect_column_values_to_match_regex": f"not of the form {kwargs.get('regex')}",
        "expect_column_values_to_be_in_set": "not True"
        if is_fact
        else f"not in {_list(kwargs.get('value_set') or [])}",
        "expect_column_values_to_be_between": f"not {bounds}",
        "expect_column_pair_values_a_to_be_greater_than_b": f"below {kwargs.get('column_B')}",
    }.get(kind, kind)
    share = f" (allowed: {1 - kwargs['mostly']:.0%})" if kwargs.get("mostly", 1.0) < 1 else ""
    examples = _examples(detail, key, key if is_fact else column)
    return f"{column}: {detail['unexpected_count']:,} of {rows:,} {wanted}{share}{examples}"


def exception_of(result: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first exception that was raised, or None; `exception_info` is flat, or a mapping by metric."""
    info = result["exception_info"]
    every = [info] if "raised_exception" in info else list(info.values())
    return next((one for one in every if one.get("raised_exception")), None)


def _examples(detail: dict[str, Any], key: str, column: str) -> str:
    rows = detail.get("unexpected_index_list") or []
    if rows and isinstance(rows[0], dict):
        shown = [str(row.get(key)) if key == column else f"{row.get(key)} ({_number(row.get(column))})" for row in rows]
        shown = list(dict.fromkeys(shown))
    else:
        shown = [_number(value) for value in detail.get("partial_unexpected_list") or []]
    return f", for example {', '.join(shown[:EXAMPLES])}" if shown else ""


def _bounds(kwargs: dict[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and low == high:
        return f"exactly {_number(low)}"
    below = f"{'above' if kwargs.get('strict_min') else 'at least'} {_number(low)}" if low is not None else ""
    upper = f"at most {_number(high)}" if high is not None else ""
    return " and ".join(part for part in (below, upper) if part)


def _aggregate(kind: str) -> str:
    return kind.removeprefix("expect_column_").removesuffix("_to_be_between").replace("_", " ")


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _list(values: Sequence[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:EXAMPLES])
    return shown if len(values) <= EXAMPLES else f"{shown}, … ({len(values)} in all)"


def keys_of(detail: dict[str, Any], key: str) -> tuple[str, ...]:
    """Return the keys of the rows that do not meet an expectation, in the order of the frame."""
    rows = detail.get("unexpected_index_list") or []
    return tuple(str(row[key]) for row in rows if isinstance(row, dict) and key in row)
