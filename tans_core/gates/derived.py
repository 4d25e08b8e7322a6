"""Scalar columns from vectors, which great-expectations cannot check. Axes: N rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tans_core.errors import StoreError
from tans_core.gates import expect


def vector_columns(name: str, column: pa.ChunkedArray) -> dict[str, Any]:
    """Describe N vectors, each of its own width, by scalars.

    Args:
        name: the column's name, put before `_dim`, `_finite` and `_norm`.
        column: a list or fixed-size list of floats; a null counts as a vector of width 0.

    Returns:
        `<name>_dim` (N,) int, `<name>_finite` (N,) bool, `<name>_norm` (N,) float: Euclidean, NaN where not finite.
    """
    vectors = [np.asarray([] if value is None else value, dtype=np.float64) for value in column.to_pylist()]
    finite = [bool(np.isfinite(vector).all()) and vector.size > 0 for vector in vectors]
    norms = [float(np.linalg.norm(vector)) if good else np.nan for vector, good in zip(vectors, finite, strict=True)]
    return {
        f"{name}_dim": [vector.size for vector in vectors],
        f"{name}_finite": finite,
        f"{name}_norm": norms,
    }


def vectors(name: str, dim: int) -> list[expect.Expectation]:
    """Expect finite, non-zero vectors of width `dim` behind the columns of `vector_columns`."""
    return [
        expect.between(f"{name}_dim", dim, dim),
        expect.true(f"{name}_finite"),
        expect.between(f"{name}_norm", 0.0, None, above=True),
    ]


def unit_vectors(name: str, dim: int, tolerance: float = 1e-3) -> list[expect.Expectation]:
    """Expect finite vectors of width `dim` and length 1 behind the columns of `vector_columns`."""
    return [
        expect.between(f"{name}_dim", dim, dim),
        expect.true(f"{name}_finite"),
        expect.between(f"{name}_norm", 1 - tolerance, 1 + tolerance),
    ]


def frame(columns: dict[str, Any], source: pa.Table | None = None, names: Sequence[str] = ()) -> pd.DataFrame:
    """Join derived columns with the scalar columns `names` of a table; missing columns are left out."""
    plain = {} if source is None else {name: source[name].to_pylist() for name in names if name in source.column_names}
    return pd.DataFrame({**plain, **columns})


def need_columns(table: pa.Table, names: Sequence[str], where: Path) -> None:
    """Check that a table has the columns that a gate needs.

    Raises:
        StoreError: some are missing: the table is of another version.
    """
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise StoreError(f"{where}: lacks the columns {', '.join(missing)}. Build it again with `tans build`.")
