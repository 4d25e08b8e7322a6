"""The index in memory, searched exactly. Axes: M models, d space dimension.

A model's score on a task is its value (capacity + start) plus a weight times the cosine of both places. Rows are in the
order of falling value. A search reads blocks of them, and ends where the next value plus the weight is below the worst
score found: no later row can have a better one. So it seldom reads all rows, and leaves out none that belongs in the
answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tans_core.embeddings.store import matrix
from tans_core.errors import StoreError
from tans_core.index.coarse import Coarse

Rows = npt.NDArray[np.int64]
Kept = npt.NDArray[np.bool_]

_COLUMNS = ("id", "home_task", "source", "licence", "params_m", "macs_m", "val_accuracy")
_FIRST_BLOCK = 4096
"""Rows in the first block. Each further one has twice as many, so that many rows take few calls."""
_GATHER = 32
"""Rows are picked one by one where fewer than one in so many is kept; else a block is computed whole."""
COARSE_FROM = 300_000
"""Rows from which blocks after the first are read in rounded form, to find the rows that are worth computing. With
fewer, this takes longer than it saves."""
_ROUNDING = 1e-4
"""More than what float32 loses of a score."""


class Index:
    """The models of a release in memory, by falling value, those of equal value by id.

    Attributes:
        values: (M,) float32, capacity + start.
        by_id: (M,) int64, the place of each row in the order of ids.
        capacity, start: (M,) float32.
        vectors: (M, d) float32, of unit norm.
    """

    def __init__(self, table: pa.Table, coarse_from: int = COARSE_FROM) -> None:
        """Keep the columns of a table of `index_table` that a search needs; tests pass a smaller `coarse_from`."""
        table = table.sort_by("id")
        values = table["capacity"].to_numpy() + table["start"].to_numpy()
        order = np.argsort(-values, kind="stable")
        self.values: npt.NDArray[np.float32] = values[order]
        self.by_id: Rows = order
        # Taken by numpy, which gives writable arrays, as torch wants them.
        self.capacity, self.start = (table[name].to_numpy()[order] for name in ("capacity", "start"))
        self.vectors = torch.from_numpy(matrix(table["vector"])[order])
        self._coarse = Coarse(self.vectors) if len(values) >= coarse_from else None
        self._columns = table.select(_COLUMNS).take(pa.array(order)).combine_chunks()
        self._numbers: dict[str, npt.NDArray[np.float64]] = {}
        self._names: dict[str, tuple[npt.NDArray[np.int64], list[str]]] = {}

    @classmethod
    def read(cls, table: Any) -> Index:
        """Read an open table."""
        return cls(columns_of(table, *_COLUMNS, "capacity", "start", "vector"))

    def __len__(self) -> int:
        return len(self.values)

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of numbers, (M,); null is NaN."""
        if name not in self._numbers:
            self._numbers[name] = self._columns[name].to_numpy().astype(np.float64)
        return self._numbers[name]

    def names(self, name: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return a column of text: each row's number in the list of its different values, (M,), and that list."""
        if name not in self._names:
            encoded = self._columns[name].combine_chunks().dictionary_encode()
            self._names[name] = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
        return self._names[name]

    def rows(self, rows: Rows, columns: Sequence[str] = _COLUMNS) -> list[dict[str, Any]]:
        """Return some rows as Python objects."""
        taken: list[dict[str, Any]] = self._columns.select(columns).take(pa.array(rows)).to_pylist()
        return taken

    def best(
        self, query: npt.NDArray[np.float32], weight: float, limit: int | None = None, kept: Kept | None = None
    ) -> Rows:
        """Return the rows of the highest scores, in no order; of equal scores all, so they may be more than `limit`.

        Args:
            query: (d,) float32, of unit norm.
            weight: of the cosine in a score.
            limit: how many rows; None for all.
            kept: (M,) which rows to search; None for all.

        Raises:
            StoreError: the query is not a finite unit vector.
        """
        unit = _checked(query)
        if weight < 0:
            unit, weight = -unit, -weight
        total = len(self) if kept is None else int(np.count_nonzero(kept))
        if limit is None or limit >= total:
            return np.arange(len(self)) if kept is None else np.flatnonzero(kept)
        found, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        begin, size, worst = 0, _FIRST_BLOCK, -np.inf
        while begin < len(self) and self.values[begin] + weight >= worst - _ROUNDING:
            end = min(begin + size, len(self))
            rows, new = self._block(unit, weight, begin, end, kept, worst - _ROUNDING)
            found, scores = np.concatenate([found, rows]), np.concatenate([scores, new])
            if len(scores) > limit:
                worst = float(np.partition(scores, len(scores) - limit)[len(scores) - limit])
                near = scores >= worst - _ROUNDING
                found, scores = found[near], scores[near]
            begin, size = end, size * 2
        return found

    def _block(
        self, query: torch.Tensor, weight: float, begin: int, end: int, kept: Kept | None, least: float
    ) -> tuple[Rows, npt.NDArray[np.float32]]:
        """Return the rows of a block that are kept and may reach a score, and their scores."""
        some = None if kept is None else kept[begin:end]
        if some is not None and np.count_nonzero(some) * _GATHER < end - begin:
            rows: Rows = np.flatnonzero(some)
        elif self._coarse is not None and np.isfinite(least):
            most = self._coarse.bounds(query, begin, end).mul_(weight).numpy()
            most += self.values[begin:end]
            rows = np.flatnonzero(most >= least if some is None else (most >= least) & some)
        else:
            scores = self._scores(query, weight, begin, end)
            rows = np.flatnonzero(scores >= least if some is None else (scores >= least) & some)
            return rows + begin, scores[rows]
        rows += begin
        picked = torch.from_numpy(self.vectors.numpy()[rows])
        scores = torch.mv(picked, query).numpy()
        scores *= np.float32(weight)
        scores += self.values[rows]
        return rows, scores

    def _scores(self, query: torch.Tensor, weight: float, begin: int, end: int) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = torch.mv(self.vectors[begin:end], query).numpy()
        scores *= np.float32(weight)
        scores += self.values[begin:end]
        return scores


def columns_of(table: Any, *names: str) -> pa.Table:
    """Return some columns of all rows of the open index."""
    return table.search().select(list(names)).limit(max(table.count_rows(), 1)).to_arrow()


def _checked(query: npt.NDArray[np.float32]) -> torch.Tensor:
    if not np.isfinite(query).all() or abs(float(np.linalg.norm(query)) - 1) > 1e-3:
        length = float(np.linalg.norm(query))
        raise StoreError(
            f"the query's vector has length {length:.3g}, want 1: the release's space and index do not match. Run "
            "`tans build`, then `tans publish`."
        )
    return torch.from_numpy(np.array(query, dtype=np.float32))
