"""The gate after `transfer`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tans_core.embeddings.store import read_table, write_table
from tans_core.errors import GateError, StoreError
from tans_core.gates.runner import run_gate
from tans_core.gates.transfer import check_transfer, coverage_check, scores_check
from tests.factories.project import TASKS as MADE

Replace = Callable[[pa.Table, str, int, object], pa.Table]
TASKS = ["leaves", "stars"]
HOMES = {"m0": "leaves", "m1": "leaves", "m2": "stars", "m3": "stars"}


def transfer_table() -> pa.Table:
    rows = [("leaves", "m2", "finetune", seed, 0.5 + 0.1 * seed) for seed in (0, 1)]
    rows += [("leaves", model, "probe", 0, 0.25) for model in HOMES]
    rows += [("stars", "m0", "finetune", 0, 0.75), ("stars", "m0", "probe", 0, -0.125)]
    columns = zip(*rows, strict=True)
    return pa.table(
        {name: list(column) for name, column in zip(("task", "model", "kind", "seed", "value"), columns, strict=True)}
    )


def gate(table: pa.Table, root: Path) -> None:
    run_gate("transfer", [scores_check(table, HOMES, TASKS), coverage_check(table, TASKS)], root)


def test_good_table_passes(tmp_path: Path) -> None:
    gate(transfer_table(), tmp_path)


@pytest.mark.parametrize(
    ("column", "row", "value", "words"),
    [
        (
            "value",
            0,
            55.0,
            "accuracy: 1 of 8 not at least 0 and at most 1, for example finetune of m2 on leaves, seed 0 (55)",
        ),
        ("value", 0, -0.1, "accuracy: 1 of 8 not at least 0"),
        (
            "value",
            2,
            1.5,
            "explained: 1 of 8 not at least -100 and at most 1, for example probe of m0 on leaves, seed 0 (1.5)",
        ),
        ("value", 2, float("-inf"), "explained: 1 of 8 not at least -100"),
        ("value", 0, float("nan"), "value: 1 of 8 "),
        ("value", 2, None, "value: 1 of 8 "),
        ("kind", 2, "guess", "kind: 1 of 8 not in finetune, probe, for example guess of m0 on leaves, seed 0"),
        ("kind", 2, None, "kind: 1 of 8 "),
        ("seed", 1, 0, "trial: 2 of 8 not unique, for example finetune of m2 on leaves, seed 0"),
        ("seed", 0, -1, "seed: 1 of 8 "),
        ("task", 2, "strange", "task_known: 1 of 8 not True, for example probe of m0 on strange, seed 0"),
        ("model", 2, "m9", "model_known: 1 of 8 not True, for example probe of m9 on leaves, seed 0"),
        ("model", 0, "m1", "away_from_home: 1 of 8 not True, for example finetune of m1 on leaves, seed 0"),
    ],
)
def test_bad_row_fails(tmp_path: Path, replace: Replace, column: str, row: int, value: object, words: str) -> None:
    with pytest.raises(GateError) as caught:
        gate(replace(transfer_table(), column, row, value), tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ([0, 1, 2, 3, 4, 5], "finetunings: 1 of 2 not at least 1, for example stars (0)"),
        ([0, 1, 2, 3, 4, 5, 6], "probes: 1 of 2 not at least 1, for example stars (0)"),
        ([], "transfer scores (data/store/transfer.lance): got 0 rows, want at least 1"),
    ],
)
def test_task_on_which_nothing_was_tried_fails(tmp_path: Path, kept: list[int], words: str) -> None:
    with pytest.raises(GateError) as caught:
        gate(transfer_table().take(pa.array(kept, type=pa.int64())), tmp_path)
    assert words in str(caught.value)


def test_table_of_another_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"transfer\.lance: lacks the columns seed"):
        gate(transfer_table().drop_columns(["seed"]), tmp_path)


def test_built_project_passes_and_a_stranger_in_its_table_does_not(
    project: Path, tmp_path: Path, replace: Replace
) -> None:
    for name in ("tasks", "zoo", "arrivals", "store"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(project / "data" / name)
    check_transfer(tmp_path, list(MADE))
    table = read_table(project / "data/store", "transfer")
    (tmp_path / "data/store").unlink()
    write_table(tmp_path / "data/store", "transfer", replace(table, "model", 0, "stranger"), key=None)
    with pytest.raises(GateError, match="model_known: 1 of"):
        check_transfer(tmp_path, list(MADE))
