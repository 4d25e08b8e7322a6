"""The rules for a user's images before a search: one table of rules on the data set and on its classes, each with its
sentence.

great-expectations compares each value with its limits, and a row that it finds leads back to its rule. If a rule does
not apply, its value is NaN, and the row is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tans_core.classes import in_order
from tans_core.errors import (
    EmptyClassError,
    GateError,
    NoClassesError,
    TansError,
    TooFewImagesError,
    TooManyBadFilesError,
)
from tans_core.gates import expect
from tans_core.gates import query_words as words
from tans_core.gates.query_words import Facts
from tans_core.gates.runner import Check
from tans_core.text import quoted

_NOT_APPLICABLE = float("nan")

Limit = Callable[[Facts], float]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        frame: "data set" (one value) or "classes" (one value a class).
        column: the name of the value; no two rules share one.
        say: returns the sentence, from the facts and the classes found (none for the data set's rules).
        low, high: bounds of the value; None for no bound.
        error: the error that is raised; None for a warning.
        hides: the column of a weaker rule with the same sentence, which is left out if this one is not met.
    """

    frame: str
    column: str
    say: Callable[[Facts, Sequence[str]], str]
    low: Limit | None = None
    high: Limit | None = None
    error: type[TansError] | None = None
    hides: str = ""


class Row(NamedTuple):
    """A rule, and one thing that it is about: the data set or a class. NaN stands for what does not apply."""

    rule: Rule
    name: str
    value: float
    low: float
    high: float


def query_rows(facts: Facts) -> list[Row]:
    """Return each rule with each thing that it is about."""
    frames = {"data set": [_data_set(facts)], "classes": _classes(facts)}
    rows = []
    for rule in RULES:
        low, high = (_NOT_APPLICABLE if limit is None else limit(facts) for limit in (rule.low, rule.high))
        rows += [Row(rule, one["name"], float(one[rule.column]), low, high) for one in frames[rule.frame]]
    return rows


def query_checks(facts: Facts, rows: Sequence[Row]) -> list[Check]:
    """Return the checks of the rules that stop and of those that warn; importing great-expectations takes seconds.

    An expectation takes as long for one value as for thousands, so all values are in one column. A row's key is its
    place in `rows`.
    """
    import pandas as pd

    frame = pd.DataFrame({name: [getattr(row, name) for row in rows] for name in ("value", "low", "high")})
    frame["row"] = range(len(rows))
    stops = pd.Series([row.rule.error is not None for row in rows], dtype=bool)
    within = [expect.at_least("value", "low"), expect.at_least("high", "value")]
    return [
        Check(what, quoted(facts.report.path), part, "row", expectations, (len(part), len(part)))
        for what, part, expectations in (
            ("rules", frame[stops], within),
            ("rules that warn", frame[~stops], [expect.warning(one) for one in within]),
        )
    ]


def _data_set(facts: Facts) -> dict[str, Any]:
    report = facts.report
    files = max(report.files, 1)
    side = report.sides_px[2]
    return {
        "name": quoted(report.path),
        "bad_share": report.bad_share,
        "too_few_classes": float(NoClassesError in facts.faults),
        "median_side_px": float(side) if report.used else _NOT_APPLICABLE,
        "enlargement": report.stored_size_px / max(side, 1) if report.used else _NOT_APPLICABLE,
        "leak_share": len(report.leaks) / (report.used + len(report.leaks)) if report.leaks else 0.0,
        "leaks": len(report.leaks),
        "contradiction_share": report.contradiction_share,
        "contradictions": len(report.contradictions),
        "doubtful": len(report.doubtful),
        "imbalance": report.imbalance,
        "copy_share": len(report.copies) / files,
        "blank_share": report.blank_share,
        "blank": len(report.blank),
        "straddling": len(report.straddling),
        "elongated_share": report.elongated / max(report.used, 1),
        "outside": report.outside,
    }


def _classes(facts: Facts) -> list[dict[str, Any]]:
    report = facts.report
    empty, few = (
        set(facts.faults[error].classes) if error in facts.faults else set()
        for error in (EmptyClassError, TooFewImagesError)
    )
    rows = []
    for name in in_order(facts.counts):
        own_splits = report.splits and name not in empty
        taught = report.splits.get("train", {}).get(name, 0) if own_splits else _NOT_APPLICABLE
        # A class that fails already needs no warning.
        fails = name in empty or name in few or taught == 0
        planned = {
            split: _NOT_APPLICABLE if fails else report.planned.get(split, {}).get(name, 0) for split in ("val", "test")
        }
        rows.append(
            {
                "name": quoted(name),
                "empty": _NOT_APPLICABLE if facts.drop_empty_classes else name in empty,
                "dropped": name in empty if facts.drop_empty_classes else _NOT_APPLICABLE,
                "too_few_images": name in few,
                "taught": taught,
                "val": planned["val"],
                "test": planned["test"],
            }
        )
    return rows


def _none(_: Facts) -> float:
    return 0


def _one(_: Facts) -> float:
    return 1


# Rules that stop come first, in the order in which their errors are raised.
RULES = (
    Rule("data set", "bad_share", words.say_bad, high=lambda facts: facts.max_bad_share, error=TooManyBadFilesError),
    Rule("classes", "empty", words.say_fault(EmptyClassError), high=_none, error=EmptyClassError),
    Rule("data set", "too_few_classes", words.say_fault(NoClassesError), high=_none, error=NoClassesError),
    Rule("classes", "too_few_images", words.say_fault(TooFewImagesError), high=_none, error=TooFewImagesError),
    Rule("data set", "median_side_px", words.say_small, low=lambda facts: facts.thresholds.min_median_side_px,
         error=GateError, hides="enlargement"),
    Rule("data set", "leak_share", words.say_leaks, high=lambda facts: facts.thresholds.max_leak_share,
         error=GateError, hides="leaks"),
    Rule("data set", "contradiction_share", words.say_contradictions,
         high=lambda facts: facts.thresholds.max_contradiction_share, error=GateError, hides="contradictions"),
    Rule("data set", "blank_share", words.say_blank, high=lambda facts: facts.thresholds.max_blank_share,
         error=GateError, hides="blank"),
    Rule("classes", "taught", words.say_untaught, low=_one, error=GateError),
    Rule("classes", "dropped", words.say_dropped, high=_none),
    Rule("data set", "outside", words.say_outside, high=_none),
    Rule("data set", "contradictions", words.say_contradictions, high=_none),
    Rule("data set", "doubtful", words.say_doubtful, high=_none),
    Rule("data set", "leaks", words.say_leaks, high=_none),
    Rule("data set", "straddling", words.say_straddling, high=_none),
    Rule("data set", "blank", words.say_blank, high=_none),
    Rule("data set", "copy_share", words.say_copies, high=lambda facts: facts.thresholds.max_copy_share),
    Rule("classes", "test", words.say_unseen("test", "measure accuracy on"), low=_one),
    Rule("classes", "val", words.say_unseen("val", "choose the best epoch by"), low=_one),
    Rule("data set", "imbalance", words.say_imbalance, high=lambda facts: facts.thresholds.max_imbalance),
    Rule("data set", "enlargement", words.say_enlarged, high=_one),
    Rule("data set", "elongated_share", words.say_elongated, high=lambda facts: facts.thresholds.max_elongated_share),
)  # fmt: skip
