"""Embeddings in LanceDB: one database with a table per stage, and a digest of each table's rows.

Lance names its files at random, so equal rows give different bytes. Later stages depend on a table's digest instead.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

# Lance writes notices to stderr from Rust; only this variable, read at import, turns them off.
os.environ.setdefault("LANCEDB_LOG", "error")

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tans_core.errors import StoreError
from tans_core.io import sha256_bytes, write_text
from tans_core.zoo.card import ModelCard


@dataclass(frozen=True)
class ModelRows:
    """The table `models`. Axes: M models, T topology width, E functional width.

    Attributes:
        cards: M cards.
        topology: (M, T) float32 codes.
        functional: (M, E) float32.
    """

    cards: tuple[ModelCard, ...]
    topology: npt.NDArray[np.float32]
    functional: npt.NDArray[np.float32]

    def to_table(self) -> pa.Table:
        return pa.table(
            {**card_columns(self.cards), "topology": vectors(self.topology), "functional": vectors(self.functional)}
        )

    @classmethod
    def read(cls, store: Path) -> ModelRows:
        table = read_table(store, "models")
        cards = tuple(ModelCard.from_json(text) for text in table["card"].to_pylist())
        return cls(cards, matrix(table["topology"]), matrix(table["functional"]))


@dataclass(frozen=True)
class FeatureRows:
    """The table `task_features`. Axes: n images of all tasks, F feature width.

    Attributes:
        tasks: (n,) str, the task of each image.
        labels: (n,) int64.
        splits: (n,) str.
        features: (n, F) float32.
    """

    tasks: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    features: npt.NDArray[np.float32]

    def to_table(self) -> pa.Table:
        columns = {"task": self.tasks.tolist(), "label": self.labels, "split": self.splits.tolist()}
        return pa.table({**columns, "feature": vectors(self.features)})

    @classmethod
    def read(cls, store: Path) -> FeatureRows:
        table = read_table(store, "task_features")
        names = np.array(table["task"].to_pylist(), dtype=np.str_)
        splits = np.array(table["split"].to_pylist(), dtype=np.str_)
        return cls(names, table["label"].to_numpy(), splits, matrix(table["feature"]))

    def of(self, task: str) -> npt.NDArray[np.float32]:
        """Return the (n, F) features of one task."""
        features: npt.NDArray[np.float32] = self.features[self.tasks == task]
        return features


def card_columns(cards: Sequence[ModelCard]) -> dict[str, Any]:
    """Return the columns of a table of models: ids, the columns for constraints, the card as JSON."""
    plain = ("id", "family", "home_task", "source", "licence", "params_m", "macs_m", "val_accuracy", "test_accuracy")
    return {name: [getattr(card, name) for card in cards] for name in plain} | {"card": [c.to_json() for c in cards]}


def vectors(values: npt.NDArray[np.float32]) -> pa.Array:
    """Turn a (M, D) float32 matrix into an Arrow column of fixed-size vectors."""
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def matrix(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Turn an Arrow column of M vectors of size D into a (M, D) float32 matrix."""
    width = column.type.list_size
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    values: npt.NDArray[np.float32] = np.array(flat, dtype=np.float32)  # a copy: torch needs writable arrays
    return values.reshape(-1, width)


def write_table(store: Path, name: str, table: pa.Table, key: str | None = "id") -> str:
    """Write a table, sorted, replacing an existing one, and its digest beside it; return the digest.

    Args:
        store: the database's folder.
        name: of the table.
        table: its rows.
        key: the column to sort by; None keeps the order.

    Raises:
        StoreError: a key occurs twice.
    """
    if key is not None:
        table = table.sort_by(key)
        keys = table[key].to_pylist()
        if len(set(keys)) != len(keys):
            repeated = sorted({k for k in keys if keys.count(k) > 1})
            raise StoreError(f"table {name!r}: {len(repeated)} ids occur twice: {repeated[:5]}.")
    store.mkdir(parents=True, exist_ok=True)
    try:
        connect(store).create_table(name, data=table, mode="overwrite")
    except (OSError, RuntimeError, ValueError):
        # A damaged table cannot be overwritten.
        shutil.rmtree(store / f"{name}.lance", ignore_errors=True)
        connect(store).create_table(name, data=table)
    digest = digest_of(table)
    write_text(digest + "\n", store / f"{name}.digest")
    return digest


def digest_of(table: pa.Table) -> str:
    """Return a SHA-256 of the rows in their order, and of the schema with its metadata."""
    sink = pa.BufferOutputStream()
    complete = _without_nulls(table).combine_chunks()
    with pa.ipc.new_stream(sink, complete.schema) as writer:
        writer.write_table(complete)
    return sha256_bytes(sink.getvalue().to_pybytes())


def _without_nulls(table: pa.Table) -> pa.Table:
    """Replace null numbers by 0 and add a column that marks them: the memory under a null is undefined."""
    for name in table.column_names:
        column = table[name]
        if column.null_count:
            is_null = column.is_null()
            filled = column.fill_null(pa.scalar(0, column.type)) if pa.types.is_floating(column.type) else column
            table = table.set_column(table.column_names.index(name), table.schema.field(name), filled)
            table = table.append_column(f"{name} is absent", is_null)
    return table


def read_table(store: Path, name: str) -> pa.Table:
    """Read a whole table into memory.

    Raises:
        StoreError: there is no such table.
    """
    with _readable(store, name):
        return cast(pa.Table, open_table(store, name).to_arrow())


def open_table(store: Path, name: str) -> Any:
    """Open a table for searching.

    Raises:
        StoreError: there is no such table.
    """
    if not (store / f"{name}.lance").is_dir():
        raise StoreError(f"{store}: has no table {name!r}. Run `tans build`, and for a release `tans publish`.")
    with _readable(store, name):
        return connect(store).open_table(name)


@contextlib.contextmanager
def _readable(store: Path, name: str) -> Iterator[None]:
    """Turn any error of Lance in a damaged table into a StoreError."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise StoreError(
            f"{store}: the table {name!r} is damaged ({reason}). Run `tans build`, then `tans publish`, to rewrite it."
        ) from error


def connect(store: Path) -> Any:
    # LanceDB would take a bare name for a remote database.
    return lancedb.connect(str(store.resolve()))


def read_digests(store: Path, *names: str) -> dict[str, str]:
    """Return the digests of tables by name.

    Raises:
        StoreError: one is missing.
    """
    paths = {name: store / f"{name}.digest" for name in names}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise StoreError(f"no such file: {', '.join(missing)}. Run `tans build`.")
    return {name: path.read_text(encoding="utf-8").strip() for name, path in paths.items()}
