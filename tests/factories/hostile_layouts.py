"""Hostile rows about how files are named, placed and linked."""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
from pathlib import Path

from tans_core.errors import (
    EmptyClassError,
    NoClassesError,
    TooFewImagesError,
)
from tans_core.tasks.inputs.base import LEADS_OUTSIDE, PACKED
from tests.factories.hostile_row import Found, HostileRow, healthy, just, write_files
from tests.factories.images import (
    encoded,
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


PASSING: dict[str, HostileRow] = {
    "hidden folders": HostileRow(_hidden_folders, _check_hidden_folders),
    "system files": HostileRow(_system_files, _check_system_files),
    "two images in a class": HostileRow(_two_images, _check_few, alone=True),
    "classes 1, 10, 2": HostileRow(lambda root: just(root, {"10": 4, "2": 4, "1": 4}), _check_numbers),
    "odd names": HostileRow(_names, _check_names),
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
    "empty root": HostileRow(lambda root: None, error=NoClassesError, words="and no files", alone=True),
    "one image in a class": HostileRow(
        lambda root: just(root, {"rare": 1}), error=TooFewImagesError, words="'rare' (1)"
    ),
    "one class only": HostileRow(
        lambda root: just(root, {"only": 5}), error=NoClassesError, words="only one class, 'only'", alone=True
    ),
    "one class left": HostileRow(
        lambda root: (just(root, {"ash": 9}), _dead_class(root))[1], error=EmptyClassError, words="'yew'", alone=True
    ),
    "folder of an archive": HostileRow(
        _archive_beside, error=NoClassesError, words="2 x archive that is not unpacked", alone=True
    ),
    "flat folder": HostileRow(_flat, error=NoClassesError, words="only 5 files outside", alone=True),
}
