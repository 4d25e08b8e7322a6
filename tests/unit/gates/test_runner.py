"""The runner: what passes, what fails, and the messages of failures."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tans_core.errors import GateError
from tans_core.gates import expect
from tans_core.gates.runner import Check, outcome_of, run_gate, validate


def check(frame: pd.DataFrame, *expectations: object, rows: tuple[int, int | None] = (1, None)) -> Check:
    return Check(
        what="models", where="data/models.parquet", frame=frame, key="id", rows=rows, expectations=expectations
    )


def good_frame() -> pd.DataFrame:
    return pd.DataFrame({"id": ["a", "b", "c"], "accuracy": [0.1, 0.5, 1.0], "kind": ["x", "y", "x"]})


def failures_of(one: Check, root: Path) -> tuple[str, ...]:
    with pytest.raises(GateError) as caught:
        run_gate("probe", [one], root)
    assert caught.value.exit_code == 3
    for line in caught.value.failures:
        assert line in str(caught.value)
    return caught.value.failures


def test_good_frame_passes_and_leaves_a_report(tmp_path: Path) -> None:
    run_gate("probe", [check(good_frame(), *expect.number("accuracy", 0, 1), expect.unique("id"))], tmp_path)
    report = json.loads((tmp_path / "reports/gates/probe.json").read_text())
    assert report["passed"] is True
    assert [one["success"] for one in report["checks"][0]["expectations"]] == [True] * 4
    assert "# Gate probe: passed" in (tmp_path / "reports/gates/probe.md").read_text()


def test_failure_says_what_where_how_many_and_examples(tmp_path: Path) -> None:
    frame = good_frame().assign(accuracy=[0.1, 1.7, float("inf")])
    (failure,) = failures_of(check(frame, expect.between("accuracy", 0, 1)), tmp_path)
    assert failure == (
        "models (data/models.parquet): accuracy: 2 of 3 not at least 0 and at most 1, for example b (1.7), c (inf)"
    )
    report = json.loads((tmp_path / "reports/gates/probe.json").read_text())
    assert report["passed"] is False
    assert report["failures"] == [failure]
    assert failure in (tmp_path / "reports/gates/probe.md").read_text()


def test_message_names_the_gate_the_next_command_and_the_report(tmp_path: Path) -> None:
    with pytest.raises(GateError) as caught:
        run_gate("probe", [check(good_frame(), expect.one_of("kind", ["x"]))], tmp_path, "Run `dvc repro embed`.")
    first, _, last = str(caught.value).splitlines()
    assert first == "gate probe: 1 expectation not met"
    assert last == "  Run `dvc repro embed`. Report: reports/gates/probe.md"


@pytest.mark.parametrize(
    ("frame", "expectation", "words"),
    [
        (
            good_frame().assign(accuracy=[0.1, None, 0.2]),
            lambda: expect.present("accuracy"),
            "1 of 3 null or NaN, for example b",
        ),
        (good_frame().assign(id=["a", "a", "c"]), lambda: expect.unique("id"), "id: 2 of 3 not unique, for example a"),
        (good_frame(), lambda: expect.one_of("kind", ["x"]), "kind: 1 of 3 not in x, for example b (y)"),
        (good_frame(), lambda: expect.covers("kind", ["x", "z"]), "kind: 1 of 2 have no row: z"),
        (
            good_frame().assign(least=2.0),
            lambda: expect.at_least("accuracy", "least"),
            "accuracy: 3 of 3 below least, for example a (0.1)",
        ),
        (good_frame(), lambda: expect.matches("kind", "^x$"), "kind: 1 of 3 not of the form ^x$, for example b (y)"),
        (good_frame(), lambda: expect.is_json("kind"), "kind: 3 of 3 not JSON"),
        (good_frame(), lambda: expect.columns(["id", "size"]), "lacks the columns size"),
        (good_frame(), lambda: expect.between("size", 0, 1), "size: could not be checked"),
        (good_frame(), lambda: expect.max_at_least("accuracy", 2), "accuracy: max is 1, want at least 2"),
        (
            good_frame(),
            lambda: expect.between("accuracy", 0.3, None, mostly=0.9),
            "(allowed: 10%), for example a (0.1)",
        ),
        (good_frame().assign(accuracy=[True, False, True]), lambda: expect.true("accuracy"), "1 of 3 not True"),
    ],
)
def test_each_kind_of_failure_is_readable(tmp_path: Path, frame: pd.DataFrame, expectation: object, words: str) -> None:
    (failure,) = failures_of(check(frame, expectation()), tmp_path)  # type: ignore[operator]
    assert words in failure


def test_wrong_row_count_fails(tmp_path: Path) -> None:
    one = check(good_frame(), expect.unique("id"), rows=(24, 24))
    assert failures_of(one, tmp_path) == ("models (data/models.parquet): got 3 rows, want exactly 24",)


def test_empty_frame_fails_even_where_no_rows_were_asked_for(tmp_path: Path) -> None:
    failures = failures_of(check(good_frame().iloc[:0], expect.unique("id"), rows=(0, None)), tmp_path)
    assert "got 0 rows, want at least 1" in failures[0]


def test_empty_suite_fails(tmp_path: Path) -> None:
    (failure,) = failures_of(check(good_frame()), tmp_path)
    assert "the suite is empty" in failure


def test_gate_without_checks_fails(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="nothing was given to check"):
        run_gate("probe", [], tmp_path)


def test_dropped_expectation_fails(tmp_path: Path) -> None:
    frame = good_frame()
    came = validate(check(frame, expect.unique("id")))
    assert came.success
    outcome = outcome_of(check(frame, expect.unique("id"), expect.between("accuracy", 0, 1)), came)
    (failure,) = outcome.failures
    assert "expect_column_values_to_be_between on accuracy: the expectation was dropped" in failure


def test_long_lists_are_cut_in_the_message_but_not_in_the_report(tmp_path: Path) -> None:
    bad = check(
        good_frame().assign(accuracy=2.0), *[expect.between("accuracy", 0, 1 - index / 100) for index in range(30)]
    )
    with pytest.raises(GateError) as caught:
        run_gate("probe", [bad], tmp_path)
    assert "… and 10 more" in str(caught.value)
    assert len(caught.value.failures) == 30
    assert len(json.loads((tmp_path / "reports/gates/probe.json").read_text())["failures"]) == 30


def test_warnings_are_told_and_stop_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd = check(good_frame(), expect.unique("id"), expect.warning(expect.between("accuracy", 0.2, None)))
    run_gate("probe", [odd], tmp_path)
    report = json.loads((tmp_path / "reports/gates/probe.json").read_text())
    assert report["passed"] is True and report["failures"] == []
    (warning,) = report["warnings"]
    assert "accuracy: 1 of 3 not at least 0.2, for example a (0.1)" in warning
    assert warning in caplog.text
    page = (tmp_path / "reports/gates/probe.md").read_text()
    assert "# Gate probe: passed" in page and f"- warning: {warning}" in page and "| warning | expect_column" in page


def test_warning_beside_a_failure_is_no_reason_to_stop(tmp_path: Path) -> None:
    both = check(good_frame(), expect.one_of("kind", ["x"]), expect.warning(expect.unique("kind")))
    (failure,) = failures_of(both, tmp_path)
    assert "kind: 1 of 3 not in x" in failure


def test_warning_that_cannot_be_checked_is_a_failure(tmp_path: Path) -> None:
    (failure,) = failures_of(check(good_frame(), expect.warning(expect.between("size", 0, 1))), tmp_path)
    assert "size: could not be checked" in failure


def test_finding_names_every_row() -> None:
    one = check(good_frame(), expect.between("accuracy", 2, None))
    (finding,) = outcome_of(one, validate(one)).findings
    assert (finding.keys, finding.warning) == (("a", "b", "c"), False)
