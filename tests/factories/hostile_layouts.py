"""Hostile rows about how files are named, labelled, split and linked."""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

from tans_core.errors import (
    EmptyClassError,
    GateError,
    NoClassesError,
    TooFewImagesError,
)
from tans_core.tasks.inputs.base import LEADS_OUTSIDE, PACKED
from tests.factories.hostile_row import Found, HostileRow, healthy, write_files
from tests.factories.images import (
    encoded,
    encoded_image,
    noise,
    write_class_folders,
)

NFD = unicodedata.normalize("NFD", "é")


LONG = "n" * 251 + ".png"


LONG_CYRILLIC = "ж" * 125 + ".png"


def _hidden_folders(root: Path) -> None:
    picture = {"0-checkpoint.png": encoded(noise(seed=200))}
    for place in (root, root / "ash"):
        for number, name in enumerate((".ipynb_checkpoints", "__MACOSX", ".thumbnails")):
            write_files(place / name, {**picture, f"{number}.png": encoded(noise(seed=201 + number))})


def _check_hidden_folders(found: Found) -> None:
    names = {".ipynb_checkpoints", "__MACOSX", ".thumbnails"}
    assert names.isdisjoint(found.task.info.class_names)
    assert not any(names & set(path.split("/")) for path in found.task.paths)
    assert found.skipped("hidden or system file") >= 6


def _system_files(root: Path) -> None:
    names = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "._x.jpg", "Icon\r", "notes.txt", "labels.csv")
    for place in (root, root / "elm"):
        write_files(place, dict.fromkeys(names, b"\x00\x05\x16\x07 not for you"))


def _check_system_files(found: Found) -> None:
    assert not any(
        reason for path, reason in found.report.bad if path.split("/")[-1].lower().startswith((".", "thumbs"))
    )
    assert found.skipped("hidden or system file") >= 12
    assert found.skipped("not an image by its name") >= 2


def _check_few(found: Found) -> None:
    index = found.task.info.class_names.index("few")
    assert "train" in found.task.splits[found.task.labels == index]
    assert any("no val image" in warning and "'few' (2)" in warning for warning in found.warnings)


def _two_images(root: Path) -> None:
    healthy(root)
    write_class_folders(root, {"few": 2}, seed=235)


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


def _check_numbers(found: Found) -> None:
    assert [name for name in found.task.info.class_names if name.isdecimal()] == ["1", "2", "10"]
    assert all(found.label(f"{name}/0.png") == name for name in ("1", "2", "10"))


NAMES = [
    "with space",
    "quo\"te's",
    "🌿 emoji",
    "שלום",
    "[bold]red",
    "<script>alert(1)<",
    "-rf",
    "%s {0} $HOME",
    "tab\there",
    "\x1b[31mred",
]


def _names(root: Path) -> None:
    for number, name in enumerate([*NAMES, f"caf{NFD}"]):
        write_class_folders(root, {name: 3}, seed=240 + number)
    files = [
        *(f"{name}.png" for name in NAMES if len(os.fsencode(name)) < 250),
        LONG,
        LONG_CYRILLIC,
        f"{NFD}t{NFD}.png",
    ]
    write_files(root / "ash", {name: encoded(noise(seed=number)) for number, name in enumerate(files, 260)})


def _check_names(found: Found) -> None:
    assert {*NAMES, "café"} <= set(found.task.info.class_names)
    short = [f"{name}.png" for name in NAMES if len(os.fsencode(name)) < 250]
    assert {f"ash/{name}" for name in [*short, LONG, LONG_CYRILLIC, "été.png"]} <= set(found.task.paths)
    assert all(unicodedata.is_normalized("NFC", path) for path in found.task.paths)
    assert len(set(found.task.paths)) == len(found.task.paths)


def _names_of_bytes(root: Path) -> None:
    latin, greek = (os.fsdecode(name) for name in (b"caf\xe9", b"caf\xe8"))
    write_class_folders(root, {latin: 3, greek: 3}, seed=280)
    names = (f"{latin}.png", f"{greek}.png", "à.png", unicodedata.normalize("NFD", "à.png"))
    write_files(root / "elm", {name: encoded(noise(seed=number)) for number, name in enumerate(names, 281)})
    # Named as another one is numbered.
    write_files(root / "elm", {"à (2).png": encoded(noise(seed=290)), os.fsdecode(b"bad\xff.png"): b"x"})


def _check_names_of_bytes(found: Found) -> None:
    assert {r"caf\xe8", r"caf\xe9"} <= set(found.task.info.class_names)
    assert {rf"elm/{name}.png" for name in (r"caf\xe8", r"caf\xe9", "à", "à (2)")} <= set(found.task.paths)
    assert sum(path.startswith("elm/à") for path in found.task.paths) == 3
    assert found.left_out(r"elm/bad\xff.png")
    assert len(set(found.task.paths)) == len(found.task.paths)
    for name in (*found.task.paths, *found.task.info.class_names):
        assert name.encode()


def _leaking(root: Path) -> None:
    write_class_folders(root / "train", {"ash": 20, "oak": 20}, seed=11)
    write_class_folders(root / "test", {"ash": 10, "oak": 10}, seed=12)
    write_files(root / "train/ash", {"leak.png": (root / "test/ash/3.png").read_bytes()})
    # Nothing to see, and the same.
    blank = Image.new("RGB", (20, 20), (3, 3, 3))
    write_files(root / "test/ash", {"blank.png": encoded_image(blank)})
    write_files(root / "train/ash", {"blank.bmp": encoded_image(blank, "BMP")})
    # Looks like one of test, and is said to be something else.
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


def _archive_beside(root: Path) -> None:
    write_files(root, {"as it came.tar.gz": b"\x1f\x8b", "AS IT CAME.ZIP": b"PK"})


def _check_archive_beside(found: Found) -> None:
    assert found.skipped(PACKED) == 2
    assert not any("came" in warning for warning in found.warnings)


def _links(root: Path) -> None:
    outside = root.parent / f"{root.name}, outside"
    write_files(outside / "secret", {"0.png": encoded(noise(seed=320))})
    ash = root / "ash"
    write_files(ash / "below/deeper", {"deep.png": encoded(noise(seed=321))})
    links = {"up": root, "side": root / "oak", "twin.png": ash / "0.png", "out.png": outside / "secret/0.png"}
    links |= {"gone.png": root / "nowhere", "round.png": Path("round.png"), "etc": Path("/etc")}
    for name, target in links.items():
        (ash / name).symlink_to(target)
    for name, target in (
        ("ash again", ash),
        ("away", outside / "secret"),
        ("round", Path("round")),
        ("lost", root / "x"),
    ):
        (root / name).symlink_to(target)
    (root / "loose.png").symlink_to(ash / "1.png")
    os.link(ash / "2.png", ash / "hard.png")
    os.mkfifo(ash / "pipe.png")


def _check_links(found: Found) -> None:
    names = {"up", "side", "twin.png", "out.png", "gone.png", "round.png", "etc", "hard.png", "pipe.png"}
    listed = {*found.task.paths, *dict(found.report.bad), *found.report.copies}
    assert not {path for path in listed if path.startswith("ash/") and path.split("/")[1] in names}
    assert {"ash again", "away", "round", "lost"}.isdisjoint({*found.report.found, *found.task.info.class_names})
    assert hashlib.sha256(encoded(noise(seed=320))).hexdigest() not in found.task.sha256
    assert found.label("ash/below/deeper/deep.png") == "ash"
    least = {LEADS_OUTSIDE: 3, "broken link": 4, "link to a folder": 3, "the same file again": 2}
    least |= {"not a plain file": 1, "file outside class folders": 1}
    assert {reason: number for reason, number in least.items() if found.skipped(reason) < number} == {}


def _deep_folders(root: Path) -> None:
    folder = root / "oak"
    for _ in range(400):
        folder = folder / "d"
    write_files(folder, {"bottom.png": encoded(noise(seed=330))})
    (root / "elm" / "looks like one.png").mkdir()


def _check_deep_folders(found: Found) -> None:
    assert any(path.endswith("/d/d/bottom.png") for path in found.task.paths)


def _empty_class(root: Path) -> None:
    (root / "yew").mkdir()


def _dead_class(root: Path) -> None:
    write_files(root / "yew", {"0.png": b"x", "1.png": b"y"})


def _flat(root: Path) -> None:
    write_files(root, {f"{number}.png": encoded(noise(seed=number)) for number in range(5)})


def _flat_splits(root: Path) -> None:
    for seed, split in enumerate(("train", "test"), 360):
        write_class_folders(root, {split: 12}, seed=seed)


def _just(root: Path, classes: dict[str, int]) -> None:
    write_class_folders(root, classes, seed=350)


def _check_as_it_is(found: Found) -> None:
    """Nothing but the classes of `_just`, split by us."""
    assert found.task.info.class_names == tuple(sorted({path.split("/")[-2] for path in found.task.paths}))
    assert found.report.used == 36 and not found.report.splits
    assert {"train", "val", "test"} == set(found.task.splits.tolist())


def _unlabelled_test(root: Path) -> None:
    _just(root / "train", {"ash": 18, "elm": 18})
    write_files(root / "test", {f"{number}.png": encoded(noise(seed=number)) for number in range(370, 375)})


PASSING: dict[str, HostileRow] = {
    "test set without labels": HostileRow(_unlabelled_test, _check_as_it_is, alone=True),
    "two train folders": HostileRow(
        lambda root: _just(root, {"train/ash": 9, "train/elm": 9, "training/ash": 9, "training/elm": 9}),
        _check_as_it_is,
        alone=True,
    ),
    "classes that are called as splits are": HostileRow(
        lambda root: _just(root, {"bus": 9, "car": 9, "test": 9, "train": 9}), _check_as_it_is, alone=True
    ),
    "hidden folders": HostileRow(_hidden_folders, _check_hidden_folders),
    "system files": HostileRow(_system_files, _check_system_files),
    "two images in a class": HostileRow(_two_images, _check_few, alone=True),
    "test lacks a class": HostileRow(lambda root: _train_without(root, "test"), _check_test_lacks, alone=True),
    "classes 1, 10, 2": HostileRow(lambda root: _just(root, {"10": 4, "2": 4, "1": 4}), _check_numbers),
    "odd names": HostileRow(_names, _check_names),
    "duplicates across splits": HostileRow(_leaking, _check_leaking, alone=True),
    "copies, and the same image under two labels": HostileRow(_two_labels, _check_two_labels),
    "the same pixels in other files under two labels": HostileRow(_same_pixels, _check_same_pixels),
    "near-copies under two labels": HostileRow(_looks_the_same, _check_looks_the_same),
    "other pictures that are the same at working size": HostileRow(_same_until_reduced, _check_same_until_reduced),
    "archives beside class folders": HostileRow(_archive_beside, _check_archive_beside),
    "links": HostileRow(_links, _check_links),
    "deep folders": HostileRow(_deep_folders, _check_deep_folders),
}
# File systems of other makers take no such names, or change them.
if sys.platform == "linux":
    PASSING["names that are no text, names that differ in form"] = HostileRow(_names_of_bytes, _check_names_of_bytes)

REFUSED: dict[str, HostileRow] = {
    "empty class folder": HostileRow(_empty_class, error=EmptyClassError, words="'yew'"),
    "class of unreadable files": HostileRow(_dead_class, error=EmptyClassError, words="'yew' (0 of 2 files)"),
    "empty root": HostileRow(lambda root: None, error=NoClassesError, words="it holds none", alone=True),
    "one image in a class": HostileRow(
        lambda root: _just(root, {"rare": 1}), error=TooFewImagesError, words="'rare' (1)"
    ),
    "one class only": HostileRow(
        lambda root: _just(root, {"only": 5}), error=NoClassesError, words="only one class, 'only'", alone=True
    ),
    "one class left": HostileRow(
        lambda root: (_just(root, {"ash": 9}), _dead_class(root))[1], error=EmptyClassError, words="'yew'", alone=True
    ),
    "folder of an archive": HostileRow(
        _archive_beside, error=NoClassesError, words="2 x archive that is not unpacked", alone=True
    ),
    "flat folder": HostileRow(_flat, error=NoClassesError, words="5 files lie outside any", alone=True),
    "images directly in train and test": HostileRow(
        _flat_splits, error=NoClassesError, words="24 files lie outside any", alone=True
    ),
    "train lacks a class": HostileRow(
        lambda root: _train_without(root, "train"), error=GateError, words="none to train on: 'elm'", alone=True
    ),
    "test set inside train": HostileRow(_all_leaks, error=GateError, words="of one split seen in another", alone=True),
    "labels that contradict": HostileRow(
        _mostly_two_labels, error=GateError, words="16 files of images under two labels"
    ),
}
