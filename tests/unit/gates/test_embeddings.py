"""The gate after `embed`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tans_core.errors import GateError, StoreError
from tans_core.gates.embeddings import coverage_check, features_check, models_check
from tans_core.gates.runner import run_gate

TASKS = {"leaves": 4, "stars": 4}
CLASSES = {"leaves": 3, "stars": 2}


def models(**changed: object) -> pa.Table:
    count = sum(TASKS.values())
    generator = np.random.default_rng(0)
    columns = {
        "id": [f"m{index}" for index in range(count)],
        "home_task": [task for task, number in TASKS.items() for _ in range(number)],
        "functional": generator.normal(size=(count, 5)).tolist(),
        "topology": np.ones((count, 3)).tolist(),
    }
    return pa.table({**columns, **changed})


def features(**changed: object) -> pa.Table:
    labels = [(task, label) for task, number in CLASSES.items() for label in range(number) for _ in range(2)]
    columns = {
        "task": [task for task, _ in labels],
        "label": [label for _, label in labels],
        "split": ["train"] * len(labels),
        "feature": np.ones((len(labels), 4)).tolist(),
    }
    return pa.table({**columns, **changed})


def gate(model_rows: pa.Table, feature_rows: pa.Table, root: Path) -> None:
    checks = [
        models_check(model_rows, count=8),
        features_check(feature_rows),
        coverage_check(model_rows, feature_rows, TASKS, CLASSES),
    ]
    run_gate("embeddings", checks, root)


def test_good_tables_pass(tmp_path: Path) -> None:
    gate(models(), features(), tmp_path)


def changed_vector(table: pa.Table, column: str, row: int, vector: list[float]) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = vector
    return table.set_column(table.column_names.index(column), column, pa.array(values))


@pytest.mark.parametrize(
    ("column", "vector", "words"),
    [
        ("functional", [1.0, float("nan"), 0, 0, 0], "functional_finite: 1 of 8 not True, for example m2"),
        ("functional", [float("inf"), 0.0, 0, 0, 0], "functional_finite: 1 of 8"),
        ("functional", [0.0] * 5, "functional_norm: 1 of 8 not above 0, for example m2 (0)"),
        ("functional", [1.0] * 4, "functional_dim: 1 of 8 not exactly 5, for example m2 (4)"),
        ("topology", [], "topology_finite: 1 of 8"),
    ],
)
def test_bad_vector_fails(tmp_path: Path, column: str, vector: list[float], words: str) -> None:
    with pytest.raises(GateError) as caught:
        gate(changed_vector(models(), column, 2, vector), features(), tmp_path)
    assert words in str(caught.value)


def test_bad_feature_fails(tmp_path: Path) -> None:
    bad = changed_vector(features(), "feature", 0, [float("nan")] * 4)
    with pytest.raises(GateError, match="feature_finite: 1 of 10 not True, for example leaves"):
        gate(models(), bad, tmp_path)


def test_double_model_fails(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="id: 8 of 8 not unique, for example m0"):
        gate(models(id=["m0"] * 8), features(), tmp_path)


def test_lost_models_fail(tmp_path: Path) -> None:
    with pytest.raises(GateError) as caught:
        gate(models().slice(1), features(), tmp_path)
    assert "model embeddings (data/store/models.lance): got 7 rows, want exactly 8" in str(caught.value)
    assert "missing_models: 1 of 2 not exactly 0, for example leaves (1)" in str(caught.value)


def test_class_without_features_fails(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="missing_classes: 1 of 2 not exactly 0, for example stars"):
        gate(models(), features().slice(0, 8), tmp_path)


def test_empty_table_fails(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"task features .*: got 0 rows, want at least 1"):
        gate(models(), features().slice(0, 0), tmp_path)


def test_table_of_another_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"models.lance: lacks the columns functional"):
        gate(models().drop_columns(["functional"]), features(), tmp_path)
