"""Nearest models under constraints. Axes: d space dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tans_core.errors import NoModelFitsError, ParamsError, StoreError


@dataclass(frozen=True)
class Constraints:
    """Limits on the models that may be found; None sets no limit."""

    max_params_m: float | None = None
    max_macs_m: float | None = None
    licences: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("max_params_m", "max_macs_m"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ParamsError(f"{name}: got {value}, must be a number above 0.")

    def where(self) -> str | None:
        """Return the constraints as a filter that LanceDB applies before the search."""
        parts = []
        if self.max_params_m is not None:
            parts.append(f"params_m <= {float(self.max_params_m)!r}")
        if self.max_macs_m is not None:
            parts.append(f"macs_m <= {float(self.max_macs_m)!r}")
        if self.licences is not None:
            quoted = ", ".join("'" + licence.replace("'", "''") + "'" for licence in self.licences)
            parts.append(f"licence IN ({quoted})")
        return " AND ".join(parts) or None

    def __str__(self) -> str:
        return self.where() or "no constraint"


def nearest(table: Any, query: npt.NDArray[np.float32], constraints: Constraints, limit: int | None = None) -> pa.Table:
    """Return the models nearest to a query that satisfy the constraints, nearest first.

    Args:
        table: the open index.
        query: (d,) float32, of unit norm.
        constraints: applied before the search, so that `limit` rows come back whenever as many fit.
        limit: rows at most; None for all that fit.

    Returns:
        The index's rows with a column `similarity`, the cosine in -1..1.

    Raises:
        StoreError: the query is not a unit vector (LanceDB answers nothing to NaN or zeros).
        NoModelFitsError: no model satisfies the constraints; says which comes nearest to doing so.
    """
    if not np.isfinite(query).all() or abs(float(np.linalg.norm(query)) - 1) > 1e-3:
        raise StoreError("the query's embedding is not a finite unit vector: the space and the index do not match.")
    rows = table.count_rows()
    search = table.search(query).distance_type("cosine").limit(limit or max(rows, 1))
    where = constraints.where()
    if where:
        search = search.where(where, prefilter=True)
    found = search.to_arrow()
    if len(found) == 0:
        raise NoModelFitsError(_no_fit(table, constraints, rows))
    similarity = 1 - found["_distance"].to_numpy()
    return found.drop_columns(["_distance"]).append_column("similarity", pa.array(similarity, type=pa.float32()))


def _no_fit(table: Any, constraints: Constraints, rows: int) -> str:
    columns = ["id", "params_m", "macs_m", "licence"]
    frame = table.search().select(columns).limit(max(rows, 1)).to_arrow().to_pandas()
    if frame.empty:
        return "the index holds no model. Run `dvc repro` and `tans publish`."
    # The model that breaks its limits by the smallest factor.
    excess = np.ones(len(frame))
    advice = []
    for column, option, limit in (
        ("params_m", "--max-params-m", constraints.max_params_m),
        ("macs_m", "--max-macs-m", constraints.max_macs_m),
    ):
        if limit is not None:
            excess = np.maximum(excess, frame[column].to_numpy() / limit)
            advice.append((column, option, limit))
    best = frame.iloc[int(np.argmin(excess))]
    relax = [
        f"{option} to {np.ceil(best[column] * 100) / 100:g}" for column, option, limit in advice if best[column] > limit
    ]
    hint = (
        f"Relax {' and '.join(relax)}."
        if relax
        else f"Licences in the index: {', '.join(sorted(set(frame['licence'])))}."
    )
    return (
        f"0 of {rows} models satisfy {constraints}. "
        f"Nearest: {best['id']} ({best['params_m']:.2f} M parameters, {best['macs_m']:.1f} M MACs).\n  {hint}"
    )
