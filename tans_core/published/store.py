"""A LanceDB store of what the TANS authors published: made from their files, without running any code in them.

Axes: D data sets, M networks, n images of a data set, T = 45 topology width, E functional width, F feature width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tans_core.embeddings.store import FeatureRows, matrix, read_table, write_table
from tans_core.errors import DataError, StoreError
from tans_core.io import atomic_folder, read_json, sha256_file, write_json
from tans_core.published import files
from tans_core.published.fit import PublishedData

# Marks a store as made by an import, which another import may replace.
RECORD = "published.json"
TABLES = ("models", "task_features", "test_features")
Read = TypeVar("Read")


def import_published(
    zoo: Path, queries: Path, store: Path, tests: Path | None = None, on_step: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Read the published files into the tables `models`, `task_features` and `test_features` of a store of their own.

    No code in the files is run. The store is written whole or not at all, and replaces that of an earlier import.

    `zoo` and `queries` are `p_mod_zoo.pt` and `p_m_train.pt`, `tests` is the folder of `meta_test_<name>.pt`; `on_step`
    is called with the name of the next step. Returns the content of the store's `published.json`.

    Raises:
        DataError: files are missing, damaged, refused or invalid; all problems of all files are listed.
        StoreError: `store` exists, and no import made it.
    """
    _check_store(store)
    problems: list[str] = []

    def read(path: Path, reader: Callable[..., Read], *options: int | None) -> Read | None:
        on_step(f"reading {path.name}")
        try:
            return reader(path, *options)
        except DataError as error:
            problems.extend(str(error).splitlines())
            return None

    networks, features = read(zoo, files.read_zoo), read(queries, files.read_queries)
    if networks and features:
        in_zoo, in_queries = set(networks[0]["home_task"].to_pylist()), {name for name, _ in features}
        for path, other, missing in ((queries, zoo, in_zoo - in_queries), (zoo, queries, in_queries - in_zoo)):
            if missing:
                names = files.some(sorted(map(repr, missing)))
                problems.append(f"{path}: lacks {len(missing):,} data sets of {other.name}: {names}")
    test_files = sorted(tests.glob(f"{files.TEST_PREFIX}*.pt")) if tests else []
    if tests and not test_files:
        problems.append(f"{tests}: no file {files.TEST_PREFIX}<name>.pt in it. Unpack p_m_test.zip there.")
    width = next(iter(features.values())).shape[1] if features else None
    unseen: files.Features = {}
    for path in test_files:
        unseen |= read(path, files.read_test, width) or {}
    if problems or not networks or not features:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        lines = [f"the files cannot be imported: {count}, and nothing was written.", *problems]
        raise DataError("\n  ".join([*lines, "What is read: docs/published.md"]))
    on_step("writing the store")
    digests = {path.name: sha256_file(path) for path in (zoo, queries)} | {path.name: None for path in test_files}
    record = {"store": str(store), **_record(*networks, features, unseen), "files": digests}
    with atomic_folder(store) as folder:
        write_table(folder, "models", networks[0])
        write_table(folder, "task_features", _features_table(features), key=None)
        if unseen:
            write_table(folder, "test_features", _features_table(unseen), key=None)
        write_json(record, folder / RECORD)
    return record


def read_published(store: Path) -> PublishedData:
    """Read a store of `import_published`. Raises StoreError if there is none, or one of its tables is missing."""
    if not (store / RECORD).is_file():
        raise StoreError(f"{store}: no published files were imported here. Run `tans space import`.")
    has_tests = read_json(store / RECORD)["test_tasks"] > 0
    if absent := [name for name in TABLES[: 2 + has_tests] if not (store / f"{name}.lance").is_dir()]:
        raise StoreError(f"{store}: its tables {', '.join(absent)} are missing. Run `tans space import` again.")
    models, features = read_table(store, "models"), _by_task(store, "task_features")
    unseen = _by_task(store, "test_features") if has_tests else {}
    homes = models["home_task"].to_pylist()
    tasks = sorted(set(homes))
    number = {task: index for index, task in enumerate(tasks)}
    return PublishedData(
        tasks=tuple(tasks),
        sources=tuple(map(files.source_of, tasks)),
        topology=torch.from_numpy(matrix(models["topology"])),
        functional=torch.from_numpy(matrix(models["functional"])),
        accuracy=torch.tensor(models["val_accuracy"].to_numpy(), dtype=torch.float32),
        params_m=torch.tensor(models["params_m"].to_numpy(), dtype=torch.float32),
        home=torch.tensor([number[home] for home in homes]),
        train_features=tuple(features[task, "train"] for task in tasks),
        val_features=tuple(features[task, "val"] for task in tasks),
        test_tasks=tuple(task for task, _ in unseen),
        test_features=tuple(unseen.values()),
    )


def _check_store(store: Path) -> None:
    """Raise StoreError if a store would replace something that no import made."""
    if store.is_symlink() or (store.exists() and not store.is_dir()):
        raise StoreError(f"{store}: not a folder. Pass another as --store.")
    present = {path.name for path in store.iterdir()} if store.is_dir() else set()
    own = {RECORD, *(f"{table}{suffix}" for table in TABLES for suffix in (".lance", ".digest"))}
    if others := present - (own if RECORD in present else set()):
        names = files.some(sorted(map(repr, others)))
        raise StoreError(
            f"{store}: contains files that no import made, and an import replaces all: {names}. Pass another --store."
        )


def _features_table(features: files.Features) -> pa.Table:
    """Return the rows, sorted by data set and split."""
    keys = sorted(features)
    tasks, splits = np.repeat(keys, [len(features[key]) for key in keys], axis=0).T
    labels = np.full(len(tasks), -1, dtype=np.int64)  # not in the files
    return FeatureRows(tasks, labels, splits, np.concatenate([features[key] for key in keys])).to_table()


def _by_task(store: Path, name: str) -> dict[tuple[str, str], Tensor]:
    """Return (n, F) float32 of each task and split, in the table's order."""
    table = read_table(store, name)
    counts = Counter(zip(table["task"].to_pylist(), table["split"].to_pylist(), strict=True))
    parts = torch.from_numpy(matrix(table["feature"])).split(list(counts.values()))
    return dict(zip(counts, parts, strict=True))


def _record(models: pa.Table, units: dict[str, str], known: files.Features, unseen: files.Features) -> dict[str, Any]:
    """Describe what was read: counts, widths, units, and warnings of what is unusual but harmless."""
    tasks, tests = {name for name, _ in known}, {name for name, _ in unseen}
    sources, counts = set(map(files.source_of, tasks)), Counter(models["home_task"].to_pylist()).values()
    chosen, exists = files.slots(matrix(models["topology"]))
    unusual = int((~exists & ~chosen.any(axis=2)).any(axis=1).sum())
    what = "networks have other numbers in the slots of blocks that they skip; these are ignored"
    warnings = [f"{unusual:,} {what}"] * (unusual > 0)
    whole = {name for name in tasks | tests if files.source_of(name) == name}
    shared = set(map(files.source_of, tests - tasks)) & sources
    for names, what in (
        (whole, "names do not end in _<first class>_<last class>; each is its own source"),
        (tasks & tests, "test data sets have networks in the zoo, so they are not unseen"),
        (shared, "sources have data sets on both sides, zoo and test"),
    ):
        warnings += [f"{len(names):,} {what}: {files.some(sorted(map(repr, names)))}"] * bool(names)
    return {
        "tasks": len(tasks),
        "sources": len(sources),
        "networks": len(models),
        "networks_per_task": (min(counts), max(counts)),
        "functional_width": models["functional"].type.list_size,
        "feature_width": next(iter(known.values())).shape[1],
        **{f"{kind}_features": sum(len(known[task, kind]) for task in tasks) for kind in ("train", "val")},
        "test_tasks": len(tests),
        "test_features": sum(map(len, unseen.values())),
        "units": units,
        "accuracy": [float(reduce(models["val_accuracy"].to_numpy())) for reduce in (np.min, np.median, np.max)],
        "params_m": [float(reduce(models["params_m"].to_numpy())) for reduce in (np.min, np.median, np.max)],
        "warnings": warnings,
    }
