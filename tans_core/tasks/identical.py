"""Which images are the same, pixel by pixel, whatever files they are in.

Images that are not the same at their stored size are not the same. Of those that are, files that differ are read again,
to compare all their pixels: few, as a rule, so that a scan need not hash every photograph in full.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import xxhash
from PIL import Image

from tans_core.runtime import progress
from tans_core.tasks.inputs.base import Entry, Input
from tans_core.tasks.reading import read_images
from tans_core.tasks.strips import strips


def with_all_pixels(source: Input, entries: Sequence[Entry], facts: pa.Table) -> pa.Table:
    """Return the facts (`tans_core.tasks.reading.SCHEMA`) with looks that only images of the same pixels share.

    Args:
        source: what the entries are of.
        entries: what was opened.
        facts: a row for each.
    """
    looks, contents = facts["look"].to_pylist(), facts["sha256"].to_pylist()
    files: dict[bytes, dict[str, int]] = {}
    for number, (look, content) in enumerate(zip(looks, contents, strict=True)):
        if look is not None:
            files.setdefault(look, {}).setdefault(content, number)
    again = sorted(number for alike in files.values() if len(alike) > 1 for number in alike.values())
    if not again:
        return facts
    told: dict[tuple[bytes, str], bytes] = {}
    images = read_images(source, (entries[number] for number in again))
    for number, (_, image) in zip(again, progress(images, "Comparing images", len(again)), strict=True):
        # What is gone since, or has changed, is like itself alone.
        told[looks[number], contents[number]] = (
            contents[number].encode() if isinstance(image, str) else _all_pixels(image.image)
        )
    known = [told.get((look, content), look) for look, content in zip(looks, contents, strict=True)]
    return facts.set_column(facts.schema.get_field_index("look"), "look", pa.array(known, type=pa.binary()))


def _all_pixels(image: Image.Image) -> bytes:
    """Return a hash of an image's pixels and sides."""
    hashed = xxhash.xxh3_128(f"{image.width} {image.height}".encode())
    for _, strip in strips(image):
        hashed.update(strip.tobytes())
    return hashed.digest()
