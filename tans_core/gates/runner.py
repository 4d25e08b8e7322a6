"""One gate: frames and their expectations, a report, and a GateError with advice."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tans_core.errors import GateError
from tans_core.gates import expect
from tans_core.gates.words import describe, exception_of, keys_of
from tans_core.io import write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

REPORTS = Path("reports/gates")
SHOWN_FAILURES = 20


@dataclass(frozen=True)
class Check:
    """A frame and its expectations.

    Attributes:
        what: the rows in words, plural ("models of digits").
        where: the file or table they come from, relative to the project.
        frame: scalar columns only; great-expectations cannot check arrays, so these come as derived columns (length,
            norm, finite).
        key: the column that names a row in examples.
        rows: least and most rows; the least is at least 1, since every expectation holds on an empty frame.
        expectations: from `expect`; the row count is added in front. One from `expect.warning` stops nothing.
    """

    what: str
    where: str
    frame: pd.DataFrame
    key: str
    expectations: Sequence[expect.Expectation]
    rows: tuple[int, int | None] = (1, None)


@dataclass(frozen=True)
class Finding:
    """An expectation that was not met.

    Attributes:
        text: what, where, how many, and examples.
        warning: it is listed and stops nothing; an expectation that could not be checked is never only a warning.
        keys: of the rows that do not meet it, in the order of the frame; empty for an aggregate, or if nothing could be
            checked.
    """

    text: str
    warning: bool = False
    keys: tuple[str, ...] = ()


@dataclass
class Outcome:
    """The result of one check: a record for the report, and the expectations that were not met."""

    record: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        return [finding.text for finding in self.findings if not finding.warning]


def run_gate(gate: str, checks: Sequence[Check], root: Path, hint: str = "") -> None:
    """Validate every check, and write `reports/gates/<gate>.json` and `.md`.

    Args:
        gate: the report's name.
        checks: at least one.
        root: the project's folder.
        hint: advice for a failure: the next command.

    Raises:
        GateError: an expectation failed or was dropped, or there was nothing to check. It lists what, where, how many,
            and examples.
    """
    findings = run_checks(gate, checks, root)
    failures = [finding.text for finding in findings if not finding.warning]
    for finding in findings:
        if finding.warning:
            logger.warning("gate %s: %s", gate, finding.text)
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


def run_checks(gate: str, checks: Sequence[Check], root: Path | None) -> list[Finding]:
    """Validate every check, write `reports/gates/<gate>.json` and `.md`, and return the expectations not met.

    Args:
        gate: the report's name.
        checks: having none is a failure, too.
        root: the folder below which the report is written; None writes none.
    """
    outcomes = [outcome_of(check, validate(check)) for check in checks]
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    if not checks:
        findings.append(Finding("nothing was given to check"))
    failures = [finding.text for finding in findings if not finding.warning]
    report = {
        "gate": gate,
        "passed": not failures,
        "failures": failures,
        "warnings": [finding.text for finding in findings if finding.warning],
        "checks": [outcome.record for outcome in outcomes],
    }
    if root is not None:
        write_json(report, root / REPORTS / f"{gate}.json")
        write_text(_markdown(report), root / REPORTS / f"{gate}.md")
    return findings


def suite_of(check: Check) -> list[expect.Expectation]:
    """Return the check's expectations with the row count in front."""
    low, high = check.rows
    return [expect.row_count(max(low, 1), high), *check.expectations]


def validate(check: Check) -> Any:
    """Run the check's suite, and return great-expectations' result."""
    gx = expect.great_expectations()
    suite = gx.ExpectationSuite(name=check.what, expectations=suite_of(check))
    wanted: dict[str, Any] = {"result_format": "COMPLETE"}
    if check.key in check.frame.columns:
        wanted["unexpected_index_column_names"] = [check.key]
    with _TURN:
        return _batches().get_batch({"dataframe": check.frame}).validate(suite, result_format=wanted)


_TURN = threading.Lock()
"""The frame belongs to the batch definition: a second thread would change it under the first."""


@cache
def _batches() -> Any:
    """Return the batch definition for a whole frame, in memory; cached, since making it takes as long as using it."""
    context = expect.great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("frame").add_dataframe_asset("frame")
    return asset.add_batch_definition_whole_dataframe("whole")


def outcome_of(check: Check, validation: Any) -> Outcome:
    """Turn great-expectations' result into a record and readable findings.

    A validation also fails if it has fewer results than the suite has expectations: great-expectations drops one that
    it cannot build, and reports success for the rest.
    """
    prefix = f"{check.what} ({check.where})"
    results = [result.to_json_dict() for result in validation.results]
    outcome = Outcome({"what": check.what, "where": check.where, "rows": len(check.frame), "expectations": []})
    if not check.expectations:
        outcome.findings.append(Finding(f"{prefix}: the suite is empty, so it cannot tell good data from bad"))
    for name in _dropped(suite_of(check), results):
        outcome.findings.append(Finding(f"{prefix}: {name}: the expectation was dropped, no result came back"))
    for result in results:
        text = describe(result, check.key, len(check.frame))
        config = result["expectation_config"]
        kwargs = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
        warning = config.get("severity") == expect.WARNING and exception_of(result) is None
        outcome.record["expectations"].append(
            {
                "type": config["type"],
                "kwargs": _plain(kwargs),
                "success": result["success"],
                "warning": warning,
                "finding": "" if result["success"] else text,
            }
        )
        if not result["success"]:
            keys = () if exception_of(result) else keys_of(result["result"], check.key)
            outcome.findings.append(Finding(f"{prefix}: {text}", warning, keys))
    return outcome


def _dropped(suite: Sequence[expect.Expectation], results: Sequence[dict[str, Any]]) -> list[str]:
    asked = Counter((one.expectation_type, getattr(one, "column", None)) for one in suite)
    came = Counter(
        (one["expectation_config"]["type"], one["expectation_config"]["kwargs"].get("column")) for one in results
    )
    return [f"{kind} on {column}" if column else kind for kind, column in (asked - came).elements()]


def _plain(value: Any) -> Any:
    """Return a value as strict JSON allows it."""
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
    lines += [f"- warning: {line}" for line in report["warnings"]] + ([""] if report["warnings"] else [])
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
            lines.append(f"| {_mark(one)} | {one['type']}({arguments.replace('|', chr(92) + '|')}) | {finding} |")
        lines.append("")
    return "\n".join(lines)


def _mark(record: dict[str, Any]) -> str:
    if record["success"]:
        return "ok"
    return "warning" if record["warning"] else "NO"
