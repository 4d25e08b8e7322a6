"""The store of LanceDB that holds what the TANS authors published: made of their files, and read. Nothing of a file is run.

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

# Marks a store as made by an import, so that another import may take its place.
RECORD = "published.json"
TABLES = ("models", "task_features", "test_features")
Read = TypeVar("Read")


def import_published(
    zoo: Path, queries: Path, store: Path, tests: Path | None = None, on_step: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Read the published files into the tables `models`, `task_features` and `test_features` of a store of their own.

    Nothing that the files bring is run. The store appears whole, in place of that of an earlier import, or not at all.

    `zoo` and `queries` are `p_mod_zoo.pt` and `p_m_train.pt`, `tests` is the folder of `meta_test_<name>.pt`; `on_step` is called
    with what is done next. Returns what `published.json` in the store holds.

    Raises:
        DataError: files are missing, damaged, refused, or wrong; all problems of all files are listed.
        StoreError: `store` is there, and no import made it.
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
        for path, other, lacking in ((queries, zoo, in_zoo - in_queries), (zoo, queries, in_queries - in_zoo)):
            if lacking:
                names = files.some(sorted(map(repr, lacking)))
                problems.append(f"{path}: lacks {len(lacking):,} data sets of {other.name}: {names}")
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
    """Read what `import_published` made. Raises StoreError where there is no such store, or a table of it is missing."""
    if not (store / RECORD).is_file():
        raise StoreError(f"{store}: no published files were imported here. Run `tans space import`.")
    has_tests = read_json(store / RECORD)["test_tasks"] > 0
    if absent := [name for name in TABLES[: 2 + has_tests] if not (store / f"{name}.lance").is_dir()]:
        raise StoreError(f"{store}: its tables {', '.join(absent)} are gone. Run `tans space import` again.")
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
    """Raise where a store would take the place of something that no import made."""
    if store.is_symlink() or (store.exists() and not store.is_dir()):
        raise StoreError(f"{store}: no folder. Pass another as --store.")
    present = {path.name for path in store.iterdir()} if store.is_dir() else set()
    own = {RECORD, *(f"{table}{suffix}" for table in TABLES for suffix in (".lance", ".digest"))}
    if others := present - (own if RECORD in present else set()):
        names = files.some(sorted(map(repr, others)))
        raise StoreError(
            f"{store}: holds what no import made, and an import replaces it: {names}. Pass another --store."
        )


def _features_table(features: files.Features) -> pa.Table:
    """Return the rows, sorted by data set and split."""
    keys = sorted(features)
    tasks, splits = np.repeat(keys, [len(features[key]) for key in keys], axis=0).T
    labels = np.full(len(tasks), -1, dtype=np.int64)  # the files do not say
    return FeatureRows(tasks, labels, splits, np.concatenate([features[key] for key in keys])).to_table()


def _by_task(store: Path, name: str) -> dict[tuple[str, str], Tensor]:
    """Return (n, F) float32 of each task and split, in the table's order."""
    table = read_table(store, name)
    counts = Counter(zip(table["task"].to_pylist(), table["split"].to_pylist(), strict=True))
    parts = torch.from_numpy(matrix(table["feature"])).split(list(counts.values()))
    return dict(zip(counts, parts, strict=True))


def _record(models: pa.Table, units: dict[str, str], known: files.Features, unseen: files.Features) -> dict[str, Any]:
    """Say what was read: how many, how wide, in which units, and what is odd but harmless."""
    tasks, tests = {name for name, _ in known}, {name for name, _ in unseen}
    sources, counts = set(map(files.source_of, tasks)), Counter(models["home_task"].to_pylist()).values()
    chosen, exists = files.slots(matrix(models["topology"]))
    odd = int((~exists & ~chosen.any(axis=2)).any(axis=1).sum())
    told = "networks hold other numbers in the slots of blocks that they skip; these play no part"
    warnings = [f"{odd:,} {told}"] * (odd > 0)
    whole = {name for name in tasks | tests if files.source_of(name) == name}
    shared = set(map(files.source_of, tests - tasks)) & sources
    for names, told in (
        (whole, "names do not end in _<first class>_<last class>; each is its own source"),
        (tasks & tests, "test data sets have networks in the zoo, so they are not unseen"),
        (shared, "sources have data sets on both sides, zoo and test"),
    ):
        warnings += [f"{len(names):,} {told}: {files.some(sorted(map(repr, names)))}"] * bool(names)
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
        "accuracy": [float(of(models["val_accuracy"].to_numpy())) for of in (np.min, np.median, np.max)],
        "params_m": [float(of(models["params_m"].to_numpy())) for of in (np.min, np.median, np.max)],
        "warnings": warnings,
    }
