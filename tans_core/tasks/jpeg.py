"""Colour JPEGs decoded by libjpeg-turbo directly: the pixels of Pillow, in less and steadier time.

Pillow decodes each row into one buffer and copies it from there. If that buffer begins at a multiple of 32 bytes, which
is chance, libjpeg-turbo bypasses the cache, each row is read back from main memory, and decoding takes up to twice as
long.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

MAX_PIXELS = 16_000_000
"""Larger images are left to Pillow: here the pixels are in memory twice for a moment."""

# Frames of lossless and arithmetic coding: not every version of Pillow reads them, or not at every length.
_RARE_FRAMES = (b"\xff\xc3", b"\xff\xc9", b"\xff\xca")

# A JFIF header of the usual length; a baseline frame of 8 bits; one scan of three colours.
_JFIF, _FRAME, _SCAN = b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"\xff\xc0\0\x11\x08", b"\xff\xda\0\x0c\x03"
# Tables, restart intervals and comments.
_NO_METADATA = (b"\xff\xdb", b"\xff\xc4", b"\xff\xdd", b"\xff\xfe")


def decode_plain(data: bytes, max_pixels: int) -> npt.NDArray[np.uint8] | None:
    """Decode a JPEG of the most frequent kind, (H, W, 3), without Pillow, which takes as long for its headers alone.

    None for other kinds: metadata, several scans, more than `max_pixels`, damage.
    """
    offset, sides = len(_JFIF) + 9, (0, 0)
    while data.startswith((_FRAME, *_NO_METADATA), offset):
        if data.startswith(_FRAME, offset):
            sides = int.from_bytes(data[offset + 5 : offset + 7]), int.from_bytes(data[offset + 7 : offset + 9])
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4])
    plain = data.startswith(_JFIF) and data.startswith(_SCAN, offset) and 0 < math.prod(sides) <= max_pixels
    return _pixels(data, "RGB", sides) if plain else None


def decode_jpeg(image: Image.Image, data: bytes) -> Image.Image | None:
    """Decode an RGB JPEG that Pillow opened, keeping its metadata; return None if Pillow has to decode it.

    Args:
        image: opened, its pixels not yet read.
        data: the file's content.
    """
    if image.format not in ("JPEG", "MPO") or image.mode != "RGB" or math.prod(image.size) > MAX_PIXELS:
        return None
    if any(frame in data for frame in _RARE_FRAMES):
        return None
    pixels = _pixels(data, "RGBX", image.size[::-1])
    if pixels is None:
        return None
    decoded = Image.frombytes("RGB", image.size, pixels, "raw", "RGBX")
    decoded.info = image.info
    return decoded


def _pixels(data: bytes, colours: str, sides: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """Return pixels (H, W, channels); None if libjpeg warns, so that Pillow decides, or if the sides differ."""
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=True)
    except (ValueError, RuntimeError, MemoryError):
        return None
    return pixels if pixels.shape[:2] == sides else None
