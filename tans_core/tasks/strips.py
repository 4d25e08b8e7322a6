"""Large images, a strip at a time: a copy of a whole photograph, or of its values, may take 1 GB."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

_PIXELS = 2**20


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield strips of about a million pixels, each with the number of its first row."""
    height = max(1, _PIXELS // image.width)
    for top in range(0, image.height, height):
        yield top, image.crop((0, top, image.width, min(top + height, image.height)))
