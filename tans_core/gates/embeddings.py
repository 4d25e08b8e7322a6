"""The gate after `embed`: the tables `models` and `task_features` of `data/store`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tans_core.embeddings.store import read_table
from tans_core.gates import expect
from tans_core.gates.derived import frame, need_columns, vector_columns, vectors
from tans_core.gates.runner import Check, run_gate
from tans_core.tasks.task import SPLITS, read_info
from tans_core.zoo.build import CARDS_FILE

STORE = Path("data/store")


def check_embeddings(root: Path, tasks: Sequence[str]) -> None:
    """Gate the tables that `embed` wrote for the meta-train tasks.

    Args:
        root: the project's folder.
        tasks: names of the meta-train tasks: each must have its models and its features.

    Raises:
        GateError: rows are missing, duplicate or not finite; widths differ; a task or a class is missing.
        StoreError: a table is missing or of another version.
    """
    run_gate("embeddings", embeddings_checks(root, tasks), root, "Run `tans build embed` again.")


def embeddings_checks(root: Path, tasks: Sequence[str]) -> list[Check]:
    """Return the checks of both tables."""
    models = read_table(root / STORE, "models")
    features = read_table(root / STORE, "task_features")
    wanted = {path.parent.name: pq.read_metadata(path).num_rows for path in _zoo_cards(root, tasks)}
    base = root / "data/base" / CARDS_FILE
    general = pq.read_metadata(base).num_rows if base.is_file() else 0
    arrivals = len(list((root / "data/arrivals").glob("*/card.json")))
    classes = {task: read_info(root / "data/tasks" / task).num_classes for task in tasks}
    return [
        models_check(models, count=general + sum(wanted.values()) + arrivals),
        features_check(features),
        coverage_check(models, features, wanted, classes),
    ]


def _zoo_cards(root: Path, tasks: Sequence[str]) -> list[Path]:
    return [path for task in tasks if (path := root / "data/zoo" / task / CARDS_FILE).is_file()]


def models_check(models: pa.Table, count: int) -> Check:
    """Return the check of the table `models`: one row a model, each vector column of one width."""
    where = STORE / "models.lance"
    need_columns(models, ["id", "home_task", "functional", "topology"], where)
    derived = {**vector_columns("functional", models["functional"]), **vector_columns("topology", models["topology"])}
    rows = frame(derived, models, ["id", "home_task"])
    return Check(
        what="model embeddings",
        where=str(where),
        frame=rows,
        key="id",
        rows=(count, count),
        expectations=[
            expect.present("id"),
            expect.unique("id"),
            expect.present("home_task"),
            *vectors("functional", _width(rows["functional_dim"])),
            *vectors("topology", _width(rows["topology_dim"])),
        ],
    )


def features_check(features: pa.Table) -> Check:
    """Return the check of the table `task_features`: one row an image."""
    where = STORE / "task_features.lance"
    need_columns(features, ["task", "label", "split", "feature"], where)
    rows = frame(vector_columns("feature", features["feature"]), features, ["task", "label", "split"])
    return Check(
        what="task features",
        where=str(where),
        frame=rows,
        key="task",
        expectations=[
            expect.present("task"),
            *expect.number("label", 0, 1e6),
            expect.one_of("split", SPLITS),
            *vectors("feature", _width(rows["feature_dim"])),
        ],
    )


def coverage_check(models: pa.Table, features: pa.Table, wanted: dict[str, int], classes: dict[str, int]) -> Check:
    """Return the check that each task has all its models, and features of all its classes.

    Args:
        models: the table `models`.
        features: the table `task_features`.
        wanted: number of models in the zoo by task.
        classes: number of classes by task.
    """
    home = pd.Series(models["home_task"].to_pylist(), dtype=object).value_counts()
    labels = pd.DataFrame({"task": features["task"].to_pylist(), "label": features["label"].to_pylist()})
    present = labels.groupby("task")["label"].nunique() if len(labels) else pd.Series(dtype=int)
    rows = pd.DataFrame(
        {
            "task": list(classes),
            # Arrivals may share a home task, so more models than the zoo's are fine.
            "missing_models": [max(wanted.get(task, 0) - int(home.get(task, 0)), 0) for task in classes],
            "zoo_models": [wanted.get(task, 0) for task in classes],
            "missing_classes": [count - int(present.get(task, 0)) for task, count in classes.items()],
        }
    )
    return Check(
        what="meta-train tasks",
        where=str(STORE),
        frame=rows,
        key="task",
        rows=(len(classes), len(classes)),
        expectations=[
            expect.between("zoo_models", 1, None),
            expect.between("missing_models", 0, 0),
            expect.between("missing_classes", 0, 0),
        ],
    )


def _width(dims: pd.Series) -> int:
    """Return the most frequent width, which all vectors must have."""
    return max(int(dims.mode().iloc[0]), 1) if len(dims) else 1
