"""The kind of an input is decided by its content, not by its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tans_core.errors import DataError
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.inputs.table import is_table
from tests.factories.archives import CLASSES, PER_CLASS, good_members, write_tar, write_zip


def folder(path: Path, prefix: str = "") -> Path:
    for name, data in good_members(prefix).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def parquet(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    members = good_members()
    pq.write_table(pa.table({"image": list(members.values()), "label": [n.split("/")[0] for n in members]}), path)
    return path


def csv(path: Path) -> Path:
    folder(path.parent)
    path.write_text("path,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in good_members()))
    return path


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda f: folder(f / "photos.zip"), "folder"),
        (lambda f: write_zip(f / "photos.tar.gz", good_members()), "zip"),
        (lambda f: write_zip(f / "photos", good_members()), "zip"),
        (lambda f: write_tar(f / "photos.zip", good_members()), "tar"),
        (lambda f: write_tar(f / "photos.parquet", good_members(), "w:gz"), "tar"),
        (lambda f: write_tar(f / "photos.csv", good_members(), "w:bz2"), "tar"),
        (lambda f: write_tar(f / "photos", good_members(), "w:xz"), "tar"),
        (lambda f: parquet(f / "photos.zip"), "parquet"),
        (lambda f: parquet(f / "photos"), "parquet"),
        (lambda f: parquet(f / "hub/data/train-00000-of-00001.parquet").parent.parent, "parquet"),
        (lambda f: csv(f / "table.csv"), "csv"),
        (lambda f: csv(f / "table.TSV"), "csv"),
        (lambda f: csv(f / "labels.txt"), "csv"),
        (lambda f: csv(f / "labels"), "csv"),
    ],
)
def test_an_input_is_what_it_holds(make: Callable[[Path], Path], kind: str, tmp_path: Path) -> None:
    listed = open_input(make(tmp_path))
    assert listed.kind == kind and listed.class_names == CLASSES
    assert len(listed.entries) == 2 * PER_CLASS and not listed.bad


@pytest.mark.parametrize("header", ["\ufeffPath,Label", '"path";"split";"label"', "file\tclass", "image|y\r"])
def test_a_first_line_that_names_paths_and_labels_makes_a_table_of_any_name(header: str, tmp_path: Path) -> None:
    for name in ("labels", "labels.txt", "labels.dat"):
        (tmp_path / name).write_text(f"{header}\nno.png,a\n", encoding="utf-8")
        assert is_table(tmp_path / name)


@pytest.mark.parametrize("text", ["", "path label\n", "path,kind\n", "\npath,label\n", "path,label\0\n", "x" * 70_000])
def test_a_text_without_such_a_line_is_told_what_a_table_is(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(
        DataError, match=r"(?s)neither .*names of its columns, such as path,label. Rename it to .csv, .tsv or .tab"
    ):
        open_input(tmp_path / "labels.txt")


def test_a_folder_of_class_folders_that_also_holds_parquet_is_a_folder(tmp_path: Path) -> None:
    parquet(folder(tmp_path / "photos") / "table.parquet")
    assert open_input(tmp_path / "photos").kind == "folder"


def test_an_archive_lists_what_the_unpacked_folder_lists(tmp_path: Path) -> None:
    members = {
        **good_members("data/train/"),
        **{f"data/val/{name}": data for name, data in good_members().items()},
        "data/train/ash/notes.txt": b"x",
        "data/train/ash/deep/er.png": b"x",
        "data/.DS_Store": b"x",
        "data/train/oak/Thumbs.db": b"x",
    }
    path = write_zip(tmp_path / "a.zip", members)
    shutil.unpack_archive(path, tmp_path / "out")
    packed, plain = open_input(path), open_input(tmp_path / "out/data")
    assert [(e.name, e.label, e.split) for e in packed.entries] == [(e.name, e.label, e.split) for e in plain.entries]
    assert packed.skipped == plain.skipped


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither an archive"),
        (b"hello\n" * 100, "neither an archive"),
        (b"(\xb5/\xfd" + bytes(99), "zstd archive"),
    ],
)
def test_what_is_no_input_is_said_so(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(data)
    with pytest.raises(DataError, match=words):
        open_input(tmp_path / "file.bin")
    with pytest.raises(DataError, match="no such file or folder"):
        open_input(tmp_path / "gone")
