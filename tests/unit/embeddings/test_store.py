from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tans_core.embeddings.store import (
    FeatureRows,
    ModelRows,
    digest_of,
    matrix,
    read_digests,
    read_table,
    vectors,
    write_table,
)
from tans_core.errors import StoreError
from tests.factories.embeddings import linked_tables


def test_tables_read_back_as_they_were_written(tmp_path: Path) -> None:
    models, features = linked_tables(tasks=3, models=4)
    write_table(tmp_path, "models", models.to_table())
    write_table(tmp_path, "task_features", features.to_table(), key=None)
    read = ModelRows.read(tmp_path)
    assert [card.id for card in read.cards] == sorted(card.id for card in models.cards)
    np.testing.assert_array_equal(read.functional, models.functional)
    np.testing.assert_array_equal(read.topology, models.topology)
    again = FeatureRows.read(tmp_path)
    np.testing.assert_array_equal(again.of("task-01"), features.of("task-01"))
    assert again.splits.tolist() == features.splits.tolist()


def test_digest_is_that_of_the_rows_whatever_their_order_and_the_files(tmp_path: Path) -> None:
    table = linked_tables(tasks=2)[0].to_table()
    first = write_table(tmp_path / "one", "models", table)
    second = write_table(tmp_path / "two", "models", table.take(list(reversed(range(len(table))))))
    assert first == second == read_digests(tmp_path / "two", "models")["models"]
    assert digest_of(read_table(tmp_path / "two", "models")) == first
    changed = table.set_column(table.column_names.index("params_m"), "params_m", pa.array(np.full(len(table), 0.2)))
    assert write_table(tmp_path / "one", "models", changed) != first


def test_overwritten_table_holds_the_new_rows_alone(tmp_path: Path) -> None:
    table = linked_tables(tasks=2)[0].to_table()
    write_table(tmp_path, "models", table)
    write_table(tmp_path, "models", table.slice(0, 3))
    assert len(read_table(tmp_path, "models")) == 3


def test_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    table = linked_tables(tasks=2)[0].to_table()
    with pytest.raises(StoreError, match=r"m\.task-00\.000"):
        write_table(tmp_path, "models", pa.concat_tables([table, table.slice(0, 1)]))


def test_missing_table_or_digest_names_the_command(tmp_path: Path) -> None:
    for read in (lambda: read_table(tmp_path, "models"), lambda: read_digests(tmp_path, "models")):
        with pytest.raises(StoreError, match="tans build"):
            read()


def test_vectors_and_matrix_undo_each_other() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    np.testing.assert_array_equal(matrix(pa.chunked_array([vectors(values[:2]), vectors(values[2:])])), values)


def test_digest_of_a_table_with_numbers_that_are_not_there_survives_the_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for count in (3, 17, 200):
        numbers = [None if index % 3 == 1 else float(rng.normal()) for index in range(count)]
        table = pa.table({"id": [f"{index:03d}" for index in rng.permutation(count)], "number": numbers})
        digest = write_table(tmp_path, "some", table)
        assert digest_of(read_table(tmp_path, "some")) == digest
        filled = table.set_column(1, "number", pa.array([value or 0.0 for value in numbers]))
        assert digest_of(filled.sort_by("id")) != digest
