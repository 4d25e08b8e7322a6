"""Tables of paths and labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tans_core.errors import DataError, EmptyClassError, NoClassesError
from tans_core.tasks.inputs.rows import NO_FILE
from tans_core.tasks.inputs.table import list_table
from tans_core.tasks.scan import scan
from tests.factories.images import write_class_folders
from tests.factories.tables import decoded, facts, picture, write_csv

SPLIT_ROWS = "path,label,split\ni/0.png,a,train\ni/2.png,b,train\ni/3.png,b,test\n"


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
        ("i/9.png", NO_FILE),
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
        ("labels.csv#4: i/9.png", NO_FILE),
        ("labels.csv#5", "no path"),
        ("labels.csv#8: i/0.png", "no label"),
        ("labels.csv#9: i/9.png", NO_FILE),
    ]


def test_names_with_blanks_at_their_ends_and_strokes_inside_are_found(tmp_path: Path) -> None:
    names = [" first.png", "last.png ", "in\\side.png", "i/0.png"]
    path = write_csv(tmp_path, "path,label\n" + "".join(f'"{name}",{n % 2}\n' for n, name in enumerate(names)))
    for number, name in enumerate(names[:3]):
        (tmp_path / name).write_bytes(picture(number))
    table = list_table(path)
    assert len(table.entries) == 4 and not table.bad
    assert len({entry.path for entry in table.entries}) == 4


def test_two_labels_of_a_path_are_seen_in_a_sample_too(tmp_path: Path) -> None:
    rows = [f"i/{n}.png,{'ab'[n % 2]}" for n in range(30)] + [f"i/{n}.png,c" for n in range(10)]
    path = write_csv(tmp_path, "\n".join(["path,label", *rows]), images=30)
    with scan(path, stored_size_px=8, max_images=12) as found:
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
        ("path,label\nno.png,a\n", f"none of its 1 rows can be used. no.png: {NO_FILE}. Paths start from /"),
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


def test_a_csv_gives_the_task_of_its_folder(tmp_path: Path) -> None:
    photos = write_class_folders(tmp_path / "photos", {"ash": 6, "oak": 6})
    names = sorted(path.relative_to(tmp_path).as_posix() for path in photos.rglob("*.png"))
    (tmp_path / "t.csv").write_text("\n".join(["Filename;Class", *(f"{name};{name.split('/')[1]}" for name in names)]))
    with scan(tmp_path / "t.csv", stored_size_px=16) as table, scan(photos, stored_size_px=16) as folder:
        assert table.report.kind == "csv" and not table.report.bad
        assert sorted(table.task("t").sha256) == sorted(folder.task("t").sha256)


def test_absolute_paths_that_lie_beside_the_table_are_taken_and_unused_splits_are_said(tmp_path: Path) -> None:
    photos = write_class_folders(tmp_path / "photos", {"ash": 3, "oak": 3})
    rows = [f"{path},{path.parent.name},holdout" for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    table = list_table(tmp_path / "t.csv")
    assert len(table.entries) == 6 and not table.bad
    assert [number for reason, number in table.skipped.items() if "split that is not used" in reason] == [6]
