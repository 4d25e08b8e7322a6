"""Colour JPEGs decoded by libjpeg-turbo directly: the pixels of Pillow, in less and steadier time.

Pillow decodes each row into one buffer and copies it from there. If that buffer begins at a multiple of 32 bytes, which
is chance, libjpeg-turbo bypasses the cache, each row is read back from main memory, and decoding takes up to twice as
long.
"""

from __future__ import annotations

import math

import simplejpeg
from PIL import Image

MAX_PIXELS = 16_000_000
"""Larger images are left to Pillow: here the pixels are in memory twice for a moment."""

# Frames of lossless and arithmetic coding: not every version of Pillow reads them, or not at every length.
_RARE_FRAMES = (b"\xff\xc3", b"\xff\xc9", b"\xff\xca")


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
    try:
        # Any warning of libjpeg is an error here: Pillow then decides.
        pixels = simplejpeg.decode_jpeg(data, "RGBX", strict=True)  # (H, W, 4)
        if pixels.shape[1::-1] != image.size:
            return None
        decoded = Image.frombytes("RGB", image.size, pixels, "raw", "RGBX")
    except (ValueError, RuntimeError, MemoryError):
        return None
    decoded.info = image.info
    return decoded
