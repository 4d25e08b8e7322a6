"""Colour profiles: networks get the colours that people see."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tans_core.tasks.decode import decode
from tans_core.tasks.scan import scan
from tans_core.views.summary import summary
from tests.factories.images import cmyk_jpeg, encoded, encoded_image, noise, write_class_folders

# (x, y) of red, green and blue, and the white point D50 that profiles are made for.
DISPLAY_P3 = {
    "rXYZ": (0.51512, 0.2412, -0.00105),
    "gXYZ": (0.29198, 0.69225, 0.04189),
    "bXYZ": (0.1571, 0.06657, 0.78407),
}
ADOBE_RGB = {
    "rXYZ": (0.60974, 0.31111, 0.01947),
    "gXYZ": (0.20528, 0.62567, 0.06087),
    "bXYZ": (0.14919, 0.06322, 0.74457),
}
# From XYZ (D50) to the light of sRGB.
FROM_XYZ = np.linalg.inv(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)


def _profile(name: str, primaries: dict[str, tuple[float, float, float]], gamma: float = 2.2) -> bytes:
    """An ICC profile (version 2) of a display: three colours, and one power for each."""

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    text = name.encode() + b"\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(8 + 3 + 67),
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        **{key.encode(): xyz(values) for key, values in primaries.items()},
        **{
            key: b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
            for key in (b"rTRC", b"gTRC", b"bTRC")
        },
    }
    return _icc(b"mntr", b"RGB ", b"XYZ ", tags)


def _icc(device: bytes, colours: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for key, value in tags.items():
        value += bytes(-len(value) % 4)
        table += key + struct.pack(">II", start + len(data), len(value))
        data += value
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"lcms", 0x02400000, device, colours, connection)
    head += bytes(12) + b"acsp" + bytes(24) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _to_srgb(pixels: np.ndarray, primaries: dict[str, tuple[float, float, float]], gamma: float) -> np.ndarray:
    """The slow, obvious way: to light, by the profile's colours to XYZ (D50), by those of sRGB back, to values."""
    to_xyz = np.array([primaries[key] for key in ("rXYZ", "gXYZ", "bXYZ")]).T
    return _values(np.clip((pixels / 255) ** gamma @ to_xyz.T @ FROM_XYZ.T, 0, 1))


def _values(light: np.ndarray) -> np.ndarray:
    """The values of sRGB, 0..255, of light in 0..1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize(("name", "primaries"), [("Display P3", DISPLAY_P3), ("Adobe RGB (1998)", ADOBE_RGB)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_colours_of_other_profiles_are_brought_to_srgb(name: str, primaries: dict, kind: str) -> None:
    pixels = (
        np.array([[[200, 60, 60], [60, 180, 70]], [[70, 80, 190], [128, 128, 128]]], np.uint8).repeat(8, 0).repeat(8, 1)
    )
    found = decode(encoded(pixels, kind, icc_profile=_profile(name, primaries)))
    assert found.note == f"colours of the profile {name!r} brought to sRGB"
    assert np.abs(found.pixels - _to_srgb(pixels, primaries, 2.2)).max() <= 2.5
    assert np.abs(found.pixels.astype(int) - pixels).max() > 10


def test_transparent_and_jpeg_pictures_are_converted_too() -> None:
    profile = _profile("Display P3", DISPLAY_P3)
    red = np.full((16, 16, 3), (200, 60, 60), np.uint8)
    wanted = _to_srgb(red, DISPLAY_P3, 2.2)
    see_through = encoded(np.dstack([red, np.full((16, 16), 255, np.uint8)]), icc_profile=profile)
    assert np.abs(decode(see_through).pixels - wanted).max() <= 2.5
    assert np.abs(decode(encoded(red, "JPEG", quality=98, icc_profile=profile)).pixels - wanted).max() <= 6


@pytest.mark.parametrize(
    "profile", [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"no profile", b""]
)
def test_srgb_and_broken_profiles_leave_pixels_as_they_are(profile: bytes) -> None:
    pixels = noise(16, 16)
    found = decode(encoded(pixels, icc_profile=profile))
    assert found.note is None and np.array_equal(found.pixels, pixels)


def test_a_profile_for_other_colours_than_the_picture_s_is_passed_over() -> None:
    grey = Image.fromarray(noise(16, 16)[..., 0])
    found = decode(encoded_image(grey, "PNG", icc_profile=_profile("Display P3", DISPLAY_P3)))
    assert np.abs(found.pixels.astype(int) - np.asarray(grey)[..., None]).max() <= 3
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert decode(encoded_image(cmyk, "JPEG", icc_profile=_profile("Display P3", DISPLAY_P3))).note is None


# CIE Lab under D50 of a full layer of one ink, and of bare paper.
INKS = {
    (255, 0, 0, 0): (60, -20, -30),
    (0, 255, 0, 0): (50, 60, -10),
    (0, 0, 255, 0): (88, -5, 70),
    (0, 0, 0, 255): (0, 0, 0),
    (0, 0, 0, 0): (100, 0, 0),
}


def _press() -> bytes:
    """An ICC profile of a printing press: a table of two values an ink, read as `INKS`, all other mixtures black."""
    layers = [tuple(255 * (number >> bit & 1) for bit in (3, 2, 1, 0)) for number in range(16)]
    table = b"".join(
        bytes((round(light * 255 / 100), red + 128, yellow + 128))
        for light, red, yellow in (INKS.get(layer, (0, 0, 0)) for layer in layers)
    )
    unit, straight = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9))), bytes(range(256))
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 6) + b"Press\0" + bytes(8 + 3 + 67),
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061),
        b"A2B0": b"mft1\0\0\0\0\4\3\2\0" + unit + 4 * straight + table + 3 * straight,
    }
    return _icc(b"prtr", b"CMYK", b"Lab ", tags)


def _lab_to_srgb(lab: tuple[float, float, float]) -> np.ndarray:
    """The slow, obvious way: CIE Lab to XYZ (D50), to the light of sRGB, to values."""
    height = (lab[0] + 16) / 116
    steps = np.array([height + lab[1] / 500, height, height - lab[2] / 200])
    xyz = np.array([0.9642, 1, 0.8249]) * np.where(steps > 6 / 29, steps**3, 3 * (6 / 29) ** 2 * (steps - 4 / 29))
    return _values(np.clip(FROM_XYZ @ xyz, 0, 1))


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("kind", ["JPEG of Adobe", "JPEG", "TIFF"])
def test_prints_are_brought_to_srgb_by_their_profile(kind: str, ink: tuple[int, int, int, int]) -> None:
    if kind == "TIFF":
        data = encoded_image(Image.new("CMYK", (16, 16), ink), "TIFF", icc_profile=_press())
    else:
        data = cmyk_jpeg(ink, adobe=kind != "JPEG", icc_profile=_press())
    found = decode(data)
    assert found.note == "colours of the profile 'Press' brought to sRGB"
    assert np.abs(found.pixels - _lab_to_srgb(INKS[ink])).max() <= 6
    without_profile = decode(cmyk_jpeg(ink, adobe=True)).pixels.astype(int)
    assert any(ink[:3]) == (np.abs(without_profile - found.pixels).max() > 6)


def test_prints_are_counted_by_their_profile(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ash": 4, "oak": 4})
    for number in range(3):
        print_of = Image.fromarray(noise(seed=number)).convert("CMYK")
        (tmp_path / f"oak/print {number}.jpg").write_bytes(encoded_image(print_of, "JPEG", icc_profile=_press()))
    with scan(tmp_path, stored_size_px=16) as found:
        assert "3 images: colours of the profile 'Press' brought to sRGB" in summary(found.report)


def test_converted_pictures_are_counted(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ash": 4, "oak": 4})
    for number in range(3):
        data = encoded(noise(seed=number), icc_profile=_profile("Display P3", DISPLAY_P3))
        (tmp_path / f"ash/phone {number}.png").write_bytes(data)
    with scan(tmp_path, stored_size_px=16) as found:
        assert len(found.report.noted) == 3
        assert "3 images: colours of the profile 'Display P3' brought to sRGB" in summary(found.report)
