"""Hostile rows about labels and splits: copies, contradictions, leaks, and folders with names of splits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from tans_core.errors import (
    GateError,
    NoClassesError,
)
from tests.factories.hostile_row import Found, HostileRow, just, write_files
from tests.factories.images import (
    encoded,
    encoded_image,
    noise,
    write_class_folders,
)


def _train_without(root: Path, missing: str) -> None:
    """Train and test folders; one of them lacks class elm."""
    for seed, split in enumerate(("train", "test"), 7):
        classes = {name: 12 for name in ("ash", "elm", "oak") if (split, name) != (missing, "elm")}
        write_class_folders(root / split, classes, seed=seed)


def _check_test_lacks(found: Found) -> None:
    assert found.task.info.class_names == ("ash", "elm", "oak")
    assert all(found.label(path) == path.split("/")[1] for path in found.task.paths)
    assert found.report.splits["test"] == {"ash": 12, "elm": 0, "oak": 12}
    assert any("no test image" in warning and "'elm'" in warning for warning in found.warnings)


def _leaking(root: Path) -> None:
    write_class_folders(root / "train", {"ash": 20, "oak": 20}, seed=11)
    write_class_folders(root / "test", {"ash": 10, "oak": 10}, seed=12)
    write_files(root / "train/ash", {"leak.png": (root / "test/ash/3.png").read_bytes()})
    # Blank, and identical.
    blank = Image.new("RGB", (20, 20), (3, 3, 3))
    write_files(root / "test/ash", {"blank.png": encoded_image(blank)})
    write_files(root / "train/ash", {"blank.bmp": encoded_image(blank, "BMP")})
    # A near-copy of a test image, with another label.
    photo = Image.fromarray(noise(12, 12, seed=306)).resize((96, 96), Image.Resampling.BICUBIC)
    write_files(root / "test/ash", {"photo.png": encoded_image(photo)})
    write_files(root / "train/oak", {"photo.jpg": encoded_image(photo, "JPEG", quality=90)})
    os.link(root / "test/oak/4.png", root / "train/oak/linked.png")


def _check_leaking(found: Found) -> None:
    assert set(found.report.leaks) == {
        ("train/ash/leak.png", "test/ash/3.png"),
        ("train/oak/linked.png", "test/oak/4.png"),
        ("train/ash/blank.bmp", "test/ash/blank.png"),
        ("train/oak/photo.jpg", "test/ash/photo.png"),
    }
    assert len(found.report.doubtful) == 1 and any("look the same under two labels" in one for one in found.warnings)
    splits = dict(zip(found.task.paths, found.task.splits.tolist(), strict=True))
    assert splits["test/ash/3.png"] == splits["test/oak/4.png"] == "test"
    assert {"train/ash/leak.png", "train/oak/linked.png"}.isdisjoint(splits)


def _all_leaks(root: Path) -> None:
    for split in ("train", "test"):
        write_class_folders(root / split, {"ash": 12, "oak": 12}, seed=13)
    write_class_folders(root / "train", {"ash": 24, "oak": 24}, seed=13)


def _two_labels(root: Path) -> None:
    same = encoded(noise(seed=300))
    write_files(root / "ash", {"contradiction.png": same, "copy 1.png": encoded(noise(seed=301))})
    write_files(root / "oak", {"contradiction.png": same, "linked.png": encoded(noise(seed=302))})
    write_files(root / "ash", {"copy 2.png": (root / "ash/copy 1.png").read_bytes()})
    # As programs that save space do with copies.
    os.link(root / "oak/linked.png", root / "elm/linked.png")


def _check_two_labels(found: Found) -> None:
    pairs = {("ash/contradiction.png", "oak/contradiction.png"), ("elm/linked.png", "oak/linked.png")}
    assert pairs <= set(found.report.contradictions)
    assert not {name for pair in pairs for name in pair} & set(found.task.paths)
    assert "ash/copy 2.png" in found.report.copies and "ash/copy 1.png" in found.task.paths


def _same_pixels(root: Path) -> None:
    picture = noise(seed=303)
    write_files(root / "ash", {"picture.png": encoded(picture), "picture.tif": encoded(picture, "TIFF")})
    write_files(root / "elm", {"picture.bmp": encoded(picture, "BMP"), "picture again.bmp": encoded(picture, "BMP")})
    write_files(root / "oak", {"picture.png": encoded(picture)})


def _check_same_pixels(found: Found) -> None:
    names = {"ash/picture.png", "ash/picture.tif", "elm/picture.bmp", "elm/picture again.bmp", "oak/picture.png"}
    assert names <= {name for pair in found.report.contradictions for name in pair}
    assert all(one.split("/")[0] != other.split("/")[0] for one, other in found.report.contradictions)
    assert not names & set(found.task.paths)


def _looks_the_same(root: Path) -> None:
    photo = Image.fromarray(noise(12, 12, seed=304)).resize((96, 96), Image.Resampling.BICUBIC)
    write_files(root / "ash", {"photo.png": encoded_image(photo)})
    write_files(root / "elm", {"photo.jpg": encoded_image(photo, "JPEG", quality=90)})


def _check_looks_the_same(found: Found) -> None:
    assert ("ash/photo.png", "elm/photo.jpg") in found.report.doubtful
    assert any("look the same under two labels" in warning for warning in found.warnings)
    assert {"ash/photo.png", "elm/photo.jpg"} <= set(found.task.paths)


def _same_until_reduced(root: Path) -> None:
    page = np.full((640, 640, 3), 255, dtype=np.uint8)
    marked = page.copy()
    marked[5, 5] = 254
    side = np.full((200, 300, 3), 128, dtype=np.uint8)
    cut = side.copy()
    cut[:, :40] = noise(40, 200, seed=305)
    write_files(root / "ash", {"page.png": encoded(page), "side.png": encoded(side)})
    write_files(root / "elm", {"marked.png": encoded(marked), "cut.png": encoded(cut)})


def _check_same_until_reduced(found: Found) -> None:
    names = {"ash/page.png", "ash/side.png", "elm/marked.png", "elm/cut.png"}
    assert names <= set(found.task.paths)
    assert not names & {name for pair in found.report.contradictions for name in pair}


def _mostly_two_labels(root: Path) -> None:
    for name in ("ash", "elm"):
        write_files(root / name, {f"x{number}.png": encoded(noise(seed=310 + number)) for number in range(8)})


def _flat_splits(root: Path) -> None:
    for seed, split in enumerate(("train", "test"), 360):
        write_class_folders(root, {split: 12}, seed=seed)


def _check_as_it_is(found: Found) -> None:
    """Only the classes of `just`, without splits of its own."""
    assert found.task.info.class_names == tuple(sorted({path.split("/")[-2] for path in found.task.paths}))
    assert found.report.used == 36 and not found.report.splits
    assert {"train", "val", "test"} == set(found.task.splits.tolist())


def _unlabelled_test(root: Path) -> None:
    just(root / "train", {"ash": 18, "elm": 18})
    write_files(root / "test", {f"{number}.png": encoded(noise(seed=number)) for number in range(370, 375)})


PASSING: dict[str, HostileRow] = {
    "test set without labels": HostileRow(_unlabelled_test, _check_as_it_is, alone=True),
    "two train folders": HostileRow(
        lambda root: just(root, {"train/ash": 9, "train/elm": 9, "training/ash": 9, "training/elm": 9}),
        _check_as_it_is,
        alone=True,
    ),
    "test lacks a class": HostileRow(lambda root: _train_without(root, "test"), _check_test_lacks, alone=True),
    "duplicates across splits": HostileRow(_leaking, _check_leaking, alone=True),
    "copies, and the same image under two labels": HostileRow(_two_labels, _check_two_labels),
    "the same pixels in other files under two labels": HostileRow(_same_pixels, _check_same_pixels),
    "near-copies under two labels": HostileRow(_looks_the_same, _check_looks_the_same),
    "other pictures that are the same at working size": HostileRow(_same_until_reduced, _check_same_until_reduced),
}

REFUSED: dict[str, HostileRow] = {
    "classes that are called as splits are": HostileRow(
        lambda root: just(root, {"bus": 9, "car": 9, "test": 9, "train": 9}),
        error=NoClassesError,
        words="If the splits are classes, rename them",
        alone=True,
    ),
    "images directly in train and test": HostileRow(
        _flat_splits,
        error=NoClassesError,
        words="no class folders in 'test', 'train', which are taken for the splits",
        alone=True,
    ),
    "train lacks a class": HostileRow(
        lambda root: _train_without(root, "train"), error=GateError, words="none to train on: 'elm'", alone=True
    ),
    "test set inside train": HostileRow(_all_leaks, error=GateError, words="of one split seen in another", alone=True),
    "labels that contradict": HostileRow(
        _mostly_two_labels, error=GateError, words="16 files of images under two labels"
    ),
}
