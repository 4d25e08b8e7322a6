"""Nearest models under a filter. Axes: d space dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tans_core.errors import StoreError


def nearest(table: Any, query: npt.NDArray[np.float32], where: str | None = None, limit: int | None = None) -> pa.Table:
    """Return the models that pass a filter, nearest to a query first.

    Args:
        table: the open index.
        query: (d,) float32, of unit norm.
        where: filter applied before the search, so `limit` counts matching rows only; None for no filter.
        limit: rows at most; None for all.

    Returns:
        The index's rows with a column `similarity`, the cosine in -1..1; empty if nothing matches.

    Raises:
        StoreError: the query is not a unit vector (LanceDB returns nothing for NaN or zeros).
    """
    if not np.isfinite(query).all() or abs(float(np.linalg.norm(query)) - 1) > 1e-3:
        raise StoreError("the query's embedding is not a finite unit vector: the space and the index do not match.")
    search = table.search(query).distance_type("cosine").limit(limit or max(table.count_rows(), 1))
    if where:
        search = search.where(where, prefilter=True)
    rows = search.to_arrow()
    similarity = 1 - rows["_distance"].to_numpy()
    return rows.drop_columns(["_distance"]).append_column("similarity", pa.array(similarity, type=pa.float32()))


def columns_of(table: Any, *names: str) -> pa.Table:
    """Return some columns of all rows of the open index."""
    return table.search().select(list(names)).limit(max(table.count_rows(), 1)).to_arrow()
