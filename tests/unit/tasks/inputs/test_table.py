"""Tables: a CSV of paths and labels, and Parquet files that hold the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tans_core.errors import DataError, EmptyClassError, NoClassesError
from tans_core.tasks.chunks import Chunks
from tans_core.tasks.inputs.table import Table, is_parquet_folder, list_table
from tans_core.tasks.scan import scan
from tans_core.tasks.task import write_task
from tests.factories.images import encoded, noise, write_class_folders
from tests.factories.tasks import grating_task

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


SPLIT_ROWS = "path,label,split\ni/0.png,a,train\ni/2.png,b,train\ni/3.png,b,test\n"


def picture(seed: int) -> bytes:
    return encoded(noise(12, 12, seed=seed))


def write_csv(folder: Path, text: str | bytes, name: str = "labels.csv", images: int = 6) -> Path:
    """A table, and beside it i/0.png to i/5.png."""
    (folder / "i").mkdir(exist_ok=True)
    for number in range(images):
        (folder / f"i/{number}.png").write_bytes(picture(number))
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_parquet(path: Path, columns: dict[str, Any], features: Any = None, **options: Any) -> Path:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def cells(numbers: range, prefix: str = "") -> pa.Array:
    return pa.array([{"bytes": picture(n), "path": f"{prefix}{n}.png"} for n in numbers], type=CELL)


def facts(table: Table) -> list[tuple[str, str, str | None]]:
    return [(entry.name, entry.label, entry.split) for entry in table.entries]


def decoded(table: Table) -> list[str | None]:
    chunks = Chunks(table.entries, 8, None)
    chunks.fill(table, workers=0)
    reasons: list[str | None] = chunks.facts()["reason"].to_pylist()
    return reasons


@pytest.mark.parametrize(
    "text",
    [
        "path,label\ni/0.png,cat\ni/1.png,dog\n",
        "label\tFile_Name\ncat\ti\\0.png\ndog\t./i/1.png\n",
        "id;image;class\r\n1;i/0.png;cat\r\n2;i/1.png;dog\r\n",
        '\ufefffilename,category,note\ni/0.png,cat,"two\nlines, one cell"\ni/1.png, dog ,\n',
    ],
)
def test_csv_of_any_delimiter_and_usual_column_names(text: str, tmp_path: Path) -> None:
    table = list_table(write_csv(tmp_path, text))
    assert (table.kind, table.class_names, table.bad) == ("csv", ("cat", "dog"), [])
    assert facts(table) == [("i/0.png", "cat", None), ("i/1.png", "dog", None)]
    assert decoded(table) == [None, None]


def test_labels_stay_as_they_are_written(tmp_path: Path) -> None:
    table = list_table(write_csv(tmp_path, "path,label\ni/0.png,007\ni/1.png,NA\ni/2.png,1.0\ni/3.png,true\n"))
    assert table.class_names == ("1.0", "007", "NA", "true")


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("/etc/hostname", "outside"),
        ("C:\\photos\\0.png", "another system"),
        ("../secret.png", "outside"),
        ("i/../../secret.png", "outside"),
        ("link.png", "outside"),
        ("folder/secret.png", "outside"),
        ("i/9.png", "no such file"),
        ("i", "not a plain file"),
        ("http://example.org/0.png", "an address"),
        ("a\0b.png", "null"),
        ("x" * 5000, "name too long"),
        ("", "no path"),
    ],
)
def test_path_that_is_no_file_of_the_tables_folder_is_bad(written: str, reason: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret.png").write_bytes(picture(9))
    (home / "link.png").symlink_to(tmp_path / "secret.png")
    (home / "folder").symlink_to(tmp_path)
    # Far from the start, which is looked at to tell text from other files.
    many = "".join(f"i/{number % 2}.png,{number % 2},{'-' * 90}\n" for number in range(800))
    table = list_table(write_csv(home, f"path,label,note\n{many}{written},1,\n"))
    assert len(table.entries) == 2
    assert len(table.bad) == 1 and reason in table.bad[0][1].lower()


def test_row_listed_twice_is_taken_once_and_with_two_labels_it_is_an_image_of_both(tmp_path: Path) -> None:
    text = "path,label\ni/0.png,a\ni/./0.png,a\ni/1.png,b\ni/2.png,b\ni/2.png,a\ni/3.png,\n"
    table = list_table(write_csv(tmp_path, text))
    both = [("labels.csv#5: i/2.png", "b", None), ("labels.csv#6: i/2.png", "a", None)]
    assert facts(table) == [("i/0.png", "a", None), ("i/1.png", "b", None), *both]
    assert table.skipped == {"listed twice": 1}
    assert table.bad == [("i/3.png", "no label")]


@pytest.mark.parametrize("other", ["no.png,c\n", "i/1.png,c,test\n"])
def test_class_of_which_no_row_can_be_used_is_not_passed_over(other: str, tmp_path: Path) -> None:
    rows = "path,label\ni/0.png,a\ni/1.png,b\n" if other.count(",") == 1 else SPLIT_ROWS
    path = write_csv(tmp_path, rows + other.replace("test", "9"))
    with pytest.raises(EmptyClassError, match=r"1 of 3 classes .*'c' \(0 of 1: 1 x "):
        list_table(path)
    assert list_table(path, drop_empty_classes=True).class_names == ("a", "b")


def test_rows_of_a_wrong_length_are_bad_by_number(tmp_path: Path) -> None:
    table = list_table(write_csv(tmp_path, "path,label\ni/0.png,a\ni/1.png,b,c\ni/2.png,b\n"))
    assert len(table.entries) == 2
    assert table.bad == [("labels.csv#3", "3 columns, not 2")]


def test_rows_are_called_by_their_line_and_no_two_files_alike(tmp_path: Path) -> None:
    text = "path,label\ni/0.png,a\ni/1.png\ni/9.png,a\n,b\ni/1.png,b\ni/1.png,a\ni/0.png,\ni/9.png,b\n"
    table = list_table(write_csv(tmp_path, text))
    assert facts(table) == [
        ("i/0.png", "a", None),
        ("labels.csv#6: i/1.png", "b", None),
        ("labels.csv#7: i/1.png", "a", None),
    ]
    assert table.bad == [
        ("labels.csv#3", "1 columns, not 2"),
        ("labels.csv#4: i/9.png", "no such file"),
        ("labels.csv#5", "no path"),
        ("labels.csv#8: i/0.png", "no label"),
        ("labels.csv#9: i/9.png", "no such file"),
    ]


def test_names_with_blanks_at_their_ends_and_strokes_inside_are_found(tmp_path: Path) -> None:
    names = [" first.png", "last.png ", "in\\side.png", "i/0.png"]
    path = write_csv(tmp_path, "path,label\n" + "".join(f'"{name}",{n % 2}\n' for n, name in enumerate(names)))
    for number, name in enumerate(names[:3]):
        (tmp_path / name).write_bytes(picture(number))
    table = list_table(path)
    assert len(table.entries) == 4 and not table.bad
    assert len({entry.path for entry in table.entries}) == 4


def test_the_format_of_files_of_one_name_is_held_against_it(tmp_path: Path) -> None:
    cells = pa.array(
        [{"bytes": encoded(noise(12, 12, seed=n), "GIF"), "path": "image.png"} for n in range(8)], type=CELL
    )
    with scan(
        write_parquet(tmp_path / "a.parquet", {"image": cells, "label": list("ab" * 4)}), image_size_px=8
    ) as found:
        assert [kind for _, kind in found.report.mislabelled] == ["GIF"] * 8


def test_two_labels_of_a_path_are_seen_in_a_sample_too(tmp_path: Path) -> None:
    rows = [f"i/{n}.png,{'ab'[n % 2]}" for n in range(30)] + [f"i/{n}.png,c" for n in range(10)]
    path = write_csv(tmp_path, "\n".join(["path,label", *rows]), images=30)
    with scan(path, image_size_px=8, max_images=12) as found:
        names = {name for pair in found.report.contradictions for name in pair}
        assert names and len(names) % 2 == 0
        assert not {row.label for row in found.rows} & {"c"}
        assert found.report.files < 30


def test_splits_are_taken_where_training_and_other_images_are_named(tmp_path: Path) -> None:
    rows = "path,label,{}\ni/0.png,a,Training\ni/1.png,b,dev\ni/2.png,b,9\ni/3.png,a,\n"
    table = list_table(write_csv(tmp_path, rows.format("subset")))
    assert [split for _, _, split in facts(table)] == ["train", "val"]
    assert [reason for _, reason in table.bad] == ["split '9': want train, val or test", "no split"]
    folds = list_table(write_csv(tmp_path, "path,label,fold\ni/0.png,a,0\ni/1.png,b,1\n"))
    assert {split for _, _, split in facts(folds)} == {None} and not folds.bad


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("picture_id,label\n1,a\n", "no column of images. Columns found: picture_id, label; wanted: one of path"),
        ("path,kind\ni/0.png,a\n", "no column of labels. Columns found: path, kind; wanted: one of label"),
        (b"", "Columns found: none"),
        ("path,label\n", "none of its 0 rows can be used. It is empty"),
        ("path,label\nno.png,a\n", "none of its 1 rows can be used. no.png: no such file"),
        ("path,label\n".encode("utf-16"), "save it as CSV UTF-8"),
        ("path,label\ni/0.png,caf\u00e9\n".encode("latin-1"), "save it as CSV UTF-8"),
        (b"path,label\n" + b"i/0.png,a\n" * 9000 + b"i/1.png,caf\xe9\n", "Save it as CSV UTF-8"),
        (picture(0), "neither an archive"),
    ],
)
def test_file_that_is_no_usable_table_says_what_is_wanted(text: str | bytes, words: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path, text)
    with pytest.raises(DataError) as raised:
        list_table(path)
    assert words in str(raised.value) and str(path) in str(raised.value)


def test_table_of_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoClassesError, match="only one class"):
        list_table(write_csv(tmp_path, "path,label\ni/0.png,a\ni/1.png,a\n"))


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
        "no such file",
        "no image in this row",
        "no image in this row",
    ]


def test_parquet_of_paths_is_read_as_a_csv_is(tmp_path: Path) -> None:
    write_csv(tmp_path, "")
    columns = {"file_name": ["i/1.png", "i/0.png", "no.png"], "label": pa.array([1.0, 2.0, None])}
    table = list_table(write_parquet(tmp_path / "a.parquet", columns))
    assert facts(table) == [("i/0.png", "2", None), ("i/1.png", "1", None)]
    assert table.bad == [("no.png", "no such file")] and all(entry.path for entry in table.entries)


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


def test_a_csv_gives_the_task_of_its_folder(tmp_path: Path) -> None:
    photos = write_class_folders(tmp_path / "photos", {"ash": 6, "oak": 6})
    names = sorted(path.relative_to(tmp_path).as_posix() for path in photos.rglob("*.png"))
    (tmp_path / "t.csv").write_text("\n".join(["Filename;Class", *(f"{name};{name.split('/')[1]}" for name in names)]))
    with scan(tmp_path / "t.csv", image_size_px=16) as table, scan(photos, image_size_px=16) as folder:
        assert table.report.kind == "csv" and not table.report.bad
        assert sorted(table.task("t").sha256) == sorted(folder.task("t").sha256)


def test_data_sets_of_hugging_face_are_scanned_with_their_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["oak", "ash"])})
    for split, first in (("train", 0), ("test", 100)):
        images = [{"bytes": encoded(noise(20, 20, seed=first + number)), "path": None} for number in range(10)]
        made = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 5}, features=features)
        made.to_parquet(str(tmp_path / "hub/data" / f"{split}-00000-of-00001.parquet"))
    with scan(tmp_path / "hub", image_size_px=16) as found:
        task = found.task("hub")
    assert task.info.class_names == ("ash", "oak") and task.info.counts["test"] == 10
    assert sorted(np.bincount(task.labels).tolist()) == [10, 10]


def test_our_own_parquet_is_scanned_with_its_splits(tmp_path: Path) -> None:
    task = grating_task(classes=3)
    write_task(task, tmp_path / "task")
    with scan(tmp_path / "task/images.parquet", image_size_px=task.info.image_size_px) as found:
        again = found.task("t")
    assert again.info.class_names == task.info.class_names and not found.report.bad
    assert sum(again.info.counts.values()) + len(found.report.leaks) + len(found.report.copies) == len(task.labels)


def test_absolute_paths_that_lie_beside_the_table_are_taken_and_unused_splits_are_said(tmp_path: Path) -> None:
    photos = write_class_folders(tmp_path / "photos", {"ash": 3, "oak": 3})
    rows = [f"{path},{path.parent.name},holdout" for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    table = list_table(tmp_path / "t.csv")
    assert len(table.entries) == 6 and not table.bad
    assert [number for reason, number in table.skipped.items() if "split that is not used" in reason] == [6]
