"""A user's folder, with what real folders hold."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tans_core.errors import DataError, EmptyClassError, NoClassesError, TooFewImagesError, TooManyBadFilesError
from tans_core.tasks.folder import scan_folder
from tests.factories.images import bomb, encoded, noise, rotated_photo, write_class_folders

SIZE = 16


def test_a_clean_folder_becomes_a_task(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "leaves", {"ash": 20, "oak": 30})
    task, report = scan_folder(root, image_size_px=SIZE)
    assert task.info.name == "leaves" and task.info.role == "user"
    assert task.info.class_names == ("ash", "oak")
    assert task.images.shape == (50, 3, SIZE, SIZE) and task.images.dtype == np.uint8
    assert {split: len(task.split(split)[0]) for split in ("train", "val", "test")} == task.info.counts
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
    task, report = scan_folder(root, image_size_px=SIZE)
    assert task.info.class_names == ("ash", "oak") and report.used == 16
    assert [path for path, _ in report.bad] == ["ash/empty.png", "ash/half.jpg", "oak/bomb.png"]
    assert all(reason for _, reason in report.bad)
    assert report.skipped == {"hidden or system file": 5, "not an image by its name": 1}
    assert "ash/half.jpg" in report.summary() and "hidden" in report.summary()
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
    task, report = scan_folder(root, image_size_px=SIZE)
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
    task, _ = scan_folder(root, image_size_px=SIZE)
    assert task.info.class_names == ("1", "2", "10")
    for path, label in zip(task.paths, task.labels, strict=True):
        assert path.split("/")[0] == task.info.class_names[label]


def test_names_of_any_script_are_one_name_each(tmp_path: Path) -> None:
    accent = unicodedata.normalize("NFD", "é té")
    root = write_class_folders(tmp_path, {accent: 4, 'שלום 🌿 "q"': 4, "x" * 200: 4})
    task, _ = scan_folder(root, image_size_px=SIZE)
    assert "é té" in task.info.class_names
    assert all(unicodedata.is_normalized("NFC", path) for path in task.paths)


def test_copies_are_left_out_and_contradictions_are_listed(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 10, "oak": 10})
    (root / "ash" / "again.png").write_bytes((root / "ash" / "3.png").read_bytes())
    (root / "oak" / "lie.png").write_bytes((root / "ash" / "5.png").read_bytes())
    task, report = scan_folder(root, image_size_px=SIZE)
    assert report.copies == ("ash/again.png",)
    assert report.contradictions == (("ash/5.png", "oak/lie.png"),)
    assert len(set(task.sha256)) == len(task.sha256) == 19
    assert "two labels" in report.summary()


def test_given_splits_are_kept_and_leaks_leave_train(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", {"ash": 20, "oak": 20}, seed=1)
    write_class_folders(tmp_path / "test", {"ash": 6, "oak": 6}, seed=2)
    (tmp_path / "train" / "ash" / "leak.png").write_bytes((tmp_path / "test" / "ash" / "0.png").read_bytes())
    task, report = scan_folder(tmp_path, image_size_px=SIZE)
    by_path = dict(zip(task.paths, task.splits.tolist(), strict=True))
    assert {path for path, split in by_path.items() if split == "test"} == {
        path for path in by_path if path.startswith("test/")
    }
    assert task.info.counts["test"] == 12 and task.info.counts["val"] > 0
    assert report.copies == ("train/ash/leak.png",)


def test_links_give_no_second_sample_and_never_lead_outside(tmp_path: Path) -> None:
    outside = write_class_folders(tmp_path / "outside", {"secret": 3}, seed=9)
    root = write_class_folders(tmp_path / "root", {"ash": 5, "oak": 5})
    (root / "ash" / "parent").symlink_to(root)
    (root / "ash" / "twin.png").symlink_to(root / "ash" / "0.png")
    os.link(root / "oak" / "1.png", root / "oak" / "hard.png")
    (root / "oak" / "out.png").symlink_to(outside / "secret" / "0.png")
    (root / "oak" / "gone.png").symlink_to(root / "nowhere.png")
    task, report = scan_folder(root, image_size_px=SIZE)
    assert len(task.labels) == 10
    assert report.skipped["link that leads outside"] == 1 and report.skipped["broken link"] == 1


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 5, "oak": 5, "elm": 0, "yew": 0})
    (root / "yew" / "bad.png").write_bytes(b"x")
    with pytest.raises(EmptyClassError, match=r"1 of 4 .*'elm'"):
        scan_folder(root, image_size_px=SIZE)
    (root / "elm").rmdir()
    with pytest.raises(EmptyClassError, match=r"(?s)'yew' .*--drop-empty-classes"):
        scan_folder(root, image_size_px=SIZE)
    task, _ = scan_folder(root, image_size_px=SIZE, drop_empty_classes=True)
    assert task.info.class_names == ("ash", "oak")


def test_a_class_of_one_image_goes_to_train_with_a_warning(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 12, "oak": 12, "rare": 1})
    with pytest.raises(TooFewImagesError, match=r"'rare' \(1\)"):
        scan_folder(root, image_size_px=SIZE)
    task, report = scan_folder(root, image_size_px=SIZE, min_images_per_class=1)
    assert task.splits[list(task.paths).index("rare/0.png")] == "train"
    assert any("'rare'" in warning for warning in report.warnings)


@pytest.mark.parametrize(("classes", "message"), [({}, "no class folders"), ({"only": 5}, "only one class, 'only'")])
def test_folders_without_classes_are_refused(tmp_path: Path, classes: dict[str, int], message: str) -> None:
    write_class_folders(tmp_path, classes)
    with pytest.raises(NoClassesError, match=message):
        scan_folder(tmp_path, image_size_px=SIZE)


def test_a_flat_folder_a_file_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(encoded(noise()))
    with pytest.raises(NoClassesError, match="1 files lie in it directly"):
        scan_folder(tmp_path, image_size_px=SIZE)
    with pytest.raises(DataError, match="no such folder"):
        scan_folder(tmp_path / "gone", image_size_px=SIZE)
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="Unpack"):
        scan_folder(tmp_path / "photos.zip", image_size_px=SIZE)


def test_too_large_a_share_of_bad_files_fails_with_examples(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 4, "oak": 4})
    for number in range(6):
        (root / "ash" / f"bad{number}.jpg").write_bytes(b"not one")
    scan_folder(root, image_size_px=SIZE)
    with pytest.raises(TooManyBadFilesError, match=r"6 of 14 .*ash/bad0.jpg"):
        scan_folder(root, image_size_px=SIZE, max_bad_share=0.4)


def test_workers_change_nothing(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 25, "oak": 25})
    (root / "oak" / "bad.png").write_bytes(b"bad")
    (alone, one), (together, two) = (
        scan_folder(root, image_size_px=SIZE, workers=workers, seed=4) for workers in (0, 2)
    )
    assert one == two
    np.testing.assert_array_equal(alone.images, together.images)
    np.testing.assert_array_equal(alone.splits, together.splits)
    assert alone.paths == together.paths and alone.info == together.info


def test_a_sample_is_even_over_classes(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 40, "oak": 12})
    task, report = scan_folder(root, image_size_px=SIZE, max_images=20)
    assert report.files == 20 and report.not_sampled == 32
    assert np.bincount(task.labels).tolist() == [10, 10]


def test_rows_are_shuffled(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 30, "oak": 30})
    task, _ = scan_folder(root, image_size_px=SIZE)
    assert len(set(task.labels[:15].tolist())) == 2
