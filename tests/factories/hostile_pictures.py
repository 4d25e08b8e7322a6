"""Hostile rows about the content of files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tans_core.errors import (
    EmptyClassError,
    TooManyBadFilesError,
)
from tests.factories.hostile_row import Found, HostileRow, write_files
from tests.factories.images import (
    cmyk_jpeg,
    encoded,
    encoded_image,
    noise,
    pfm,
    rotated_photo,
    tiff,
    ycck_jpeg,
)

INK = (128, 250, 0, 30)


PLANES = (150, 110, 170, 220)


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes = b"", key: bytes = b"") -> bytes:
    """Write a PNG by hand, black where no rows (with their filter bytes) are given; never holds more than a few rows.

    `key` is the value that counts as transparent.
    """

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
    middle = (chunk(b"tRNS", key) if key else b"") + chunk(b"IDAT", body)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + chunk(b"IEND", b"")


def tiff_of_12_bits(pixels: npt.NDArray[np.uint16]) -> bytes:
    """Write (H, W) values of at most 4095 as TIFF by hand, two of them in three bytes; W is even."""
    first, second = pixels[:, ::2].astype(int), pixels[:, 1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8).tobytes()
    height, width = pixels.shape
    # Width, height, bits, compression, black is zero, place and number of the rows, their bytes.
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)


def _broken(root: Path) -> None:
    jpeg, whole, gif = (encoded(noise(90, 80), kind) for kind in ("JPEG", "PNG", "GIF"))
    write_files(
        root / "ash",
        {"half.jpg": jpeg[: len(jpeg) // 2], "zero.png": b"", "half.png": whole[: len(whole) // 2]}
        | {"a GIF.jpg": gif[: len(gif) // 2]},
    )
    write_files(
        root / "elm", {"text.png": b"not found", "page.jpg": b"<!DOCTYPE html><html>", "zip.png": b"PK\x03\x04" * 50}
    )


def _check_broken(found: Found) -> None:
    assert "truncated" in found.left_out("ash/half.jpg")
    assert found.left_out("ash/zero.png") == "empty file"
    assert "truncated" in found.left_out("ash/half.png")
    # The format of a broken file is reported, too.
    formats = {"half.jpg": "JPEG", "half.png": "PNG", "a GIF.jpg": "GIF", "zero.png": None}
    assert {name: found.format(f"ash/{name}") for name in formats} == formats
    assert ("ash/a GIF.jpg", "GIF") in found.report.mislabelled
    for name, what in {"text.png": "not an image", "page.jpg": "a web page", "zip.png": "an archive"}.items():
        assert what in found.left_out(f"elm/{name}")


def _bomb(root: Path) -> None:
    data = png(20_000, 20_000, 1, 0)
    assert len(data) < 60_000
    write_files(root / "ash", {"400 megapixels.png": data})


def _check_bomb(found: Found) -> None:
    assert "more than 64,000,000" in found.left_out("ash/400 megapixels.png")
    assert found.format("ash/400 megapixels.png") == "PNG"


def _check_rotated(found: Found) -> None:
    assert found.size("ash/rotated.jpg") == (20, 40)
    red = found.image("ash/rotated.jpg")[0].astype(int)
    side = red.shape[0]
    assert red[side // 6, side // 2] > 220 and red[-side // 6, side // 2] < 30


def _deep(root: Path) -> None:
    ramp = np.linspace(0, 1, 1024).reshape(32, 32)
    colour = np.repeat((ramp * 65535).astype(">u2")[:, :, None], 3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in colour)
    write_files(
        root / "oak",
        {
            "grey16.png": encoded((ramp * 65535).astype(np.uint16)),
            "grey16.tif": encoded((ramp * 65535).astype(np.uint16), "TIFF"),
            "grey12.tif": tiff_of_12_bits((ramp * 4095).astype(np.uint16)),
            "float32.tif": encoded(ramp.astype(np.float32), "TIFF"),
            "int32.tif": encoded((ramp * (2**31 - 1)).astype(np.int32), "TIFF"),
            "signed32.tif": tiff(((2 * ramp - 1) * (2**31 - 1)).astype(np.int32)),
            "uint32.tif": tiff((ramp * (2**32 - 1)).astype(np.uint32)),
            "int16.tif": tiff((ramp * 32767).astype(np.int16)),
            "signed16.tif": tiff((ramp * 65535 - 32768).astype(np.int16)),
            "signed-float.tif": encoded((6 * ramp - 3).astype(np.float32), "TIFF"),
            "signed8.tif": tiff((ramp * 255 - 128).astype(np.int8)),
            "white is zero 16.tif": tiff(((1 - ramp) * 65535).astype(np.uint16), "miniswhite"),
            "white is zero float.tif": tiff((1 - ramp).astype(np.float32), "miniswhite"),
            "filtered.tif": tiff((ramp - 1e-4).astype(np.float32)),
            "float.pfm": pfm(ramp.astype(np.float32)),
            "colour16.png": png(32, 32, 16, 2, rows),
        },
    )
    write_files(root / "elm", {"nan.tif": encoded(np.full((9, 9), np.nan, dtype=np.float32), "TIFF")})


def _check_deep(found: Found) -> None:
    deep = (
        "grey16.png",
        "grey16.tif",
        "grey12.tif",
        "float32.tif",
        "int32.tif",
        "signed32.tif",
        "uint32.tif",
        "int16.tif",
        "signed16.tif",
        "signed8.tif",
        "white is zero 16.tif",
        "white is zero float.tif",
        "filtered.tif",
        "float.pfm",
    )
    for name in (*deep, "signed-float.tif", "colour16.png"):
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
    write_files(root / "oak", files)


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
    files["key-colour16.png"] = png(8, 8, 16, 2, (b"\0" + bytes((7, 1, 8, 2, 9, 3)) * 8) * 8, bytes((7, 1, 8, 2, 9, 3)))
    for bits in (1, 2, 4, 8, 16):
        files[f"key-grey{bits}.png"] = png(8, 8, bits, 0, _one_grey(bits), struct.pack(">H", _grey(bits)))
    write_files(root / "oak", files)


def _grey(bits: int) -> int:
    """A value of so many bits: a third of the range, or black."""
    return (2**bits - 1) // 3


def _one_grey(bits: int) -> bytes:
    """Rows of 8 x 8 pixels of it."""
    row = "".join(f"{_grey(bits):0{bits}b}" for _ in range(8))
    return (b"\0" + int(row, 2).to_bytes(bits, "big")) * 8


KEYED = ("key-colour.png", "key-colour16.png", *(f"key-grey{bits}.png" for bits in (1, 2, 4, 8, 16)))


def _check_transparent(found: Found) -> None:
    for name in ("rgba.png", "rgba.webp", "grey-alpha.png", "palette.png", "palette.gif", *KEYED):
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
    write_files(root / "elm", files)


def _check_other_content(found: Found) -> None:
    wrong = {(f"elm/really {kind}.jpg", kind) for kind in ("GIF", "BMP", "WEBP")}
    assert wrong <= set(found.report.mislabelled)
    assert not any("animated" in name for name, _ in found.report.mislabelled)
    assert all(found.report.formats[kind] >= 2 for kind in ("GIF", "WEBP")) and found.report.formats["BMP"] >= 1
    for kind in ("GIF", "BMP", "WEBP"):
        assert found.label(f"elm/really {kind}.jpg") == "elm" and found.format(f"elm/really {kind}.jpg") == kind
    for kind in ("gif", "webp", "tiff", "png"):
        assert found.image(f"elm/animated.{kind}")[:, 5, 5].tolist() == [255, 0, 0], kind


SUFFIXES = {"capital.JPG": "JPEG", "mixed.Jpeg": "JPEG", "web.webp": "WEBP", "scan.tif": "TIFF", "no suffix": "PNG"}


def _suffixes(root: Path) -> None:
    files = {name: encoded(noise(seed=number), kind) for number, (name, kind) in enumerate(SUFFIXES.items(), 230)}
    write_files(root / "ash", files)


def _check_suffixes(found: Found) -> None:
    assert all(found.label(f"ash/{name}") == "ash" for name in SUFFIXES)


def _long(root: Path) -> None:
    # From black to white: only its middle is kept, and that is grey.
    ramp = np.repeat(np.linspace(0, 255, 2000).round().astype(np.uint8)[None, :, None], 3, axis=2)
    files = {"wide.png": encoded(ramp), "tall.png": encoded(ramp.transpose(1, 0, 2))}
    write_files(root / "elm", {**files, "dot.png": encoded_image(Image.new("RGB", (1, 1), (127, 127, 127)))})


def _check_long(found: Found) -> None:
    assert found.report.elongated >= 2
    for name, size in (("wide.png", (2000, 1)), ("tall.png", (1, 2000)), ("dot.png", (1, 1))):
        assert found.size(f"elm/{name}") == size
        assert np.ptp(found.image(f"elm/{name}")) <= 3 and abs(found.image(f"elm/{name}").mean() - 127) <= 2


def _tiny(root: Path) -> None:
    for index, name in enumerate(("tiny a", "tiny b")):
        pixels = np.random.default_rng(340 + index).integers(0, 256, (520, 12, 12, 3), dtype=np.uint8)
        write_files(root / name, {f"{number}.png": encoded(image) for number, image in enumerate(pixels)})


def _check_tiny(found: Found) -> None:
    assert found.report.classes["tiny a"] == found.report.classes["tiny b"] == 520
    assert found.task.paths.count("tiny b/519.png") == 1


def _all_bad(root: Path) -> None:
    for name in ("ash", "oak"):
        write_files(root / name, {f"{number}.png": b"no" for number in range(5)})


def _nothing_left(root: Path) -> None:
    for name in ("ash", "oak"):
        write_files(root / name, {f"{number}.png": encoded(noise(seed=number)) for number in range(9)})


PASSING: dict[str, HostileRow] = {
    "truncated JPEG, zero bytes, half a PNG": HostileRow(_broken, _check_broken),
    "decompression bomb": HostileRow(_bomb, _check_bomb),
    "EXIF rotation": HostileRow(
        lambda root: write_files(root / "ash", {"rotated.jpg": rotated_photo()}), _check_rotated
    ),
    "16 and 32 bits a channel": HostileRow(_deep, _check_deep),
    "CMYK and YCCK": HostileRow(_print_colours, _check_print_colours),
    "transparency": HostileRow(_transparent, _check_transparent),
    "content is not the extension, animated files": HostileRow(_other_content, _check_other_content),
    "suffixes of every kind": HostileRow(_suffixes, _check_suffixes),
    "1x2000, 2000x1": HostileRow(_long, _check_long),
    "many tiny files": HostileRow(_tiny, _check_tiny),
}

REFUSED: dict[str, HostileRow] = {
    "everything unreadable": HostileRow(_all_bad, error=TooManyBadFilesError, words="10 of 10 files", alone=True),
    "nothing left after filtering": HostileRow(
        _nothing_left, error=EmptyClassError, words="No usable image in 2 of 2 classes", alone=True
    ),
}
