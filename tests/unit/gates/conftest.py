"""Fixtures that tests of several gates share."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest


@pytest.fixture
def replace() -> Callable[[pa.Table, str, int, object], pa.Table]:
    """Return a function that gives a table with one cell changed."""

    def with_cell(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value
        return table.set_column(table.column_names.index(column), column, pa.array(values))

    return with_cell
