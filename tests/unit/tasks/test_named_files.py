"""Files that are not read are reported with their format; of pictures in several sizes the full one is read."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tans_core.tasks.decode import UnreadableImageError, decode
from tans_core.tasks.scan import scan
from tans_core.views.summary import summary
from tests.factories.images import encoded, encoded_image, noise, tiff, write_class_folders


def _preview() -> bytes:
    """A TIFF as cameras write raw files: a small picture first, which says so, and the full one below it (SubIFDs)."""
    width, height = 160, 120
    pixels = noise(width, height).tobytes()
    tags = {
        254: (4, 1),
        256: (4, width),
        257: (4, height),
        258: (3, 8),
        259: (3, 1),
        262: (3, 2),
        277: (3, 3),
        278: (4, height),
        279: (4, len(pixels)),
    }
    full = {254: (4, 0), 256: (4, 3000), 257: (4, 2000), 258: (3, 8), 262: (3, 1)}
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags[273] = (4, start + 2 + 12 * len(full) + 4)
    tags[330] = (4, start)

    def directory(of: dict[int, tuple[int, int]]) -> bytes:
        entries = [
            struct.pack("<HHI", tag, kind, 1) + (struct.pack("<I", value)) for tag, (kind, value) in sorted(of.items())
        ]
        return struct.pack("<H", len(of)) + b"".join(entries) + bytes(4)

    return b"II*\0" + struct.pack("<I", 8) + directory(tags) + directory(full) + pixels


@pytest.mark.parametrize("suffix", ["nef", "dng", "tif"])
def test_a_camera_s_preview_is_never_taken_for_its_picture(suffix: str, tmp_path: Path) -> None:
    with Image.open(io.BytesIO(_preview())) as image:
        image.load()  # Pillow alone takes the small one
        assert image.size == (160, 120)
    write_class_folders(tmp_path, {"ash": 4, "oak": 4})
    (tmp_path / f"ash/raw.{suffix}").write_bytes(_preview())
    with scan(tmp_path, stored_size_px=16) as found:
        ((name, reason),) = found.report.bad
    assert name == f"ash/raw.{suffix}" and "160x120" in reason and "camera's raw file" in reason and "export" in reason


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC.* save it as JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), "HEIC.* save it as JPEG"),
        (b"DDS |\0\0\0" + bytes(99), "DDS, .*JPEG or PNG"),
        (b"qoif" + bytes(99), "QOI, .*JPEG or PNG"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG drawing, .*PNG"),
        (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<!DOCTYPE svg>\n<svg/>', "SVG drawing, .*PNG"),
        (b"\0\0\0\x20ftypisom" + bytes(99), "a video, .*frames"),
        (b"\x1aE\xdf\xa3" + bytes(99), "a video, .*frames"),
        (b"\0\0\0\x18ftypcrx " + bytes(99), "camera's raw file, .*export"),
        (b"8BPS\0\1" + bytes(99), "Photoshop"),
        (b"\xff\x0a" + bytes(99), "JPEG XL"),
        (b"<!DOCTYPE html><html>404", "a web page, .*download the image itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"%PDF-1.7\n", "PDF"),
        (tiff(np.random.default_rng(0).random((8, 9))), "1 x 64-bit floating values"),
        (tiff(np.random.default_rng(0).random((8, 9)).astype(np.float16)), "1 x 16-bit floating values"),
        (tiff(np.random.default_rng(0).random((8, 9, 3)).astype(np.float32), "rgb"), "3 x 32-bit floating values"),
        (b"just some words", "not an image"),
    ],
)
def test_files_of_other_kinds_are_named_with_the_way_out(data: bytes, words: str) -> None:
    with pytest.raises(UnreadableImageError, match=words):
        decode(data)


def test_grey_of_16_bits_with_alpha_is_read_or_named() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 9, 2), dtype=np.uint16)
    with pytest.raises(UnreadableImageError, match="2 x 16-bit values a pixel, which is not read"):
        decode(tiff(values, planarconfig="contig", extrasamples=["unassalpha"]))


def test_values_that_are_missing_are_said_with_their_share_and_listed_where_they_are_most() -> None:
    values = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    assert decode(tiff(values)).note is None
    values[:10] = np.nan
    decoded = decode(tiff(values))
    assert decoded.note == "25.0% of its pixels have no value (NaN or infinite), taken as the darkest"
    values[:30] = np.nan
    with pytest.raises(UnreadableImageError, match="75% of its pixels have no value"):
        decode(tiff(values))


def test_what_was_changed_is_in_report_and_manifest(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ash": 4, "oak": 4})
    values = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    values[0, 0] = np.nan
    (tmp_path / "ash/height.tif").write_bytes(tiff(values))
    with scan(tmp_path, stored_size_px=16) as found:
        ((name, note),) = found.report.noted
        notes = dict(zip(found.manifest["name"].to_pylist(), found.manifest["note"].to_pylist(), strict=True))
    assert name == "ash/height.tif" and notes[name] == note and "no value" in note
    assert "1 image: 0.1% of its pixels" in summary(found.report)


def test_white_icons_show_on_black_and_all_others_on_white() -> None:
    alpha = np.zeros((20, 20), np.uint8)
    alpha[5:15, 5:15] = 255
    white, black = (np.dstack([*[np.full_like(alpha, value)] * 3, alpha]) for value in (255, 0))
    for pixels, ground, shape in ((white, 0, 255), (black, 255, 0)):
        found = decode(encoded(pixels)).pixels
        assert (found[0, 0] == ground).all() and (found[10, 10] == shape).all()
    hidden = np.dstack([noise(20, 20), np.zeros_like(alpha)])
    assert (decode(encoded(hidden)).pixels == 255).all()
    palette = Image.fromarray((alpha // 255).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    found = decode(encoded_image(palette, "PNG", transparency=0)).pixels
    assert (found[0, 0] == 0).all() and (found[10, 10] == 255).all()


def test_two_classes_of_white_icons_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("disc", "bar"):
        (tmp_path / label).mkdir()
        for number in range(30):
            alpha = np.zeros((32, 32), np.uint8)
            top, left = rng.integers(2, 14, 2)
            if label == "disc":
                y, x = np.ogrid[:32, :32]
                alpha[(y - top - 8) ** 2 + (x - left - 8) ** 2 < 60] = 255 - number
            else:
                alpha[top : top + 4, 2:30] = 255 - number
            icon = np.dstack([*[np.full_like(alpha, 255)] * 3, alpha])
            (tmp_path / label / f"{number}.png").write_bytes(encoded(icon))
    with scan(tmp_path, stored_size_px=32) as found:
        assert found.report.used == 60 and not found.report.contradictions and not found.report.blank
