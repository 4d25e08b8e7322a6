"""Which images are the same, pixel by pixel, in any file format.

Images that differ at their stored size are different. If different files are equal at their stored size, they are read
again and all pixels are compared. These are few, so a scan need not hash every photograph in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import xxhash
from PIL import Image

from tans_core.runtime import progress
from tans_core.tasks.inputs.base import Entry, Input
from tans_core.tasks.reading import read_images
from tans_core.tasks.strips import strips


def with_all_pixels(source: Input, entries: Sequence[Entry], facts: pa.Table) -> pa.Table:
    """Return the facts (`tans_core.tasks.reading.SCHEMA`) with `look`, equal only for images of the same pixels.

    Args:
        source: the input of the entries.
        entries: the files that were opened.
        facts: a row for each.
    """
    contents, *stored = (facts[name].to_pylist() for name in ("sha256", "width", "height", "digest"))
    looks: list[Any] = [None if look[-1] is None else b"%d %d %b" % look for look in zip(*stored, strict=True)]
    files: dict[bytes, dict[str, int]] = {}
    for number, (look, content) in enumerate(zip(looks, contents, strict=True)):
        if look is not None:
            files.setdefault(look, {}).setdefault(content, number)
    again = sorted(number for alike in files.values() if len(alike) > 1 for number in alike.values())
    exact: dict[tuple[bytes, str], bytes] = {}
    images = read_images(source, (entries[number] for number in again))
    for number, (_, image) in zip(again, progress(images, "Comparing images", len(again)), strict=True):
        # A file that can no longer be read is equal only to itself.
        exact[looks[number], contents[number]] = (
            contents[number].encode() if isinstance(image, str) else _all_pixels(image.image)
        )
    new_looks = [exact.get((look, content), look) for look, content in zip(looks, contents, strict=True)]
    return facts.append_column("look", pa.array(new_looks, type=pa.binary()))


def _all_pixels(image: Image.Image) -> bytes:
    """Return a hash of an image's pixels and sides."""
    hashed = xxhash.xxh3_128(f"{image.width} {image.height}".encode())
    for _, strip in strips(image):
        hashed.update(strip.tobytes())
    return hashed.digest()
