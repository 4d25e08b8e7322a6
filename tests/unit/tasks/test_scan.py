"""A user's folder with the content of real folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tans_core.classes import require_classes
from tans_core.errors import DataError, EmptyClassError, NoClassesError, TooFewImagesError
from tans_core.tasks.inputs.base import LEADS_OUTSIDE
from tans_core.tasks.reading import OnDisk, read_chunk
from tans_core.tasks.report import ScanReport
from tans_core.tasks.scan import scan
from tans_core.tasks.task import Task
from tans_core.tasks.workers import CRASHED, Job, decode_all
from tans_core.views.summary import summary
from tests.factories.images import bomb, encoded, equal_images, noise, rotated_photo, write_class_folders

SIZE = 16


def scan_folder(root: Path, min_images_per_class: int = 2, **arguments: Any) -> tuple[Task, ScanReport]:
    with scan(root, stored_size_px=SIZE, **arguments) as found:
        require_classes("x", found.report.classes, min_images_per_class, found.report.found)
        return found.task(root.name), found.report


def test_a_clean_folder_becomes_a_task(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "leaves", {"ash": 20, "oak": 30})
    task, report = scan_folder(root)
    assert task.info.name == "leaves" and task.info.role == "user"
    assert task.info.class_names == ("ash", "oak")
    assert task.images.sides.tolist() == [SIZE] * 50 and task.images[0].dtype == np.uint8
    assert {split: len(task.where(split)) for split in ("train", "val", "test")} == task.info.counts
    assert sum(task.info.counts.values()) == 50
    assert report.used == report.files == 50 and report.classes == {"ash": 20, "oak": 30}
    assert report.formats == {"PNG": 50} and not report.bad


def test_truncated_hidden_and_foreign_files_are_passed_over_and_said(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 8, "oak": 8})
    whole = encoded(noise(100, 100), "JPEG")
    (root / "ash" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "ash" / "empty.png").write_bytes(b"")
    (root / "oak" / "bomb.png").write_bytes(bomb())
    (root / "oak" / "._0.png").write_bytes(b"AppleDouble")
    (root / "oak" / ".DS_Store").write_bytes(b"store")
    (root / "oak" / "Thumbs.db").write_bytes(b"thumbs")
    (root / "oak" / "notes.txt").write_text("who took what")
    for hidden in (".ipynb_checkpoints", "__MACOSX"):
        write_class_folders(root, {hidden: 2})
    task, report = scan_folder(root)
    assert task.info.class_names == ("ash", "oak") and report.used == 16
    assert [path for path, _ in report.bad] == ["ash/empty.png", "ash/half.jpg", "oak/bomb.png"]
    assert all(reason for _, reason in report.bad)
    assert report.skipped == {"hidden or system file": 5, "not an image by its name": 1}
    assert "ash/half.jpg" in summary(report) and "hidden" in summary(report)
    assert json.loads(json.dumps(report.to_dict()))["used"] == 16


def test_every_kind_of_image_is_taken(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"plain": 6, "odd": 4})
    alpha = np.dstack([noise(20, 20), np.zeros((20, 20), np.uint8)])
    files = {
        "rotated.JPG": rotated_photo(),
        "alpha.png": encoded(alpha),
        "deep.tif": encoded((noise(20, 20)[:, :, 0].astype(np.uint16) * 257), "TIFF"),
        "grey.Jpeg": encoded(noise(20, 20)[:, :, 0], "JPEG"),
        "web.webp": encoded(noise(20, 20, seed=1), "WEBP"),
        "no extension": encoded(noise(20, 20, seed=2)),
        "really a gif.jpg": encoded(noise(20, 20, seed=3), "GIF"),
    }
    for name, data in files.items():
        (root / "odd" / name).write_bytes(data)
    task, report = scan_folder(root)
    assert not report.bad and report.classes == {"odd": 11, "plain": 6}
    assert report.formats == {"GIF": 1, "JPEG": 2, "PNG": 12, "TIFF": 1, "WEBP": 1}
    images = dict(zip(task.paths, task.images, strict=True))
    assert images["odd/alpha.png"].min() == 255
    deep = images["odd/deep.tif"]
    assert deep.max() > deep.min() and (deep == 255).mean() < 0.5
    sizes = dict(zip(task.paths, task.sizes.tolist(), strict=True))
    assert sizes["odd/rotated.JPG"] == [20, 40]


def test_classes_are_in_natural_order_and_labels_follow_names(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"10": 4, "2": 4, "1": 4})
    task, _ = scan_folder(root)
    assert task.info.class_names == ("1", "2", "10")
    for path, label in zip(task.paths, task.labels, strict=True):
        assert path.split("/")[0] == task.info.class_names[label]


def test_names_of_any_script_are_one_name_each(tmp_path: Path) -> None:
    accent = unicodedata.normalize("NFD", "é té")
    root = write_class_folders(tmp_path, {accent: 4, 'שלום 🌿 "q"': 4, "x" * 200: 4})
    task, _ = scan_folder(root)
    assert "é té" in task.info.class_names
    assert all(unicodedata.is_normalized("NFC", path) for path in task.paths)


def test_copies_are_left_out_and_contradictions_are_listed(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 10, "oak": 10})
    (root / "ash" / "again.png").write_bytes((root / "ash" / "3.png").read_bytes())
    (root / "oak" / "lie.png").write_bytes((root / "ash" / "5.png").read_bytes())
    task, report = scan_folder(root)
    assert report.copies == ("ash/again.png",)
    assert report.contradictions == (("ash/5.png", "oak/lie.png"),)
    assert len(set(task.sha256)) == len(task.sha256) == 19
    assert "two labels" in summary(report)


def test_given_splits_are_kept_and_leaks_leave_train(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", {"ash": 20, "oak": 20}, seed=1)
    write_class_folders(tmp_path / "test", {"ash": 6, "oak": 6}, seed=2)
    (tmp_path / "train" / "ash" / "leak.png").write_bytes((tmp_path / "test" / "ash" / "0.png").read_bytes())
    task, report = scan_folder(tmp_path)
    by_path = dict(zip(task.paths, task.splits.tolist(), strict=True))
    assert {path for path, split in by_path.items() if split == "test"} == {
        path for path in by_path if path.startswith("test/")
    }
    assert task.info.counts["test"] == 12 and task.info.counts["val"] > 0
    assert report.leaks == (("train/ash/leak.png", "test/ash/0.png"),) and not report.copies


def test_links_give_no_second_sample_and_never_lead_outside(tmp_path: Path) -> None:
    outside = write_class_folders(tmp_path / "outside", {"secret": 3}, seed=9)
    root = write_class_folders(tmp_path / "root", {"ash": 5, "oak": 5})
    (root / "ash" / "parent").symlink_to(root)
    (root / "ash" / "twin.png").symlink_to(root / "ash" / "0.png")
    os.link(root / "oak" / "1.png", root / "oak" / "hard.png")
    (root / "oak" / "out.png").symlink_to(outside / "secret" / "0.png")
    (root / "oak" / "gone.png").symlink_to(root / "nowhere.png")
    task, report = scan_folder(root)
    assert len(task.labels) == 10
    assert report.skipped[LEADS_OUTSIDE] == 1 and report.skipped["broken link"] == 1


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 5, "oak": 5, "elm": 0, "yew": 0})
    (root / "yew" / "bad.png").write_bytes(b"x")
    with pytest.raises(EmptyClassError, match=r"1 of 4 .*'elm'"):
        scan_folder(root)
    (root / "elm").rmdir()
    with pytest.raises(EmptyClassError, match=r"(?s)'yew' .*--drop-empty-classes"):
        scan_folder(root)
    task, _ = scan_folder(root, drop_empty_classes=True)
    assert task.info.class_names == ("ash", "oak")


def test_a_class_of_one_image_goes_to_train(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 12, "oak": 12, "rare": 1})
    with pytest.raises(TooFewImagesError, match=r"'rare' \(1\)"):
        scan_folder(root)
    task, _ = scan_folder(root, min_images_per_class=1)
    assert task.splits[list(task.paths).index("rare/0.png")] == "train"


@pytest.mark.parametrize("splits", [(), ("train", "test"), ("train", "val"), ("training", "dev", "testing")])
def test_the_report_plans_the_splits_of_the_task(tmp_path: Path, splits: tuple[str, ...]) -> None:
    for seed, split in enumerate(splits or (".",)):
        write_class_folders(tmp_path / split, {"ash": 9, "elm": 2, "oak": 3}, seed=seed)
    task, report = scan_folder(tmp_path)
    found = {split: dict.fromkeys(task.info.class_names, 0) for split in report.planned}
    for split, label in zip(task.splits.tolist(), task.labels.tolist(), strict=True):
        found[split][task.info.class_names[label]] += 1
    assert report.planned == found


@pytest.mark.parametrize(("classes", "message"), [({}, "no class folders"), ({"only": 5}, "only one class, 'only'")])
def test_folders_without_classes_are_refused(tmp_path: Path, classes: dict[str, int], message: str) -> None:
    write_class_folders(tmp_path, classes)
    with pytest.raises(NoClassesError, match=message):
        scan_folder(tmp_path)


def test_a_flat_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(encoded(noise()))
    with pytest.raises(NoClassesError, match="only 1 file outside"):
        scan_folder(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        scan_folder(tmp_path / "gone")


def test_workers_change_nothing(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 25, "oak": 25})
    (root / "oak" / "bad.png").write_bytes(b"bad")
    (alone, one), (together, two) = (scan_folder(root, workers=workers, seed=4) for workers in (0, 2))
    assert replace(one, seconds=0) == replace(two, seconds=0)
    assert equal_images(alone.images, together.images)
    np.testing.assert_array_equal(alone.splits, together.splits)
    assert alone.paths == together.paths and alone.info == together.info


def test_a_sample_is_even_over_classes(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 40, "oak": 12})
    task, report = scan_folder(root, max_images=20)
    assert report.files == 20 and report.not_sampled == 32
    assert np.bincount(task.labels).tolist() == [10, 10]


def test_rows_are_shuffled(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 30, "oak": 30})
    task, _ = scan_folder(root)
    assert len(set(task.labels[:15].tolist())) == 2


def test_near_copies_stay_in_one_split_and_digits_are_not_called_so(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 1, "oak": 12})
    photo = Image.fromarray(noise(12, 12, seed=5)).resize((96, 96), Image.Resampling.BICUBIC)
    for number in range(12):
        picture = Image.fromarray(noise(12, 12, seed=50 + number)).resize((96, 96), Image.Resampling.BICUBIC)
        picture.save(root / "ash" / f"other{number}.png")
    photo.save(root / "ash" / "a.png")
    photo.save(root / "ash" / "b.jpg", quality=40)
    photo.resize((64, 64)).save(root / "ash" / "c.webp")
    task, report = scan_folder(root)
    assert report.near_copies == (("ash/a.png", "ash/b.jpg", "ash/c.webp"),)
    splits = dict(zip(task.paths, task.splits.tolist(), strict=True))
    assert len({splits[path] for path in report.near_copies[0]}) == 1
    assert "near-copies" in summary(report)


def test_a_near_copy_of_a_test_image_leaves_train(tmp_path: Path) -> None:
    for split, seed in (("train", 1), ("test", 2)):
        write_class_folders(tmp_path / split, {"ash": 12, "oak": 12}, seed=seed)
    photo = Image.fromarray(noise(12, 12, seed=5)).resize((96, 96), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "test" / "ash" / "photo.png")
    photo.save(tmp_path / "train" / "ash" / "photo.jpg", quality=50)
    task, report = scan_folder(tmp_path)
    assert report.leaks == (("train/ash/photo.jpg", "test/ash/photo.png"),)
    assert "train/ash/photo.jpg" not in task.paths and "test/ash/photo.png" in task.paths
    assert report.splits["test"] == {"ash": 13, "oak": 12}


def test_labels_follow_names_when_test_lacks_a_class(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", {"a": 6, "b": 6, "c": 6}, seed=1)
    write_class_folders(tmp_path / "test", {"a": 3, "c": 3}, seed=2)
    task, _ = scan_folder(tmp_path)
    assert task.info.class_names == ("a", "b", "c")
    labels = {path: int(label) for path, label in zip(task.paths, task.labels, strict=True)}
    assert all(labels[path] == "abc".index(path.split("/")[1]) for path in labels)


def test_long_images_are_cut_not_blown_up(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 6, "oak": 6})
    for name, size in (("wide.png", (2000, 1)), ("tall.png", (1, 2000))):
        Image.new("RGB", size, (9, 200, 9)).save(root / "ash" / name)
    task, report = scan_folder(root)
    assert report.elongated == 2 and not report.bad
    assert [task.images[task.paths.index(f"ash/{name}.png")].shape for name in ("wide", "tall")] == [(3, 3, 3)] * 2


def test_many_files_are_decoded_in_processes_to_the_same_result(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 520, "oak": 520}, side=8)
    write_class_folders(tmp_path, {"yew": 20}, side=40)
    (alone, one), (together, two) = (scan_folder(root, workers=workers) for workers in (0, 2))
    assert replace(one, seconds=0) == replace(two, seconds=0)
    assert equal_images(alone.images, together.images)


def test_a_file_that_ends_its_decoder_is_found_and_left_out() -> None:
    bad = _Fatal(b"x")
    contents = [encoded(noise(seed=1)), encoded(noise(seed=2)), bad, encoded(noise(seed=3))]
    results = list(decode_all([Job(0, True, contents)], SIZE, workers=2, processes=True))
    assert results[0][1]["reason"].to_pylist() == [None, None, CRASHED, None]


class _Fatal(bytes):
    """Bytes that end the process that they arrive in, as a fault in a decoder does."""

    def __reduce__(self) -> Any:
        return os._exit, (11,)


def test_names_that_count_as_equal_keep_one_order_in_every_process(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"1": 4, "01": 4, "001": 4, "2": 4})
    code = "from pathlib import Path; from tans_core.tasks.inputs.open import open_input; "
    code += f"print(open_input(Path({str(tmp_path)!r})).class_names)"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert seen == {"('001', '01', '1', '2')\n"}


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert read_chunk([OnDisk(str(tmp_path / "pipe.png"))], SIZE)["reason"].to_pylist() == ["no longer a plain file"]


def test_a_path_that_is_no_text_is_scanned(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_class_folders(root, {"ash": 6, "oak": 6})
    _, report = scan_folder(root)
    assert json.dumps(report.to_dict(), ensure_ascii=False).encode() and report.path.endswith("caf\\xe9")


@pytest.mark.parametrize("packed", [False, True])
def test_what_lies_beside_the_splits_is_no_class(packed: bool, tmp_path: Path) -> None:
    for split, count, seed in (("train", 8, 1), ("test", 4, 2)):
        write_class_folders(tmp_path / "x" / split, {"ash": count, "oak": count}, seed=seed)
    write_class_folders(tmp_path / "x", {"docs": 3}, seed=3)
    path = Path(shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "x")) if packed else tmp_path / "x"
    task, report = scan_folder(path)
    assert task.info.class_names == ("ash", "oak") and task.info.counts["test"] == 8
    assert report.skipped == {"folder beside those of the splits": 1}


def test_a_folder_around_the_classes_is_named_as_the_one_to_scan(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", {"ash": 3, "oak": 3})
    with pytest.raises(NoClassesError, match=f"give {tmp_path / 'photos'}"):
        scan_folder(tmp_path)
