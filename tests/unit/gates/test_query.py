"""The gate before a search: what stops, what warns, the messages, and the process that judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tans_core.errors import (
    EmptyClassError,
    GateError,
    NoClassesError,
    TansError,
    TooFewImagesError,
    TooManyBadFilesError,
)
from tans_core.gates.query import QueryThresholds, QueryVerdict, check_query, start_query_gate
from tans_core.gates.query_rules import RULES, query_checks, query_rows
from tans_core.gates.query_words import Facts
from tans_core.tasks.splits import assign_splits
from tests.factories.reports import scanned

LIMITS = {"min_images_per_class": 2, "max_bad_share": 0.5}


def judged(**changes: Any) -> QueryVerdict:
    return check_query(scanned(**changes), QueryThresholds(), **LIMITS)  # type: ignore[arg-type]


def as_task(numbers: dict[str, int]) -> dict[str, dict[str, int]]:
    """The number of ungrouped images per class that each split of a task gets."""
    labels = np.repeat(np.arange(len(numbers)), list(numbers.values()))
    splits = assign_splits(labels, [""] * len(labels), seed=7)
    return {
        split: {name: int((splits[labels == index] == split).sum()) for index, name in enumerate(numbers)}
        for split in ("val", "test")
    }


def names(count: int, stem: str = "x") -> tuple[str, ...]:
    return tuple(f"{stem}{index}.png" for index in range(count))


def test_good_data_set_passes_without_a_word() -> None:
    verdict = judged()
    assert (verdict.failures, verdict.warnings, verdict.error) == ((), (), None)
    verdict.raise_on_failure()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"bad": tuple((name, "truncated") for name in names(60))},
            TooManyBadFilesError,
            "60 of 90 files cannot be read (67%, allowed: 50%): 'x0.png' (truncated)",
        ),
        (
            {
                "classes": {"ash": 40, "elm": 0, "oak": 0, "yew": 40},
                "found": {"ash": 40, "elm": 3, "oak": 0, "yew": 40},
            },
            EmptyClassError,
            "No usable image in 2 of 4 classes: 'elm' (0 of 3 files), 'oak' (0 files). "
            "Add images, delete the classes, or leave them out: `tans tasks scan PATH --drop-empty-classes",
        ),
        ({"classes": {"ash": 40}}, NoClassesError, "Only one class has usable images, 'ash'"),
        ({"classes": {}}, NoClassesError, "No class has a usable image"),
        (
            {"classes": {"ash": 1, "oak": 50}},
            TooFewImagesError,
            "1 of 2 classes has fewer than 2 usable images: 'ash' (1)",
        ),
        ({"sides_px": (4, 6, 7, 8, 8)}, GateError, "The median image is 7 pixels on its shorter side, want at least 8"),
        (
            {"leaks": tuple(zip(names(30), names(30, "y"), strict=True))},
            GateError,
            "30 images of one split seen in another (25%, allowed: 20%), left out of the earlier one: 'x0.png' and",
        ),
        (
            {"contradictions": tuple(zip(names(9), names(9, "y"), strict=True))},
            GateError,
            "18 files of images under two labels (20% of the files, allowed: 10%)",
        ),
        (
            {"splits": {"train": {"ash": 30}, "test": {"ash": 10, "oak": 50}}},
            GateError,
            "1 class with images for val or test and none to train on: 'oak'",
        ),
    ],
)
def test_what_stops_is_raised_as_what_it_is(changes: dict[str, Any], error: type[TansError], words: str) -> None:
    verdict = judged(**changes)
    (failure,) = verdict.failures
    assert words in failure
    assert not verdict.passed
    with pytest.raises(TansError) as caught:
        verdict.raise_on_failure(Path("runs/1/scan.json"))
    assert type(caught.value) is error
    assert str(caught.value).startswith("'leaves': ")
    assert str(caught.value).endswith("  Details: runs/1/scan.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sides_px": (8, 10, 16, 20, 20)},
            "is 16 pixels on its shorter side; a network that reads 32 pixels enlarges it",
        ),
        (
            {"leaks": (("a.png", "b.png"),)},
            "1 image of one split seen in another, left out of the earlier one",
        ),
        (
            {"contradictions": (("a.png", "b.png"),)},
            "2 files of images under two labels, left out: 'a.png' and 'b.png'",
        ),
        ({"classes": {"ash": 10, "oak": 500}}, "50 times the images of the smallest: 'oak' (500), 'ash' (10)"),
        ({"copies": names(30)}, "30 of 90 files are copies"),
        ({"elongated": 20}, "20 of 90 images have sides in a ratio above 3 to 1"),
        ({"skipped": {"file outside class folders": 4}}, "4 files outside the class folders passed over"),
        (
            {"splits": {"train": {"ash": 30, "oak": 50}, "val": {"ash": 5, "oak": 5}, "test": {"ash": 10}}},
            "1 class will have no test image to measure accuracy on: 'oak' (50). Add images of them to test.",
        ),
    ],
)
def test_what_is_only_odd_is_a_warning(changes: dict[str, Any], words: str) -> None:
    verdict = judged(**changes)
    assert verdict.passed
    (warning,) = verdict.warnings
    assert words in warning
    verdict.raise_on_failure()


def test_tiny_classes_that_miss_a_split_are_named() -> None:
    verdict = judged(classes={"ash": 2, "elm": 3, "oak": 40})
    assert verdict.passed
    (warning,) = [line for line in verdict.warnings if "no val image" in line]
    assert "1 class " in warning and "'ash' (2)" in warning
    assert not any("no test image" in line for line in verdict.warnings)


@pytest.mark.parametrize("low", [2, 3, 4, 6])
def test_warning_names_the_classes_that_the_split_of_a_task_leaves_out(low: int) -> None:
    numbers = {f"of{number}": number for number in range(low, 13)}
    wanted = as_task(numbers)
    warnings = judged(classes=numbers).warnings
    for split in ("val", "test"):
        missing = [name for name, number in wanted[split].items() if number == 0]
        told = [line for line in warnings if f"no {split} image" in line]
        assert bool(told) == bool(missing)
        assert all(f"'{name}'" in told[0] for name in missing)
        assert not told or told[0].startswith(f"{len(missing)} class")


def test_val_split_alone_serves_as_test_and_train_gives_a_new_one() -> None:
    # As a task is assembled: what was called val is tested on.
    verdict = judged(splits={"train": {"ash": 40, "oak": 1}, "val": {"ash": 10, "oak": 49}})
    (warning,) = verdict.warnings
    assert "1 class will have no val image" in warning and "'oak'" in warning


def test_several_failures_are_all_told_and_the_gravest_is_raised() -> None:
    verdict = judged(
        classes={"ash": 1, "elm": 0},
        files=10,
        found={"ash": 5, "elm": 5},
        bad=tuple((name, "torn") for name in names(9)),
    )
    assert [failure.split()[0] for failure in verdict.failures] == ["9", "No", "Only", "1"]
    with pytest.raises(TooManyBadFilesError) as caught:
        verdict.raise_on_failure()
    assert "4 reasons not to search with these images" in str(caught.value)
    for failure in verdict.failures:
        assert failure in str(caught.value)


def test_empty_classes_can_be_dropped_with_a_warning_unless_one_class_is_left() -> None:
    def dropped(classes: dict[str, int]) -> QueryVerdict:
        report = scanned(classes=classes)
        return check_query(report, QueryThresholds(), drop_empty_classes=True, **LIMITS)  # type: ignore[arg-type]

    verdict = dropped({"ash": 40, "elm": 0, "oak": 40})
    assert verdict.passed
    assert "1 class left out for want of a usable image: 'elm' (0 files)" in verdict.warnings[0]
    assert dropped({"ash": 40, "elm": 0}).error is NoClassesError


def test_hostile_names_reach_neither_the_terminal_nor_trip_the_gate() -> None:
    hostile = [
        "a\x1b[31m\n",
        "\u202egnp",
        "nul\0",
        "\udcff",
        "x" * 300,
        "<script>",
        "'q\"",
        "{0}",
        "%s",
        "=1+1",
        "שלום",
        "🌳",
    ]
    classes = dict.fromkeys(hostile, 0) | {"ash": 3, "oak": 3}
    verdict = check_query(scanned(classes=classes), QueryThresholds(), **LIMITS)  # type: ignore[arg-type]
    assert "No usable image in 12 of 14 classes" in verdict.failures[0]
    assert all(letter.isprintable() for line in verdict.failures for letter in line)
    assert QueryVerdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


def test_great_expectations_looks_at_every_rule() -> None:
    facts = Facts(scanned(), QueryThresholds(), 2, 0.5)
    columns = [rule.column for rule in RULES]
    assert len(set(columns)) == len(columns)
    assert {rule.hides for rule in RULES if rule.hides} <= set(columns)
    rows = query_rows(facts)
    checks = query_checks(facts, rows)
    looked_at = [rows[key] for check in checks for key in check.frame["row"]]
    assert sorted(looked_at, key=rows.index) == rows
    assert {row.rule.column for row in rows} == set(columns)
    assert all(row.low == row.low or row.high == row.high for row in rows)
    pairs = {(one.column_A, one.column_B) for check in checks for one in check.expectations}
    assert pairs == {("value", "low"), ("high", "value")}


def test_thresholds_decide() -> None:
    report = scanned(contradictions=(("a.png", "b.png"),))
    strict = QueryThresholds(max_contradiction_share=0.0)
    assert check_query(report, strict, **LIMITS).error is GateError  # type: ignore[arg-type]


def test_ten_thousand_classes_are_judged_in_seconds() -> None:
    classes = {f"c{index}": 20 for index in range(10_000)}
    start = time.monotonic()
    verdict = judged(classes=classes, planned={split: dict.fromkeys(classes, 5) for split in ("train", "val", "test")})
    assert verdict.passed
    assert time.monotonic() - start < 10


def test_other_process_says_the_same() -> None:
    report = scanned(classes={"ash": 1, "oak\udcff": 50}, copies=names(100_000))
    thresholds = QueryThresholds(max_imbalance=50)
    with start_query_gate() as gate:
        process = gate._process
        assert process is not None
        there = gate.check(report, thresholds, **LIMITS)  # type: ignore[arg-type]
    assert process.returncode == 0
    assert there == check_query(report, thresholds, **LIMITS)  # type: ignore[arg-type]
    assert there.error is TooFewImagesError
    usual = check_query(report, QueryThresholds(), **LIMITS)  # type: ignore[arg-type]
    assert {*usual.warnings} - {*there.warnings} == {line for line in usual.warnings if "50 times" in line} != set()


def test_killed_process_is_replaced_by_this_one() -> None:
    with start_query_gate() as gate:
        process = gate._process
        assert process is not None
        process.kill()
        process.wait()
        verdict = gate.check(scanned(classes={"ash": 40}), QueryThresholds(), **LIMITS)  # type: ignore[arg-type]
    assert verdict.error is NoClassesError


def gone(pid: int, within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_process_ends_with_the_scan_that_fails() -> None:
    with pytest.raises(KeyError), start_query_gate() as gate:
        process = gate._process
        raise KeyError
    assert process is not None and process.returncode is not None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's parent death signal")
def test_process_ends_with_a_parent_that_is_killed() -> None:
    code = (
        "import time; from tans_core.gates.query import start_query_gate; gate = start_query_gate(); "
        "print(gate._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)
