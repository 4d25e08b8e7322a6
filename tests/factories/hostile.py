"""What real image folders hold, one row a kind: how to make it, and what has to become of it.

A row adds its files to `healthy` class folders, or makes the whole folder where it is `alone`. Names are the row's own, so that
`everything` can hold all rows that pass at once, and every check holds there too.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tans_core.errors import (
    EmptyClassError,
    GateError,
    NoClassesError,
    TansError,
    TooFewImagesError,
    TooManyBadFilesError,
)
from tans_core.tasks.report import ScanReport
from tans_core.tasks.task import Task
from tests.factories.images import (
    cmyk_jpeg,
    encoded,
    encoded_image,
    noise,
    rotated_photo,
    write_class_folders,
    ycck_jpeg,
)

INK = (128, 250, 0, 30)
PLANES = (150, 110, 170, 220)
NFD = unicodedata.normalize("NFD", "é")
LONG = "n" * 251 + ".png"
LONG_CYRILLIC = "ж" * 125 + ".png"


@dataclass(frozen=True)
class Found:
    """What became of a folder that passed."""

    report: ScanReport
    task: Task
    warnings: tuple[str, ...]

    def image(self, path: str) -> npt.NDArray[np.uint8]:
        """(3, S, S) uint8."""
        return self.task.images[self.task.paths.index(path)]

    def size(self, path: str) -> tuple[int, int]:
        width, height = self.task.sizes[self.task.paths.index(path)].tolist()
        return width, height

    def label(self, path: str) -> str:
        return self.task.info.class_names[self.task.labels[self.task.paths.index(path)]]

    def left_out(self, path: str) -> str:
        """Return the reason of a file that is listed as bad; the task must not have it."""
        assert path not in self.task.paths
        return dict(self.report.bad)[path]

    def skipped(self, reason: str) -> int:
        return self.report.skipped.get(reason, 0)


@dataclass(frozen=True)
class HostileRow:
    """One kind of trouble.

    Attributes:
        make: adds it to the class folders at a path.
        check: what has to hold of a folder that passes with it; None where it is refused.
        error: what it is refused with, and `words` of the message.
        alone: `make` writes the whole folder.
    """

    make: Callable[[Path], None]
    check: Callable[[Found], None] | None = None
    error: type[TansError] | None = None
    words: str = ""
    alone: bool = False

    def folder(self, root: Path) -> Path:
        """Make a folder with this trouble alone."""
        root.mkdir(parents=True)
        if not self.alone:
            healthy(root)
        self.make(root)
        return root


def healthy(root: Path) -> Path:
    """Three classes of twenty images."""
    return write_class_folders(root, {"ash": 20, "elm": 20, "oak": 20})


def everything(root: Path) -> Path:
    """One folder with all rows at once that pass, and that share class folders."""
    root.mkdir(parents=True)
    healthy(root)
    for row in PASSING.values():
        if not row.alone:
            row.make(root)
    return root


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes = b"") -> bytes:
    """Write a PNG by hand, black where no rows (with their filter bytes) are given; never holds more than a few rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    if rows:
        body = packer.compress(rows)
    else:
        black = bytes(1 + (width * bits + 7) // 8)
        body = b"".join(packer.compress(black * 100) for _ in range(height // 100))
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body += packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _broken(root: Path) -> None:
    jpeg, whole = (encoded(noise(90, 80), kind) for kind in ("JPEG", "PNG"))
    _write(
        root / "ash",
        {"half.jpg": jpeg[: len(jpeg) // 2], "zero.png": b"", "half.png": whole[: len(whole) // 2]},
    )
    _write(
        root / "elm", {"text.png": b"not found", "page.jpg": b"<!DOCTYPE html><html>", "zip.png": b"PK\x03\x04" * 50}
    )


def _check_broken(found: Found) -> None:
    assert "truncated" in found.left_out("ash/half.jpg")
    assert found.left_out("ash/zero.png") == "empty file"
    assert "truncated" in found.left_out("ash/half.png")
    for name in ("text.png", "page.jpg", "zip.png"):
        assert "not an image" in found.left_out(f"elm/{name}")


def _hidden_folders(root: Path) -> None:
    picture = {"0-checkpoint.png": encoded(noise(seed=200))}
    for place in (root, root / "ash"):
        for number, name in enumerate((".ipynb_checkpoints", "__MACOSX", ".thumbnails")):
            _write(place / name, {**picture, f"{number}.png": encoded(noise(seed=201 + number))})


def _check_hidden_folders(found: Found) -> None:
    names = {".ipynb_checkpoints", "__MACOSX", ".thumbnails"}
    assert names.isdisjoint(found.task.info.class_names)
    assert not any(names & set(path.split("/")) for path in found.task.paths)
    assert found.skipped("hidden or system file") >= 6


def _system_files(root: Path) -> None:
    names = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "._x.jpg", "Icon\r", "notes.txt", "labels.csv")
    for place in (root, root / "elm"):
        _write(place, dict.fromkeys(names, b"\x00\x05\x16\x07 not for you"))


def _check_system_files(found: Found) -> None:
    assert not any(
        reason for path, reason in found.report.bad if path.split("/")[-1].lower().startswith((".", "thumbs"))
    )
    assert found.skipped("hidden or system file") >= 12
    assert found.skipped("not an image by its name") >= 2


def _bomb(root: Path) -> None:
    data = png(20_000, 20_000, 1, 0)
    assert len(data) < 60_000
    _write(root / "ash", {"400 megapixels.png": data})


def _check_bomb(found: Found) -> None:
    assert "more than 64,000,000" in found.left_out("ash/400 megapixels.png")


def _check_rotated(found: Found) -> None:
    assert found.size("ash/rotated.jpg") == (20, 40)
    red = found.image("ash/rotated.jpg")[0].astype(int)
    side = red.shape[0]
    assert red[side // 6, side // 2] > 220 and red[-side // 6, side // 2] < 30


def _deep(root: Path) -> None:
    ramp = np.linspace(0, 1, 1024).reshape(32, 32)
    colour = np.repeat((ramp * 65535).astype(">u2")[:, :, None], 3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in colour)
    _write(
        root / "oak",
        {
            "grey16.png": encoded((ramp * 65535).astype(np.uint16)),
            "grey16.tif": encoded((ramp * 65535).astype(np.uint16), "TIFF"),
            "float32.tif": encoded(ramp.astype(np.float32), "TIFF"),
            "int32.tif": encoded((ramp * (2**31 - 1)).astype(np.int32), "TIFF"),
            "colour16.png": png(32, 32, 16, 2, rows),
        },
    )
    _write(root / "elm", {"nan.tif": encoded(np.full((9, 9), np.nan, dtype=np.float32), "TIFF")})


def _check_deep(found: Found) -> None:
    for name in ("grey16.png", "grey16.tif", "float32.tif", "int32.tif", "colour16.png"):
        image = found.image(f"oak/{name}").astype(int)
        assert (image >= 250).mean() < 0.1 and 115 < image.mean() < 140, name
        assert image[:, 0, 0].max() < 20 and image[:, -1, -1].min() > 235, name
    assert "finite" in found.left_out("elm/nan.tif")


def _print_colours(root: Path) -> None:
    files = {
        "adobe.jpg": cmyk_jpeg(INK, adobe=True),
        "plain.jpg": cmyk_jpeg(INK, adobe=False),
        "ycck.jpg": ycck_jpeg(PLANES),
    }
    files["cmyk.tif"] = encoded_image(Image.new("CMYK", (16, 16), INK), "TIFF")
    _write(root / "oak", files)


def _check_print_colours(found: Found) -> None:
    cyan, magenta, yellow, black = INK
    inked = [(255 - ink) * (255 - black) / 255 for ink in (cyan, magenta, yellow)]
    luma, blue, red, key = PLANES
    rgb = (luma + 1.402 * (red - 128), luma - 0.344 * (blue - 128) - 0.714 * (red - 128), luma + 1.772 * (blue - 128))
    for name in ("adobe.jpg", "plain.jpg", "cmyk.tif"):
        np.testing.assert_allclose(found.image(f"oak/{name}").mean(axis=(1, 2)), inked, atol=6, err_msg=name)
    expected = [(255 - value) * key / 255 for value in rgb]
    np.testing.assert_allclose(found.image("oak/ycck.jpg").mean(axis=(1, 2)), expected, atol=6)


def _transparent(root: Path) -> None:
    hidden = np.dstack([noise(30, 30, seed=210), np.zeros((30, 30), np.uint8)])
    palette = Image.new("P", (30, 30), 0)
    palette.putpalette([200, 0, 0, 0, 200, 0])
    files = {"rgba.png": encoded(hidden), "rgba.webp": encoded(hidden, "WEBP", lossless=True, exact=True)}
    files["grey-alpha.png"] = encoded_image(Image.new("LA", (30, 30), (10, 0)))
    files["palette.png"] = encoded_image(palette, "PNG", transparency=0)
    files["palette.gif"] = encoded_image(palette, "GIF", transparency=0)
    files["key-colour.png"] = encoded_image(Image.new("RGB", (30, 30), (7, 8, 9)), "PNG", transparency=(7, 8, 9))
    _write(root / "oak", files)


def _check_transparent(found: Found) -> None:
    for name in ("rgba.png", "rgba.webp", "grey-alpha.png", "palette.png", "palette.gif", "key-colour.png"):
        assert found.image(f"oak/{name}").min() == 255, name


def _other_content(root: Path) -> None:
    files = {
        f"really {kind}.jpg": encoded(noise(seed=number), kind)
        for number, kind in enumerate(("GIF", "BMP", "WEBP"), 220)
    }
    frames = [Image.new("RGB", (24, 24), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        more = {"lossless": True} if kind == "WEBP" else {}
        data = encoded_image(frames[0], kind, save_all=True, append_images=frames[1:], **more)
        files[f"animated.{kind.lower()}"] = data
    _write(root / "elm", files)


def _check_other_content(found: Found) -> None:
    assert found.report.mislabelled_formats >= 3
    assert all(found.report.formats[kind] >= 2 for kind in ("GIF", "WEBP")) and found.report.formats["BMP"] >= 1
    for kind in ("GIF", "BMP", "WEBP"):
        assert found.label(f"elm/really {kind}.jpg") == "elm"
    for kind in ("gif", "webp", "tiff", "png"):
        assert found.image(f"elm/animated.{kind}")[:, 5, 5].tolist() == [255, 0, 0], kind


SUFFIXES = {"capital.JPG": "JPEG", "mixed.Jpeg": "JPEG", "web.webp": "WEBP", "scan.tif": "TIFF", "no suffix": "PNG"}
SUFFIXES |= {"two.dots.v2": "PNG", "odd.PNG_": "PNG"}


def _suffixes(root: Path) -> None:
    files = {name: encoded(noise(seed=number), kind) for number, (name, kind) in enumerate(SUFFIXES.items(), 230)}
    _write(root / "ash", files)


def _check_suffixes(found: Found) -> None:
    assert all(found.label(f"ash/{name}") == "ash" for name in SUFFIXES)


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
]
NAMES += ["new\nline", "n" * 255, "ж" * 127]


def _names(root: Path) -> None:
    for number, name in enumerate([*NAMES, f"caf{NFD}"]):
        write_class_folders(root, {name: 3}, seed=240 + number)
    files = [
        *(f"{name}.png" for name in NAMES if len(os.fsencode(name)) < 250),
        LONG,
        LONG_CYRILLIC,
        f"{NFD}t{NFD}.png",
    ]
    _write(root / "ash", {name: encoded(noise(seed=number)) for number, name in enumerate(files, 260)})


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
    _write(root / "elm", {name: encoded(noise(seed=number)) for number, name in enumerate(names, 281)})
    # Named as another one is numbered.
    _write(root / "elm", {"à (2).png": encoded(noise(seed=290)), os.fsdecode(b"bad\xff.png"): b"x"})


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
    _write(root / "train/ash", {"leak.png": (root / "test/ash/3.png").read_bytes()})
    os.link(root / "test/oak/4.png", root / "train/oak/linked.png")


def _check_leaking(found: Found) -> None:
    assert set(found.report.leaks) == {
        ("train/ash/leak.png", "test/ash/3.png"),
        ("train/oak/linked.png", "test/oak/4.png"),
    }
    splits = dict(zip(found.task.paths, found.task.splits.tolist(), strict=True))
    assert splits["test/ash/3.png"] == splits["test/oak/4.png"] == "test"
    assert {"train/ash/leak.png", "train/oak/linked.png"}.isdisjoint(splits)


def _all_leaks(root: Path) -> None:
    for split in ("train", "test"):
        write_class_folders(root / split, {"ash": 12, "oak": 12}, seed=13)
    write_class_folders(root / "train", {"ash": 24, "oak": 24}, seed=13)


def _two_labels(root: Path) -> None:
    same = encoded(noise(seed=300))
    _write(root / "ash", {"contradiction.png": same, "copy 1.png": encoded(noise(seed=301))})
    _write(root / "oak", {"contradiction.png": same, "linked.png": encoded(noise(seed=302))})
    _write(root / "ash", {"copy 2.png": (root / "ash/copy 1.png").read_bytes()})
    # As programs that save space do with copies.
    os.link(root / "oak/linked.png", root / "elm/linked.png")


def _check_two_labels(found: Found) -> None:
    pairs = {("ash/contradiction.png", "oak/contradiction.png"), ("elm/linked.png", "oak/linked.png")}
    assert pairs <= set(found.report.contradictions)
    assert not {name for pair in pairs for name in pair} & set(found.task.paths)
    assert "ash/copy 2.png" in found.report.copies and "ash/copy 1.png" in found.task.paths


def _mostly_two_labels(root: Path) -> None:
    for name in ("ash", "elm"):
        _write(root / name, {f"x{number}.png": encoded(noise(seed=310 + number)) for number in range(8)})


def _long(root: Path) -> None:
    for name, size in (("wide.png", (2000, 1)), ("tall.png", (1, 2000)), ("dot.png", (1, 1))):
        _write(root / "elm", {name: encoded_image(Image.new("RGB", size, (9, 200, 9)))})


def _check_long(found: Found) -> None:
    assert found.report.elongated >= 2
    for name, size in (("wide.png", (2000, 1)), ("tall.png", (1, 2000)), ("dot.png", (1, 1))):
        assert found.size(f"elm/{name}") == size
        assert (found.image(f"elm/{name}").transpose(1, 2, 0) == (9, 200, 9)).all()


def _links(root: Path) -> None:
    outside = root.parent / f"{root.name}, outside"
    _write(outside / "secret", {"0.png": encoded(noise(seed=320))})
    ash = root / "ash"
    _write(ash / "below/deeper", {"deep.png": encoded(noise(seed=321))})
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
    least = {"link that leads outside": 3, "broken link": 4, "link to a folder": 3, "the same file again": 2}
    least |= {"not a plain file": 1, "file outside class folders": 1}
    assert {reason: number for reason, number in least.items() if found.skipped(reason) < number} == {}


def _deep_folders(root: Path) -> None:
    folder = root / "oak"
    for _ in range(400):
        folder = folder / "d"
    _write(folder, {"bottom.png": encoded(noise(seed=330))})
    (root / "elm" / "looks like one.png").mkdir()


def _check_deep_folders(found: Found) -> None:
    assert any(path.endswith("/d/d/bottom.png") for path in found.task.paths)


def _tiny(root: Path) -> None:
    for index, name in enumerate(("tiny a", "tiny b")):
        pixels = np.random.default_rng(340 + index).integers(0, 256, (520, 12, 12, 3), dtype=np.uint8)
        _write(root / name, {f"{number}.png": encoded(image) for number, image in enumerate(pixels)})


def _check_tiny(found: Found) -> None:
    assert found.report.classes["tiny a"] == found.report.classes["tiny b"] == 520
    assert found.task.paths.count("tiny b/519.png") == 1


def _empty_class(root: Path) -> None:
    (root / "yew").mkdir()


def _dead_class(root: Path) -> None:
    _write(root / "yew", {"0.png": b"x", "1.png": b"y"})


def _all_bad(root: Path) -> None:
    for name in ("ash", "oak"):
        _write(root / name, {f"{number}.png": b"no" for number in range(5)})


def _nothing_left(root: Path) -> None:
    for name in ("ash", "oak"):
        _write(root / name, {f"{number}.png": encoded(noise(seed=number)) for number in range(9)})


def _flat(root: Path) -> None:
    _write(root, {f"{number}.png": encoded(noise(seed=number)) for number in range(5)})


PASSING: dict[str, HostileRow] = {
    "truncated JPEG, zero bytes, half a PNG": HostileRow(_broken, _check_broken),
    "hidden folders": HostileRow(_hidden_folders, _check_hidden_folders),
    "system files": HostileRow(_system_files, _check_system_files),
    "decompression bomb": HostileRow(_bomb, _check_bomb),
    "EXIF rotation": HostileRow(lambda root: _write(root / "ash", {"rotated.jpg": rotated_photo()}), _check_rotated),
    "16 and 32 bits a channel": HostileRow(_deep, _check_deep),
    "CMYK and YCCK": HostileRow(_print_colours, _check_print_colours),
    "transparency": HostileRow(_transparent, _check_transparent),
    "content is not the extension, animated files": HostileRow(_other_content, _check_other_content),
    "suffixes of every kind": HostileRow(_suffixes, _check_suffixes),
    "two images in a class": HostileRow(_two_images, _check_few, alone=True),
    "test lacks a class": HostileRow(lambda root: _train_without(root, "test"), _check_test_lacks, alone=True),
    "classes 1, 10, 2": HostileRow(lambda root: _just(root, {"10": 4, "2": 4, "1": 4}), _check_numbers),
    "odd names": HostileRow(_names, _check_names),
    "duplicates across splits": HostileRow(_leaking, _check_leaking, alone=True),
    "copies, and the same image under two labels": HostileRow(_two_labels, _check_two_labels),
    "1x2000, 2000x1": HostileRow(_long, _check_long),
    "links": HostileRow(_links, _check_links),
    "deep folders": HostileRow(_deep_folders, _check_deep_folders),
    "many tiny files": HostileRow(_tiny, _check_tiny),
}
# File systems of other makers take no such names, or change them.
if sys.platform == "linux":
    PASSING["names that are no text, names that differ in form"] = HostileRow(_names_of_bytes, _check_names_of_bytes)

REFUSED: dict[str, HostileRow] = {
    "empty class folder": HostileRow(_empty_class, error=EmptyClassError, words="'yew'"),
    "class of unreadable files": HostileRow(_dead_class, error=EmptyClassError, words="'yew' (0 of 2 files)"),
    "empty root": HostileRow(lambda root: None, error=NoClassesError, words="it holds none", alone=True),
    "everything unreadable": HostileRow(_all_bad, error=TooManyBadFilesError, words="10 of 10 files", alone=True),
    "nothing left after filtering": HostileRow(
        _nothing_left, error=EmptyClassError, words="No usable image in 2 of 2 classes", alone=True
    ),
    "one image in a class": HostileRow(
        lambda root: _just(root, {"rare": 1}), error=TooFewImagesError, words="'rare' (1)"
    ),
    "one class only": HostileRow(
        lambda root: _just(root, {"only": 5}), error=NoClassesError, words="only one class, 'only'", alone=True
    ),
    "one class left": HostileRow(
        lambda root: (_just(root, {"ash": 9}), _dead_class(root))[1], error=EmptyClassError, words="'yew'", alone=True
    ),
    "flat folder": HostileRow(_flat, error=NoClassesError, words="5 files lie in it directly", alone=True),
    "train lacks a class": HostileRow(
        lambda root: _train_without(root, "train"), error=GateError, words="none to train on: 'elm'", alone=True
    ),
    "test set inside train": HostileRow(_all_leaks, error=GateError, words="of one split seen in another", alone=True),
    "labels that contradict": HostileRow(_mostly_two_labels, error=GateError, words="8 images under two labels"),
}

ROWS: dict[str, HostileRow] = PASSING | REFUSED


def _just(root: Path, classes: dict[str, int]) -> None:
    write_class_folders(root, classes, seed=350)
