"""The gate before a search: whether a user's images can be used for a search, and what to do if not.

Importing great-expectations takes seconds. `start_query_gate` lets another process import it while this one reads the
images:

    with start_query_gate() as gate:
        report = scan(path).report
        verdict = gate.check(report, thresholds, min_images_per_class=2, max_bad_share=0.5)
    verdict.raise_on_failure(run / "scan.json")

`python -m tans_core.gates.query` is that process.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from tans_core.errors import GateError, TansError
from tans_core.gates.query_rules import RULES, Rule, query_checks, query_rows
from tans_core.gates.query_words import Facts
from tans_core.gates.runner import Check, run_checks, validate
from tans_core.imports import import_when_used
from tans_core.leash import die_with_parent
from tans_core.params import QueryGateParams
from tans_core.runtime import collect_rarely
from tans_core.tasks.report import ScanReport
from tans_core.text import count, quoted

logger = logging.getLogger(__name__)

QueryThresholds = QueryGateParams

_ERRORS = {rule.error.__name__: rule.error for rule in RULES if rule.error}
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class QueryVerdict:
    """The result of the gate for a data set.

    Attributes:
        path: the data set, as the user gave it.
        failures: sentences that name classes and files and advise what to do, the gravest first; each stops the search.
        warnings: sentences of the same kind that stop nothing.
        error: what `raise_on_failure` raises; None if nothing failed.
    """

    path: str
    failures: tuple[str, ...]
    warnings: tuple[str, ...]
    error: type[TansError] | None = None

    @property
    def passed(self) -> bool:
        return not self.failures

    def raise_on_failure(self, details: Path | None = None) -> None:
        """Raise the error of the first failure; return if the data set passed.

        Args:
            details: the file with the whole report, for the message.

        Raises:
            TooManyBadFilesError, EmptyClassError, NoClassesError, TooFewImagesError: the first failure, in this order.
            GateError: the first failure is another one.
        """
        if self.passed:
            return
        first, *others = self.failures
        lines = [f"{quoted(self.path)}: {first}"]
        if others:
            lines = [f"{quoted(self.path)}: {count(len(self.failures), 'reason')} not to search with these images:"]
            lines += [f"  - {failure}" for failure in self.failures]
        if details is not None:
            lines.append(f"  Details: {details}")
        message = "\n".join(lines)
        kind = self.error or GateError
        raise GateError(message, self.failures) if kind is GateError else kind(message)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `write_json` takes."""
        return {
            "path": self.path,
            "passed": self.passed,
            "failures": list(self.failures),
            "warnings": list(self.warnings),
            "error": self.error.__name__ if self.error else None,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> QueryVerdict:
        """Return the verdict that `to_dict` was called on."""
        error = _ERRORS.get(values["error"], GateError) if values["error"] else None
        return cls(values["path"], tuple(values["failures"]), tuple(values["warnings"]), error)


def check_query(
    report: ScanReport,
    thresholds: QueryThresholds,
    *,
    min_images_per_class: int,
    max_bad_share: float,
    drop_empty_classes: bool = False,
) -> QueryVerdict:
    """Check the report of a scan.

    Args:
        report: of the scan.
        thresholds: the section `gates.query` of params.yaml, or `QueryThresholds()`.
        min_images_per_class: a class with fewer usable images stops the search.
        max_bad_share: a larger share of unreadable files stops it, 0..1.
        drop_empty_classes: classes without a usable image are a warning, not a failure.

    Returns:
        The verdict; bad data raises no error here.
    """
    facts = Facts(report, thresholds, min_images_per_class, max_bad_share, drop_empty_classes)
    rows = query_rows(facts)
    findings = run_checks("query", query_checks(facts, rows), None)
    unmet: dict[str, list[str]] = {}
    for key in sorted(int(key) for finding in findings for key in finding.keys):
        unmet.setdefault(rows[key].rule.column, []).append(rows[key].name)
    broken = [rule for rule in RULES if rule.column in unmet]
    hidden = {rule.hides for rule in broken if rule.hides}
    sentences = [(rule, _sentence(rule, unmet[rule.column], facts)) for rule in broken if rule.column not in hidden]
    # What great-expectations could not check is a failure, with its own text.
    other = [finding.text for finding in findings if not finding.keys]
    errors = [rule.error for rule, _ in sentences if rule.error]
    return QueryVerdict(
        path=report.path,
        failures=(*(text for rule, text in sentences if rule.error), *other),
        warnings=tuple(text for rule, text in sentences if not rule.error),
        error=errors[0] if errors else GateError if other else None,
    )


def _sentence(rule: Rule, names: Sequence[str], facts: Facts) -> str:
    text = rule.say(facts, names)
    return text[0].upper() + text[1:]


class QueryGate:
    """A process that imports great-expectations and checks one report; without it, this process checks."""

    def __init__(self, process: subprocess.Popen[bytes] | None) -> None:
        self._process = process

    def check(
        self,
        report: ScanReport,
        thresholds: QueryThresholds,
        *,
        min_images_per_class: int,
        max_bad_share: float,
        drop_empty_classes: bool = False,
    ) -> QueryVerdict:
        """Do as `check_query`, in the other process if it runs; a second call is checked in this process."""
        settings: dict[str, Any] = {
            "min_images_per_class": min_images_per_class,
            "max_bad_share": max_bad_share,
            "drop_empty_classes": drop_empty_classes,
        }
        request = {
            "report": report.to_dict(),
            "thresholds": thresholds.model_dump(),
            "settings": settings,
        }
        answer = self._ask(json.dumps(request).encode("ascii"))
        if answer is not None:
            return QueryVerdict.from_dict(answer)
        return check_query(report, thresholds, **settings)

    def _ask(self, request: bytes) -> dict[str, Any] | None:
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            answer, _ = process.communicate(request, timeout=_PATIENCE_S)
            result = json.loads(answer) if process.returncode == 0 else None
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            logger.debug("the gate's process gave no answer: %s", error)
            result = None
        finally:
            _end(process)
        return result if isinstance(result, dict) else None

    def close(self) -> None:
        """End the process at once."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def __enter__(self) -> QueryGate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_query_gate() -> QueryGate:
    """Start the process; call it from a lasting thread: the process ends with the thread that started it."""
    try:
        # -P: do not import from the current folder.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tans_core.gates.query"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD},
        )
    except OSError as error:
        logger.debug("the gate's process did not start: %s", error)
        process = None
    return QueryGate(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()


def _report_from(values: dict[str, Any]) -> ScanReport:
    names = {field.name for field in fields(ScanReport)}
    return ScanReport(**{name: _tuples(value) for name, value in values.items() if name in names})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def _serve() -> None:
    """Import, wait for one request on stdin, answer it on stdout."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both; the parent handles it
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # prints of libraries must not mix with the answer
    collect_rarely()
    # great-expectations imports them for expectations that no gate uses; they take a third of the time.
    import_when_used("altair", "scipy.stats")
    warm_up()
    text = sys.stdin.buffer.read()
    if not text:
        return
    request = json.loads(text)
    verdict = check_query(
        _report_from(request["report"]), QueryThresholds(**request["thresholds"]), **request["settings"]
    )
    with answers:
        json.dump(verdict.to_dict(), answers)
    os._exit(0)  # a normal exit takes long, and the parent waits for it


def warm_up() -> None:
    """Import great-expectations and check one row: the first check of a process takes seconds, later ones none."""
    import pandas as pd

    from tans_core.gates import expect

    validate(Check("nothing", "", pd.DataFrame({"name": ["a"], "x": [0.0]}), "name", [expect.between("x", 0, 1)]))


if __name__ == "__main__":
    _serve()
