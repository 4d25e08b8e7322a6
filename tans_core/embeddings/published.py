"""What the TANS authors published, from the store that `import_published` made of their files.

Axes: D data sets, M networks, n images of a data set, T = 45 topology width, E functional width, F feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tans_core.embeddings.published_files import source_of
from tans_core.embeddings.published_topology import masked_topology
from tans_core.embeddings.store import matrix, read_table
from tans_core.errors import StoreError
from tans_core.io import read_json

__all__ = ["RECORD", "TABLES", "PublishedData", "masked_topology", "read_published"]

# Marks a store as made by an import, so that another import may take its place.
RECORD = "published.json"
TABLES = ("models", "task_features", "test_features")


@dataclass(frozen=True)
class PublishedData:
    """The published networks and data sets.

    Attributes:
        tasks: D names of data sets, sorted.
        sources: D names of the sources that they were cut from.
        ids: M ids, in the order of the zoo's rows.
        topology: (M, T) float32, the 45 integers as published; `masked_topology` makes codes of them.
        functional: (M, E) float32.
        accuracy: (M,) float32 in [0, 1].
        params_m: (M,) float32, millions.
        home: (M,) int64 in [0, D), each network's data set.
        train_features: D tensors (n, F) float32, of `x_query_train`.
        val_features: D tensors (n, F) float32, of `x_query_test`.
        test_tasks: names of the test data sets, sorted; empty where none were imported.
        test_sources: their sources.
        test_features: one tensor (n, F) float32 for each, of `query`.
    """

    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    ids: tuple[str, ...]
    topology: Tensor
    functional: Tensor
    accuracy: Tensor
    params_m: Tensor
    home: Tensor
    train_features: tuple[Tensor, ...]
    val_features: tuple[Tensor, ...]
    test_tasks: tuple[str, ...] = ()
    test_sources: tuple[str, ...] = ()
    test_features: tuple[Tensor, ...] = ()


def read_published(store: Path) -> PublishedData:
    """Read what `import_published` made.

    Raises:
        StoreError: there is no such store, or a table of it is missing or does not match the others.
    """
    if not (store / RECORD).is_file():
        raise StoreError(
            f"{store}: no published files were imported here. Run `tans space import --zoo p_mod_zoo.pt --queries p_m_train.pt`."
        )
    has_tests = read_json(store / RECORD)["test_tasks"] > 0
    names = TABLES if has_tests else TABLES[:2]
    if absent := [name for name in names if not (store / f"{name}.lance").is_dir()]:
        raise StoreError(f"{store}: its tables {', '.join(absent)} are gone. Run `tans space import` again.")
    models = read_table(store, "models")
    features = _by_task(read_table(store, "task_features"))
    tests = _by_task(read_table(store, "test_features")) if has_tests else {}
    tasks = tuple(sorted({task for task, _ in features}))
    number = {task: index for index, task in enumerate(tasks)}
    homes = models["home_task"].to_pylist()
    lacking = {task for task in tasks for split in ("train", "val") if (task, split) not in features}
    if strangers := (set(homes) ^ set(tasks)) | lacking:
        raise StoreError(
            f"{store}: networks and features of {len(strangers)} data sets do not match. Import them again."
        )
    test_tasks = tuple(sorted(task for task, _ in tests))
    return PublishedData(
        tasks=tasks,
        sources=tuple(map(source_of, tasks)),
        ids=tuple(models["id"].to_pylist()),
        topology=torch.from_numpy(matrix(models["topology"])),
        functional=torch.from_numpy(matrix(models["functional"])),
        accuracy=torch.tensor(models["val_accuracy"].to_numpy(), dtype=torch.float32),
        params_m=torch.tensor(models["params_m"].to_numpy(), dtype=torch.float32),
        home=torch.tensor([number[home] for home in homes], dtype=torch.int64),
        train_features=tuple(features[task, "train"] for task in tasks),
        val_features=tuple(features[task, "val"] for task in tasks),
        test_tasks=test_tasks,
        test_sources=tuple(map(source_of, test_tasks)),
        test_features=tuple(tests[task, "query"] for task in test_tasks),
    )


def _by_task(table: pa.Table) -> dict[tuple[str, str], Tensor]:
    """Return (n, F) float32 of each task and split, in the order of the rows."""
    tasks = table["task"].combine_chunks().dictionary_encode()
    splits = table["split"].combine_chunks().dictionary_encode()
    keys = tasks.indices.to_numpy() * len(splits.dictionary) + splits.indices.to_numpy()
    features = matrix(table["feature"])
    order = np.argsort(keys, kind="stable")
    present, starts = np.unique(keys[order], return_index=True)
    found = {}
    for key, rows in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
        task, split = divmod(key, len(splits.dictionary))
        found[tasks.dictionary[task].as_py(), splits.dictionary[split].as_py()] = torch.from_numpy(features[rows])
    return found
