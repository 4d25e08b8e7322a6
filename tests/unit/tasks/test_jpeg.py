"""JPEGs that libjpeg-turbo decodes directly have the same pixels, metadata and errors as with Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from PIL import Image

from tans_core.tasks import decode as decode_module
from tans_core.tasks import jpeg
from tans_core.tasks.decode import UnreadableImageError, decode
from tests.factories.images import ORIENTATION, encoded, encoded_image, noise

EXIF = Image.Exif()
EXIF[ORIENTATION] = 6

OPTIONS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0, "quality": 95},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "quality 100": {"quality": 100, "subsampling": 0},
    "quality 5": {"quality": 5},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restart markers": {"restart_marker_blocks": 3},
    "RGB inside": {"keep_rgb": True},
    "turned": {"exif": EXIF},
    "comment and resolution": {"comment": b"a", "dpi": (72, 72)},
}


def photo(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return smooth colours under noise, which has every frequency."""
    down, across = np.mgrid[:height, :width]
    smooth = np.stack([across * 2, down * 3, across + down], axis=-1)
    return ((smooth + noise(width, height) // 4) % 256).astype(np.uint8)


def outcome(data: bytes) -> tuple[Any, ...]:
    try:
        decoded = decode(data)
    except UnreadableImageError as error:
        return str(error), error.format
    return decoded.format, decoded.width, decoded.height, decoded.pixels.tobytes()


def pillows(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    with monkeypatch.context() as patch:
        patch.setattr(decode_module, "decode_jpeg", lambda *_: None)
        return outcome(data)


def straight(data: bytes) -> Image.Image | None:
    with Image.open(io.BytesIO(data)) as image:
        return jpeg.decode_jpeg(image, data)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (129, 127), (132, 96), (300, 17)])
@pytest.mark.parametrize("options", OPTIONS)
def test_pixels_are_pillows(options: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(*size), "JPEG", **OPTIONS[options])
    assert straight(data) is not None
    wanted = pillows(data, monkeypatch)
    assert outcome(data) == wanted
    plain = jpeg.decode_plain(data, 2**16)
    assert (plain is None) == (options in ("progressive", "RGB inside", "turned"))
    assert plain is None or plain.tobytes() == wanted[-1]


@pytest.mark.parametrize("options", ["4:4:4", "4:2:0", "progressive", "restart markers"])
def test_pixels_of_files_that_pillow_reads_in_pieces_are_pillows(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(500, 400), "JPEG", **{"quality": 95, **OPTIONS[options]})
    assert len(data) > 2 * 65_536
    assert straight(data) is not None
    assert outcome(data) == pillows(data, monkeypatch)


@pytest.mark.parametrize("sampling", ["440", "411"])
def test_pixels_of_rare_samplings_are_pillows(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(photo(61, 45)), colorsubsampling=sampling)
    assert straight(data) is not None
    assert outcome(data) == pillows(data, monkeypatch)


@pytest.mark.parametrize("frame", [b"\xff\xc3", b"\xff\xc9", b"\xff\xca"])
def test_rare_codings_are_left_to_pillow(frame: bytes) -> None:
    data = encoded(photo(16, 16), "JPEG")
    assert straight(data.replace(b"\xff\xc0", frame)) is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_photos_are_upright(orientation: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    data = encoded(photo(40, 24), "JPEG", **({"exif": exif} if kind == "exif" else {"xmp": xmp}))
    assert straight(data) is not None
    assert outcome(data) == pillows(data, monkeypatch)
    assert decode(data).pixels.shape == ((40, 24, 3) if orientation > 4 else (24, 40, 3))


@pytest.mark.parametrize("options", ["4:2:0", "progressive", "restart markers"])
def test_damage_gives_what_pillow_gives(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(48, 40), "JPEG", **OPTIONS[options])
    draw = np.random.default_rng(0)
    damaged = [data[: int(length)] for length in draw.integers(1, len(data), 60)]
    for _ in range(240):
        other = bytearray(data)
        for place in draw.integers(0, len(data), draw.integers(1, 4)):
            other[place] = draw.integers(256)
        damaged.append(bytes(other))
    damaged += [data + b"trailing", data + data, data[:-2], data[:-2] + b"\0" * 40 + data[-2:]]
    outcomes = [outcome(one) for one in damaged]
    assert outcomes == [pillows(one, monkeypatch) for one in damaged]
    for one, found in zip(damaged, outcomes, strict=True):
        plain = jpeg.decode_plain(one, 2**16)
        assert plain is None or ("JPEG", *plain.shape[1::-1], plain.tobytes()) == found
    assert any(len(one) == 2 for one in outcomes), "none was refused"
    assert any(len(one) == 4 for one in outcomes), "none was read"


def test_a_plain_file_of_more_pixels_than_wanted_is_left_to_pillow() -> None:
    data = encoded(photo(20, 20), "JPEG")
    assert jpeg.decode_plain(data, 400) is not None and jpeg.decode_plain(data, 399) is None


@pytest.mark.parametrize("scans", [2, 200])
def test_a_file_of_several_scans_is_left_to_pillow(scans: int) -> None:
    data = encoded(photo(20, 20), "JPEG", subsampling=0)
    start = data.index(b"\xff\xda")
    # One scan a colour, as some cameras write them.
    apart = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * scans
    assert jpeg.decode_plain(data[:start] + apart + data[start:], 400) is None


def test_what_only_pillow_knows_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(photo(20, 20))
    assert straight(encoded_image(picture.convert("L"), "JPEG")) is None
    assert straight(encoded_image(picture.convert("CMYK"), "JPEG")) is None
    assert straight(encoded_image(picture, "PNG")) is None
    monkeypatch.setattr(jpeg, "MAX_PIXELS", 399)
    assert straight(encoded_image(picture, "JPEG")) is None


@pytest.mark.parametrize("error", [ValueError, RuntimeError, MemoryError])
def test_what_fails_here_is_left_to_pillow(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(16, 16), "JPEG")
    wanted = outcome(data)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    assert straight(data) is None
    assert outcome(data) == wanted


def test_several_pictures_in_a_file_give_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Image.fromarray(photo(32, 32)), Image.fromarray(photo(32, 32)[::-1])
    data = encoded_image(first, "MPO", save_all=True, append_images=[second])
    assert straight(data) is not None
    assert outcome(data) == pillows(data, monkeypatch)
