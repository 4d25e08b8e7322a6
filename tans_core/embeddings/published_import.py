"""Makes a store of LanceDB of the files that the TANS authors published. Nothing that they bring is run.

Axes: D data sets, M networks, n images, E functional width, F feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tans_core.embeddings.published import RECORD, TABLES
from tans_core.embeddings.published_files import (
    Checked,
    Zoo,
    find_tests,
    is_cut,
    read_queries,
    read_test,
    read_zoo,
    source_of,
)
from tans_core.embeddings.published_values import Floats, Vectors
from tans_core.embeddings.store import FeatureRows, vectors, write_table
from tans_core.errors import DataError, StoreError
from tans_core.io import atomic_folder, sha256_file, write_json

_UNKNOWN_LABEL = -1
_EXAMPLES = 3


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes:
        store: its folder.
        tasks, sources, networks: how many.
        networks_per_task: the fewest and the most.
        functional_width, feature_width: E and F.
        train_features, val_features: vectors of all data sets.
        test_tasks, test_features: how many.
        units: those of the file's `acc` (fractions or percent) and `n_params` (millions or counts).
        accuracy: the lowest, the median and the highest, in [0, 1].
        params_m: likewise, in millions.
        files: SHA-256 of the zoo and the queries by name, None for the test files, which are only read in part.
        warnings: what is odd but harmless.
    """

    store: str
    tasks: int
    sources: int
    networks: int
    networks_per_task: tuple[int, int]
    functional_width: int
    feature_width: int
    train_features: int
    val_features: int
    test_tasks: int
    test_features: int
    units: Mapping[str, str]
    accuracy: tuple[float, float, float]
    params_m: tuple[float, float, float]
    files: Mapping[str, str | None]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def import_published(
    zoo: Path, queries: Path, store: Path, tests: Path | None = None, on_step: Callable[[str], None] = lambda _: None
) -> Imported:
    """Read the published files into the tables `models`, `task_features` and `test_features` of a store of their own.

    Nothing that the files bring is run. The store appears whole, in place of that of an earlier import, or not at all.

    Args:
        zoo: `p_mod_zoo.pt`.
        queries: `p_m_train.pt`.
        store: the folder to make.
        tests: the folder of `meta_test_<name>.pt`.
        on_step: called with what is done next.

    Raises:
        DataError: files are missing, damaged, refused, or hold what cannot be meant; all problems of all files are listed.
        StoreError: `store` is there, and no import made it.
    """
    _check_store(store)
    checked = Checked()
    on_step(f"reading {zoo.name}")
    networks = read_zoo(zoo, checked)
    on_step(f"reading {queries.name}")
    features = read_queries(queries, checked)
    if networks is not None and features is not None:
        checked.problems += _strangers(set(networks.homes), set(features), zoo, queries)
    width = next((v.shape[1] for splits in features.values() for v in splits.values()), None) if features else None
    test_sets: dict[str, Vectors] = {}
    test_files = find_tests(tests, checked) if tests is not None else []
    for path in test_files:
        on_step(f"reading {path.name}")
        read = read_test(path, width, checked)
        if read is not None:
            test_sets[read[0]] = read[1]
    if checked.problems or networks is None or features is None:
        raise DataError(_message(checked.problems))
    on_step("writing the store")
    digests: dict[str, str | None] = {path.name: sha256_file(path) for path in (zoo, queries)}
    summary = _summary(networks, features, test_sets, store, digests | {path.name: None for path in test_files})
    with atomic_folder(store) as folder:
        write_table(folder, "models", _models_table(networks))
        rows = ((name, split, splits[split]) for name, splits in sorted(features.items()) for split in ("train", "val"))
        write_table(folder, "task_features", _features_table(rows), key=None)
        if test_sets:
            rows = ((name, "query", found) for name, found in sorted(test_sets.items()))
            write_table(folder, "test_features", _features_table(rows), key=None)
        write_json(summary.to_dict(), folder / RECORD)
    return summary


def _check_store(store: Path) -> None:
    """Raise where a store would take the place of something that no import made."""
    if store.is_symlink() or (store.exists() and not store.is_dir()):
        raise StoreError(f"{store}: no folder. Pass another as --store.")
    present = {path.name for path in store.iterdir()} if store.is_dir() else set()
    own = {RECORD, *(f"{table}{suffix}" for table in TABLES for suffix in (".lance", ".digest"))}
    others = sorted(present if RECORD not in present else present - own)
    if others:
        raise StoreError(
            f"{store}: holds what no import made: {_some(others)}. An import replaces its whole folder: "
            "pass a new one as --store."
        )


def _strangers(in_zoo: set[str], in_queries: set[str], zoo: Path, queries: Path) -> list[str]:
    found = []
    if lacking := sorted(in_zoo - in_queries):
        found.append(
            f"{queries}: lacks {len(lacking):,} data sets that networks of {zoo.name} come from: {_some(lacking)}"
        )
    if lacking := sorted(in_queries - in_zoo):
        found.append(f"{zoo}: holds no network of {len(lacking):,} data sets of {queries.name}: {_some(lacking)}")
    return found


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _EXAMPLES:,} more" if len(listed) > _EXAMPLES else ""
    return ", ".join(repr(name) for name in listed[:_EXAMPLES]) + more


def _message(problems: list[str]) -> str:
    lines = "\n".join(f"  {problem}" for problem in problems)
    noun = "problem" if len(problems) == 1 else "problems"
    return (
        f"the files cannot be imported: {len(problems)} {noun}, and nothing was written.\n{lines}\n"
        "  What is read: docs/published.md"
    )


def _models_table(zoo: Zoo) -> pa.Table:
    count = len(zoo.homes)
    return pa.table(
        {
            "id": [f"published.{row:06d}" for row in range(count)],
            "home_task": list(zoo.homes),
            "source": [source_of(home) for home in zoo.homes],
            "val_accuracy": zoo.accuracy,
            "params_m": zoo.params_m,
            "topology": vectors(zoo.topology),
            "functional": vectors(zoo.functional),
        }
    )


def _features_table(sets: Iterable[tuple[str, str, Vectors]]) -> pa.Table:
    parts = list(sets)
    lengths = [len(features) for _, _, features in parts]
    return FeatureRows(
        tasks=np.repeat([task for task, _, _ in parts], lengths),
        labels=np.full(sum(lengths), _UNKNOWN_LABEL, dtype=np.int64),
        splits=np.repeat([split for _, split, _ in parts], lengths),
        features=np.concatenate([features for _, _, features in parts]),
    ).to_table()


def _summary(
    zoo: Zoo,
    features: Mapping[str, Mapping[str, Vectors]],
    tests: Mapping[str, Vectors],
    store: Path,
    files: Mapping[str, str | None],
) -> Imported:
    _, counts = np.unique(np.array(zoo.homes), return_counts=True)
    sources = {source_of(name) for name in features}
    return Imported(
        store=str(store),
        tasks=len(features),
        sources=len(sources),
        networks=len(zoo.homes),
        networks_per_task=(int(counts.min()), int(counts.max())),
        functional_width=zoo.functional.shape[1],
        feature_width=next(iter(features.values()))["train"].shape[1],
        train_features=sum(len(splits["train"]) for splits in features.values()),
        val_features=sum(len(splits["val"]) for splits in features.values()),
        test_tasks=len(tests),
        test_features=sum(map(len, tests.values())),
        units=zoo.units,
        accuracy=_span(zoo.accuracy),
        params_m=_span(zoo.params_m),
        files=files,
        warnings=(*zoo.warnings, *_warnings(set(features), set(tests))),
    )


def _span(values: Floats) -> tuple[float, float, float]:
    return float(values.min()), float(np.median(values)), float(values.max())


def _warnings(tasks: set[str], tests: set[str]) -> list[str]:
    found = []
    if whole := sorted(name for name in tasks | tests if not is_cut(name)):
        found.append(
            f"{len(whole):,} names do not end in _<first class>_<last class>; each is its own source: {_some(whole)}"
        )
    if seen := sorted(tasks & tests):
        found.append(f"{len(seen):,} test data sets have networks in the zoo, so they are not unseen: {_some(seen)}")
    shared = {source_of(name) for name in tests - tasks} & {source_of(name) for name in tasks}
    if shared:
        found.append(f"{len(shared):,} sources have data sets on both sides, zoo and test: {_some(sorted(shared))}")
    return found
