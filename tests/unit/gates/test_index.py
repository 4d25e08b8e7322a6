"""The gate after `index`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tans_core.errors import GateError
from tans_core.gates.index import index_check
from tans_core.gates.runner import run_gate

Replace = Callable[[pa.Table, str, int, object], pa.Table]
IDS = [f"m{index}" for index in range(6)]


def index_table() -> pa.Table:
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pa.table(
        {
            "id": IDS,
            "vector": vectors.tolist(),
            "card": ['{"id": "m"}'] * 6,
            "home_task": ["leaves", "stars"] * 3,
            "source": ["made"] * 6,
            "licence": ["CC0-1.0"] * 6,
            "params_m": [0.5] * 6,
            "macs_m": [10.0] * 6,
            "val_accuracy": [0.9] * 6,
            "capacity": [0.5] * 6,
            "start": [-0.25] * 6,
        }
    )


def gate(table: pa.Table, root: Path) -> None:
    run_gate("index", [index_check(table, IDS, ["leaves", "stars"], dim=4)], root)


def test_good_index_passes(tmp_path: Path) -> None:
    gate(index_table(), tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (
            "vector",
            [2.0, 0.0, 0.0, 0.0],
            "vector_norm: 1 of 6 not at least 0.999 and at most 1.001, for example m1 (2)",
        ),
        ("vector", [1.0, 0.0, 0.0], "vector_dim: 1 of 6 not exactly 4, for example m1 (3)"),
        ("vector", [float("nan"), 1.0, 0.0, 0.0], "vector_finite: 1 of 6 not True, for example m1"),
        ("id", "m0", "id: 2 of 6 not unique, for example m0"),
        ("id", "stranger", "id: 1 of 6 have no row: m1"),
        ("card", "{", "card: 1 of 6 not JSON, for example m1"),
        ("licence", "", "licence: 1 of 6 not of the form"),
        ("params_m", 0.0, "params_m: 1 of 6 not above 0"),
        ("capacity", float("nan"), "capacity: 1 of 6 "),
        ("start", float("inf"), "start: 1 of 6 not at least -100 and at most 100, for example m1 (inf)"),
        ("val_accuracy", 80.0, "val_accuracy: 1 of 6 not at least 0 and at most 1, for example m1 (80)"),
    ],
)
def test_bad_row_fails(tmp_path: Path, replace: Replace, column: str, value: object, words: str) -> None:
    with pytest.raises(GateError) as caught:
        gate(replace(index_table(), column, 1, value), tmp_path)
    assert words in str(caught.value)


def test_task_without_models_fails(tmp_path: Path) -> None:
    with pytest.raises(GateError) as caught:
        gate(index_table().take([0, 2, 4]), tmp_path)
    assert "home_task: 1 of 2 have no row: stars" in str(caught.value)
    assert "got 3 rows, want exactly 6" in str(caught.value)


def test_empty_index_fails(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="got 0 rows, want exactly 6"):
        gate(index_table().slice(0, 0), tmp_path)
