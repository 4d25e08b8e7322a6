"""Parquet files that hold images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tans_core.errors import DataError, EmptyClassError
from tans_core.tasks.inputs.rows import NO_FILE
from tans_core.tasks.inputs.table import is_parquet_folder, list_table
from tans_core.tasks.scan import scan
from tans_core.tasks.task import write_task
from tests.factories.images import encoded, noise
from tests.factories.tables import CELL, cells, decoded, facts, picture, write_csv, write_parquet
from tests.factories.tasks import grating_task


def test_the_format_of_files_of_one_name_is_held_against_it(tmp_path: Path) -> None:
    cells = pa.array(
        [{"bytes": encoded(noise(12, 12, seed=n), "GIF"), "path": "image.png"} for n in range(8)], type=CELL
    )
    with scan(
        write_parquet(tmp_path / "a.parquet", {"image": cells, "label": list("ab" * 4)}), stored_size_px=8
    ) as found:
        assert [kind for _, kind in found.report.mislabelled] == ["GIF"] * 8


def test_parquet_of_hugging_face_datasets_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["oak", "ash"])})
    images = [noise(12, 12, seed=n) for n in range(40)]
    data = datasets.Dataset.from_dict({"img": images, "fine_label": [n % 2 for n in range(40)]}, features=features)
    path = tmp_path / "one.parquet"
    data.to_parquet(path)
    table = list_table(path)
    assert (table.kind, table.class_names, len(table.entries)) == ("parquet", ("ash", "oak"), 40)
    assert [entry.label for entry in table.entries[:2]] == ["oak", "ash"]
    assert decoded(table) == [None] * 40


def test_folder_of_parquet_files_names_its_splits(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001")
    ):
        rows = range(4 * number, 4 * number + 4)
        write_parquet(tmp_path / f"{name}.parquet", {"image": cells(rows), "label": [n % 2 for n in rows]})
    (tmp_path / "README.md").write_text("about it")
    assert is_parquet_folder(tmp_path)
    table = list_table(tmp_path)
    assert table.class_names == ("0", "1")
    assert [entry.split for entry in table.entries] == ["test"] * 4 + ["train"] * 8
    assert decoded(table) == [None] * 12


def test_folder_with_anything_else_is_no_parquet_folder(tmp_path: Path) -> None:
    assert not is_parquet_folder(tmp_path)
    write_parquet(tmp_path / "features.parquet", {"x": [1]})
    assert is_parquet_folder(tmp_path)
    write_csv(tmp_path, "")
    assert not is_parquet_folder(tmp_path)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_parts_of_the_rows_are_read_in_turn_whatever_the_row_groups(size: int, tmp_path: Path) -> None:
    columns = {"image": cells(range(50)), "label": [f"c{n % 2}" for n in range(50)]}
    table = list_table(write_parquet(tmp_path / "a.parquet", columns, row_group_size=size))
    chosen = [*range(0, 20, 3), 21, 22, 23, 48]
    found = []
    for start in range(0, len(chosen), 4):
        found += list(table.read([table.entries[index] for index in chosen[start : start + 4]]))
    assert found == [picture(index) for index in chosen]
    assert list(table.read([table.entries[2]])) == [picture(2)]  # another round begins


def test_plain_binary_column_and_names_that_are_no_paths(tmp_path: Path) -> None:
    plain = write_parquet(tmp_path / "a.parquet", {"image": [picture(n) for n in range(4)], "label": list("abab")})
    assert [entry.name for entry in list_table(plain).entries] == [f"a.parquet#{n}" for n in range(4)]
    assert decoded(list_table(plain)) == [None] * 4
    names = ["x/1.png", "same", "same", "/etc/a.png", "../b.png", None, "a.parquet#1"]
    rows = pa.array([{"bytes": picture(n), "path": name} for n, name in enumerate(names)], type=CELL)
    table = list_table(write_parquet(tmp_path / "a.parquet", {"image": rows, "label": list("abababa")}))
    found = [entry.name for entry in table.entries]
    assert [found[0], found[3], found[4], found[5]] == ["x/1.png", *(f"a.parquet#{n}" for n in (3, 4, 5))]
    assert len(set(found)) == 7
    assert list(table.read(table.entries)) == [picture(n) for n in range(7)]


def test_cell_without_bytes_is_read_from_its_path_inside_the_folder(tmp_path: Path) -> None:
    write_csv(tmp_path, "")
    (tmp_path.parent / "outside.png").write_bytes(picture(1))
    written = ["i/0.png", "../outside.png", "i/9.png", None]
    rows = pa.array([{"bytes": None, "path": name} for name in written] + [None], type=CELL)
    table = list_table(write_parquet(tmp_path / "a.parquet", {"image": rows, "label": list("ababa")}))
    content = list(table.read(table.entries))
    assert content[0] == picture(0)
    assert content[1:] == [
        "outside the table's folder",
        NO_FILE,
        "no image in this row",
        "no image in this row",
    ]


def test_parquet_of_paths_is_read_as_a_csv_is(tmp_path: Path) -> None:
    write_csv(tmp_path, "")
    columns = {"file_name": ["i/1.png", "i/0.png", "no.png"], "label": pa.array([1.0, 2.0, None])}
    table = list_table(write_parquet(tmp_path / "a.parquet", columns))
    assert facts(table) == [("i/0.png", "2", None), ("i/1.png", "1", None)]
    assert table.bad == [("no.png", NO_FILE)] and all(entry.path for entry in table.entries)


def test_numbers_become_the_names_that_the_file_declares(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ash", "oak", "elm"]}}
    columns = {"image": cells(range(5)), "label": [1, 0, -1, 7, 0]}
    path = write_parquet(tmp_path / "a.parquet", columns, features)
    with pytest.raises(EmptyClassError, match="elm"):
        list_table(path)
    table = list_table(path, drop_empty_classes=True)
    assert [entry.label for entry in table.entries] == ["oak", "ash", "ash"]
    assert table.skipped["label withheld (-1)"] == 1
    assert table.bad == [("3.png", "label 7: want 0 to 2")]


@pytest.mark.parametrize(
    "features",
    [[], 3, {"label": []}, {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}, {"label": {"names": [1, {}]}}],
)
def test_metadata_that_makes_no_sense_is_passed_over(features: Any, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": cells(range(2)), "label": [0, 1]}, features)
    assert list_table(path).class_names == ("0", "1")
    deep = pa.table({"image": cells(range(2)), "label": [0, 1]}).replace_schema_metadata({"huggingface": "[" * 100_000})
    pq.write_table(deep, path)
    assert list_table(path).class_names == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "features"),
    [
        ([["cat"], ["dog"], ["cat", "dog"], []] * 3, None),
        ([[0], [1], [0, 1], []] * 3, {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["cat", "dog"]}}),
    ],
)
def test_lists_of_labels_are_read_where_they_have_one_and_else_refused(
    labels: list[list[Any]], features: Any, tmp_path: Path
) -> None:
    columns = {"image": cells(range(12)), "labels": labels}
    path = write_parquet(tmp_path / "a.parquet", columns, features and {"labels": features})
    with pytest.raises(DataError, match="3 of 12 rows have several labels, such as 'cat, dog'"):
        list_table(path)
    columns["labels"] = [one if len(one) == 1 else [] for one in labels]
    table = list_table(write_parquet(tmp_path / "b.parquet", columns, features and {"labels": features}))
    assert [label for _, label, _ in facts(table)] == ["cat", "dog"] * 3
    assert [reason for _, reason in table.bad] == ["no label"] * 6


def test_broken_or_cut_parquet_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": cells(range(4)), "label": list("abab")})
    whole = path.read_bytes()
    for data in (whole[:-9], whole[: len(whole) // 2], b"", whole[:-200] + bytes(190) + whole[-10:]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="broken or cut short"):
            list_table(path)


def test_broken_row_group_costs_its_own_rows_alone(tmp_path: Path) -> None:
    columns = {"image": cells(range(30)), "label": [f"c{n % 2}" for n in range(30)]}
    path = write_parquet(
        tmp_path / "a.parquet", columns, row_group_size=10, write_page_checksum=True, compression="none"
    )
    table = list_table(path)
    data = bytearray(path.read_bytes())
    place = data.index(picture(15))
    data[place : place + 40] = bytes(40)
    path.write_bytes(data)
    reasons = decoded(table)
    assert [reason is None for reason in reasons] == [True] * 10 + [False] * 10 + [True] * 10
    assert "row group 1 of a.parquet is broken" in str(reasons[15])


def test_row_group_that_would_fill_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": cells(range(40)), "label": [n % 2 for n in range(40)]})
    monkeypatch.setattr("tans_core.tasks.inputs.parquet.MAX_TABLE_BYTES", 10_000)
    with pytest.raises(DataError, match="smaller row groups"):
        list_table(path)


def test_memory_does_not_grow_with_the_row_groups_of_a_file(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(2**17)
    peaks = []
    for rows in (200, 800):
        images = [data[:-8] + n.to_bytes(8, "little") for n in range(rows)]
        columns = {"image": images, "label": [n % 2 for n in range(rows)]}
        path = write_parquet(tmp_path / f"{rows}.parquet", columns, row_group_size=50)
        del images, columns
        table = list_table(path)
        before, most = pa.total_allocated_bytes(), 0
        for _ in table.read(table.entries):
            most = max(most, pa.total_allocated_bytes() - before)
        peaks.append(most)
    # Four times the rows: what is held is some row groups, never the file.
    assert 0 < peaks[1] < 1.5 * peaks[0] and peaks[1] < 800 * 2**17 / 2


def test_data_sets_of_hugging_face_are_scanned_with_their_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["oak", "ash"])})
    for split, first in (("train", 0), ("test", 100)):
        images = [{"bytes": encoded(noise(20, 20, seed=first + number)), "path": None} for number in range(10)]
        made = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 5}, features=features)
        made.to_parquet(str(tmp_path / "hub/data" / f"{split}-00000-of-00001.parquet"))
    with scan(tmp_path / "hub", stored_size_px=16) as found:
        task = found.task("hub")
    assert task.info.class_names == ("ash", "oak") and task.info.counts["test"] == 10
    assert sorted(np.bincount(task.labels).tolist()) == [10, 10]


def test_our_own_parquet_is_scanned_with_its_splits(tmp_path: Path) -> None:
    task = grating_task(classes=3)
    write_task(task, tmp_path / "task")
    with scan(tmp_path / "task/images.parquet", stored_size_px=task.info.stored_size_px) as found:
        again = found.task("t")
    assert again.info.class_names == task.info.class_names and not found.report.bad
    assert sum(again.info.counts.values()) + len(found.report.leaks) + len(found.report.copies) == len(task.labels)


@pytest.mark.parametrize("names", [("steam-train", "test-tube", "tram"), ("train-ride", "test-drive", "walk")])
def test_words_in_file_names_are_no_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    for index, name in enumerate(names):
        columns = {"image": cells(range(40 * index, 40 * index + 40)), "label": [name] * 40}
        write_parquet(tmp_path / f"{name}.parquet", columns)
    listed = list_table(tmp_path)
    assert len(listed.entries) == 120 and not listed.bad
    assert {entry.split for entry in listed.entries} == {None}


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"),
        ("train", "train_1", "validation"),
        ("default/train/0000", "default/train/0001", "default/test/0000"),
        ("train-00000-of-00001-0123456789abcdef", "train-00001-of-00001-0123456789abcdef", "test-00000-of-00001"),
    ],
)
def test_whole_names_of_shards_and_folders_are_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    for index, name in enumerate(names):
        columns = {"image": cells(range(4 * index, 4 * index + 4)), "label": ["a", "b"] * 2}
        write_parquet(tmp_path / f"{name}.parquet", columns)
    splits = [entry.split for entry in list_table(tmp_path).entries]
    assert splits.count("train") == 8 and len(set(splits)) == 2
