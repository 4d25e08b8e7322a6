"""Tables of images: CSV of paths, Parquet of bytes, and what Hugging Face `datasets` writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tans_core.errors import DataError, NoClassesError
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.scan import scan
from tans_core.tasks.task import Task, write_task
from tests.factories.archives import CLASSES, PER_CLASS, good_members
from tests.factories.images import encoded, noise, write_class_folders
from tests.factories.tasks import grating_task


def task_of(path: Path) -> Task:
    with scan(path, image_size_px=16) as found:
        assert not found.report.bad
        return found.task("t")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "photos", {"ash": 6, "oak": 6})


def write_csv(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def all_rows(photos: Path, separator: str = ",", prefix: str = "photos/") -> list[str]:
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    return [f"{prefix}{name}{separator}{name.split('/')[0]}" for name in names]


@pytest.mark.parametrize(
    ("header", "separator"), [("path,label", ","), ("Filename;Class", ";"), ("image\ttarget", "\t")]
)
def test_a_csv_of_paths_and_labels_gives_the_task_of_the_folder(header: str, separator: str, photos: Path) -> None:
    path = write_csv(photos.parent / "table.csv", ["\ufeff" + header, *all_rows(photos, separator)])
    listed = open_input(path)
    assert listed.kind == "csv" and listed.class_names == CLASSES
    assert sorted(task_of(path).sha256) == sorted(task_of(photos).sha256)


def test_splits_of_a_csv_are_kept(photos: Path) -> None:
    rows = [f"{row},{'Training' if index % 3 else 'TEST'}" for index, row in enumerate(all_rows(photos))]
    task = task_of(write_csv(photos.parent / "table.csv", ["path,label,split", *rows]))
    assert task.info.counts["test"] == 4


def test_rows_that_cannot_be_used_are_listed(photos: Path) -> None:
    outside = write_class_folders(photos.parent.parent / "outside", {"ash": 1}) / "ash/0.png"
    (photos / "ash/link.png").symlink_to(outside)
    odd = {
        "../outside/ash/0.png,ash": "outside the table's folder",
        f"{outside},ash": "outside the table's folder",
        "photos/ash/link.png,ash": "outside the table's folder",
        "photos/ash/gone.png,ash": "No such file",
        ",ash": "no path",
        "photos,ash": "no plain file",
        "photos/ash/1.png,": "no label",
        "photos/ash/0.png,oak": "two labels: ash, oak",
    }
    rows = [row for row in all_rows(photos) if "link" not in row and "ash/1.png" not in row]
    listed = open_input(write_csv(photos.parent / "t.csv", ["path,label", *rows, rows[3], *odd]))
    reasons = [reason for _, reason in listed.bad]
    assert len(reasons) == len(odd)
    for reason, wanted in zip(reasons, odd.values(), strict=True):
        assert wanted in reason
    assert listed.skipped["row that is there twice"] == 1
    assert all(entry.name != "photos/ash/0.png" for entry in listed.entries)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", r"no column of paths; it has a, b"),
        ("path,b\n1,2\n", r"no column of labels"),
        ("", "no CSV that can be read"),
        ('path,label\n"a,b\n', "no CSV that can be read|only one class|no class"),
    ],
)
def test_a_csv_without_what_is_needed_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        open_input(tmp_path / "t.csv")
    (tmp_path / "latin.csv").write_bytes(b"path,label\ncaf\xe9.png,a\n")
    with pytest.raises(DataError, match="UTF-8"):
        open_input(tmp_path / "latin.csv")


def write_parquet(path: Path, image: str = "image", **columns: list[Any]) -> Path:
    members = good_members()
    table = {image: list(members.values()), "label": [name.split("/")[0] for name in members], **columns}
    pq.write_table(pa.table(table), path, row_group_size=5)
    return path


def test_parquet_of_bytes_is_read_in_parts_forwards_and_again(tmp_path: Path) -> None:
    listed = open_input(write_parquet(tmp_path / "a.parquet"))
    assert listed.kind == "parquet" and len(listed.entries) == 2 * PER_CLASS
    contents = list(good_members().values())
    some = [listed.entries[index] for index in (0, 3, 7, 11)]
    assert list(listed.read(some)) == [contents[index] for index in (0, 3, 7, 11)]
    assert list(listed.read(some[:2])) == [contents[0], contents[3]]
    assert task_of(tmp_path / "a.parquet").info.class_names == CLASSES


def test_our_own_parquet_is_read_with_its_splits(tmp_path: Path) -> None:
    task = grating_task(classes=3)
    write_task(task, tmp_path / "task")
    shutil.move(tmp_path / "task/images.parquet", tmp_path / "images.parquet")
    with scan(tmp_path / "images.parquet", image_size_px=task.info.image_size_px) as found:
        again = found.task("t")
    assert again.info.class_names == task.info.class_names
    assert sum(again.info.counts.values()) + len(found.report.leaks) + len(found.report.copies) == len(task.labels)


def test_data_sets_of_hugging_face_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["oak", "ash"])})
    for split, first in (("train", 0), ("test", 100)):
        images = [{"bytes": encoded(noise(20, 20, seed=first + number)), "path": None} for number in range(10)]
        made = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 5}, features=features)
        made.to_parquet(str(tmp_path / "hub/data" / f"{split}-00000-of-00001.parquet"))
    listed = open_input(tmp_path / "hub")
    assert listed.kind == "parquet" and {entry.split for entry in listed.entries} == {"train", "test"}
    task = task_of(tmp_path / "hub")
    assert task.info.class_names == ("ash", "oak") and task.info.counts["test"] == 10
    labels = [task.info.class_names[label] for label in task.labels]
    assert labels.count("ash") == labels.count("oak") == 10


def test_parquet_that_names_files_takes_them_from_its_own_folder_alone(photos: Path) -> None:
    names = [row.split(",")[0] for row in all_rows(photos)] + ["../../etc/passwd"]
    labels = [name.split("/")[1] for name in names[:-1]] + ["ash"]
    pq.write_table(pa.table({"path": names, "label": labels}), photos.parent / "t.parquet")
    listed = open_input(photos.parent / "t.parquet")
    assert len(listed.entries) == 12 and "outside" in listed.bad[0][1]
    cells = [{"bytes": None, "path": name} for name in names]
    pq.write_table(pa.table({"image": cells, "label": labels}), photos.parent / "u.parquet")
    listed = open_input(photos.parent / "u.parquet")
    *contents, last = listed.read(listed.entries)
    assert contents[0] == (photos / "ash/0.png").read_bytes() and "outside" in str(last)


def test_broken_and_unfit_parquet_is_refused(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no Parquet that can be read"):
        open_input(tmp_path / "cut.parquet")
    pq.write_table(pa.table({"x": [1, 2], "label": ["a", "b"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no column of images; it has x, label"):
        open_input(tmp_path / "b.parquet")
    with pytest.raises(NoClassesError):
        open_input(write_parquet(tmp_path / "c.parquet", label=["a"] * 12))
