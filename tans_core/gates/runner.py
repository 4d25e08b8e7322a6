"""One gate: frames and what is expected of them, a report, and a GateError that a person can act on."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tans_core.errors import GateError
from tans_core.gates import expect
from tans_core.io import write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

REPORTS = Path("reports/gates")
EXAMPLES = 3
SHOWN_FAILURES = 20


@dataclass(frozen=True)
class Check:
    """A frame and what is expected of it.

    Attributes:
        what: the rows in words, plural ("models of digits").
        where: the file or table they come from, relative to the project.
        frame: scalar columns only; great-expectations cannot look into arrays, so those come as derived columns (length, norm,
            finite).
        key: the column that names a row in examples.
        rows: least and most rows; the least is at least 1, since every expectation holds on an empty frame.
        expectations: what `expect` makes; the row count is added in front.
    """

    what: str
    where: str
    frame: pd.DataFrame
    key: str
    expectations: Sequence[expect.Expectation]
    rows: tuple[int, int | None] = (1, None)


@dataclass
class Outcome:
    """What became of one check: a record for the report, and a line for each failure."""

    record: dict[str, Any]
    failures: list[str] = field(default_factory=list)


def run_gate(gate: str, checks: Sequence[Check], root: Path, hint: str = "") -> None:
    """Validate every check, and write `reports/gates/<gate>.json` and `.md`.

    Args:
        gate: the report's name.
        checks: at least one.
        root: the project's folder.
        hint: what to do when it fails: the next command.

    Raises:
        GateError: an expectation failed, was dropped, or nothing was there to check. It lists what, where, how many, and
            examples.
    """
    outcomes = [judge(check, validate(check)) for check in checks]
    failures = [line for outcome in outcomes for line in outcome.failures]
    if not checks:
        failures.append("nothing was given to check")
    report = {"gate": gate, "passed": not failures, "failures": failures, "checks": [one.record for one in outcomes]}
    write_json(report, root / REPORTS / f"{gate}.json")
    write_text(_markdown(report), root / REPORTS / f"{gate}.md")
    if not failures:
        logger.info("gate %s: passed", gate)
        return
    shown = failures[:SHOWN_FAILURES]
    if len(failures) > len(shown):
        shown.append(f"… and {len(failures) - len(shown)} more")
    count = "1 expectation" if len(failures) == 1 else f"{len(failures)} expectations"
    next_step = f"{hint} " if hint else ""
    lines = [
        f"gate {gate}: {count} not met",
        *(f"  - {line}" for line in shown),
        f"  {next_step}Report: {REPORTS / gate}.md",
    ]
    raise GateError("\n".join(lines), tuple(failures))


def suite_of(check: Check) -> list[expect.Expectation]:
    """Return the check's expectations with the row count in front."""
    low, high = check.rows
    return [expect.row_count(max(low, 1), high), *check.expectations]


def validate(check: Check) -> Any:
    """Run the check's suite, and return great-expectations' result."""
    gx = expect.great_expectations()
    batch = _batches().get_batch({"dataframe": check.frame})
    suite = gx.ExpectationSuite(name=check.what, expectations=suite_of(check))
    wanted = {"result_format": "COMPLETE"}
    if check.key in check.frame.columns:
        return batch.validate(suite, result_format={**wanted, "unexpected_index_column_names": [check.key]})
    return batch.validate(suite, result_format=wanted)


@cache
def _batches() -> Any:
    """Return what takes a whole frame, in a context that lives in memory; making one takes as long as using it."""
    context = expect.great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("frame").add_dataframe_asset("frame")
    return asset.add_batch_definition_whole_dataframe("whole")


def judge(check: Check, validation: Any) -> Outcome:
    """Turn great-expectations' result into a record and readable failures.

    A validation also fails when it holds fewer results than the suite has expectations: great-expectations drops one that
    it cannot build, and calls the rest a success.
    """
    prefix = f"{check.what} ({check.where})"
    results = [result.to_json_dict() for result in validation.results]
    outcome = Outcome({"what": check.what, "where": check.where, "rows": len(check.frame), "expectations": []})
    if not check.expectations:
        outcome.failures.append(f"{prefix}: the suite is empty, so it cannot tell good data from bad")
    for name in _dropped(suite_of(check), results):
        outcome.failures.append(f"{prefix}: {name}: the expectation was dropped, no result came back")
    for result in results:
        text = describe(result, check.key, len(check.frame))
        kwargs = {key: value for key, value in result["expectation_config"]["kwargs"].items() if key != "batch_id"}
        outcome.record["expectations"].append(
            {
                "type": result["expectation_config"]["type"],
                "kwargs": _plain(kwargs),
                "success": result["success"],
                "finding": "" if result["success"] else text,
            }
        )
        if not result["success"]:
            outcome.failures.append(f"{prefix}: {text}")
    return outcome


def _dropped(suite: Sequence[expect.Expectation], results: Sequence[dict[str, Any]]) -> list[str]:
    asked = Counter((one.expectation_type, getattr(one, "column", None)) for one in suite)
    came = Counter(
        (one["expectation_config"]["type"], one["expectation_config"]["kwargs"].get("column")) for one in results
    )
    return [f"{kind} on {column}" if column else kind for kind, column in (asked - came).elements()]


def describe(result: dict[str, Any], key: str, rows: int) -> str:
    """Say in one line what an unmet expectation found: column, how many, wanted, examples."""
    config = result["expectation_config"]
    kwargs, kind, detail = config["kwargs"], config["type"], result["result"]
    column = kwargs.get("column", "")
    raised = next((info for info in _exceptions(result["exception_info"]) if info.get("raised_exception")), None)
    if raised is not None:
        return f"{column or kind}: could not be checked: {str(raised['exception_message']).splitlines()[0]}"
    bounds = _bounds(kwargs)
    if kind == "expect_table_row_count_to_be_between":
        return f"got {detail['observed_value']:,} rows, want {bounds}"
    if kind == "expect_table_columns_to_match_set":
        lacking = sorted(set(kwargs["column_set"]) - set(detail["observed_value"]))
        return f"lacks the columns {', '.join(lacking)}"
    if kind == "expect_column_distinct_values_to_contain_set":
        examples = _list(detail["partial_missing_list"][:EXAMPLES])
        return f"{column}: {detail['missing_count']:,} of {len(kwargs['value_set']):,} have no row: {examples}"
    if "unexpected_count" not in detail:
        return f"{column}: {_aggregate(kind)} is {_number(detail['observed_value'])}, want {bounds}"
    wanted = {
        "expect_column_values_to_not_be_null": "null or NaN",
        "expect_column_values_to_be_unique": "not unique",
        "expect_column_values_to_be_json_parseable": "not JSON",
        "expect_column_values_to_match_regex": f"not of the form {kwargs.get('regex')}",
        "expect_column_values_to_be_in_set": f"not in {_list(kwargs.get('value_set') or [])}",
        "expect_column_values_to_be_between": f"not {bounds}",
    }.get(kind, kind)
    share = f" (allowed: {1 - kwargs['mostly']:.0%})" if kwargs.get("mostly", 1.0) < 1 else ""
    return f"{column}: {detail['unexpected_count']:,} of {rows:,} {wanted}{share}{_examples(detail, key, column)}"


def _exceptions(info: dict[str, Any]) -> list[dict[str, Any]]:
    """Exceptions come flat, or in a mapping by metric."""
    return [info] if "raised_exception" in info else list(info.values())


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


def _plain(value: Any) -> Any:
    """Make a value fit for strict JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _markdown(report: dict[str, Any]) -> str:
    lines = [f"# Gate {report['gate']}: {'passed' if report['passed'] else 'FAILED'}", ""]
    lines += [f"- {line}" for line in report["failures"]] + ([""] if report["failures"] else [])
    for check in report["checks"]:
        lines += [
            f"## {check['what']}",
            "",
            f"`{check['where']}`, {check['rows']:,} rows",
            "",
            "| | expectation | finding |",
            "|-|-|-|",
        ]
        for one in check["expectations"]:
            arguments = ", ".join(f"{key}={value}" for key, value in sorted(one["kwargs"].items()) if value is not None)
            finding = one["finding"].replace("|", "\\|")
            lines.append(
                f"| {'ok' if one['success'] else 'NO'} | {one['type']}({arguments.replace('|', chr(92) + '|')}) | {finding} |"
            )
        lines.append("")
    return "\n".join(lines)
