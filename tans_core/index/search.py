"""Nearest models under a filter. Axes: d space dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tans_core.errors import StoreError


def nearest(table: Any, query: npt.NDArray[np.float32], where: str | None = None, limit: int | None = None) -> pa.Table:
    """Return the models nearest to a query that pass a filter, nearest first.

    Args:
        table: the open index.
        query: (d,) float32, of unit norm.
        where: applied before the search, so that `limit` rows come back whenever as many fit; None lets all pass.
        limit: rows at most; None for all that fit.

    Returns:
        The index's rows with a column `similarity`, the cosine in -1..1; none where nothing fits.

    Raises:
        StoreError: the query is not a unit vector (LanceDB answers nothing to NaN or zeros).
    """
    if not np.isfinite(query).all() or abs(float(np.linalg.norm(query)) - 1) > 1e-3:
        raise StoreError("the query's embedding is not a finite unit vector: the space and the index do not match.")
    search = table.search(query).distance_type("cosine").limit(limit or max(table.count_rows(), 1))
    if where:
        search = search.where(where, prefilter=True)
    found = search.to_arrow()
    similarity = 1 - found["_distance"].to_numpy()
    return found.drop_columns(["_distance"]).append_column("similarity", pa.array(similarity, type=pa.float32()))


def columns_of(table: Any, *names: str) -> pa.Table:
    """Return some columns of all rows of the open index."""
    return table.search().select(list(names)).limit(max(table.count_rows(), 1)).to_arrow()
