"""What the headers of image files say that Pillow tells too late, or not at all."""

from __future__ import annotations

import math
import re
import struct

from PIL import Image

MAX_SCANS = 100
"""Of a progressive JPEG, each of which takes as long as a whole image: a kilobyte can hold ten."""

# Where a PNG says how many bits a sample has: in its header, which comes first.
_PNG_BITS = 24
_OLD_BITMAP = 12  # bytes of its header
# But those without a length, which stand alone.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")


def icon_sides(data: bytes) -> tuple[int, int]:
    """Return the sides of the largest image that an icon holds: Pillow decodes it as soon as it opens the file."""
    sides = [(0, 0)]
    # As many entries as it claims, as Pillow reads them, wherever they end.
    end = min(6 + 16 * int.from_bytes(data[4:6], "little"), len(data))
    for place in range(6 + 12, end, 16) if data.startswith(b"\0\0\1\0") else ():
        start = int.from_bytes(data[place : place + 4], "little")
        if not 6 + 16 <= start <= len(data) - 24:
            continue
        if data[start : start + 4] == b"\x89PNG":
            header = data.find(b"IHDR", start, len(data) - 8)
            sides.append(struct.unpack_from(">II", data, header + 4) if header > 0 else (0, 0))
        else:
            old = data[start] == _OLD_BITMAP
            width, height = struct.unpack_from("<HH" if old else "<ii", data, start + 4)
            # A bitmap's height counts its mask, and is negative where it begins at the top.
            sides.append((abs(width), abs(height) // 2))
    return max(sides, key=math.prod)


def count_scans(data: bytes) -> int:
    """Count the scans of a JPEG's first image, not of what is appended; 0 where they cannot be more than `MAX_SCANS`."""
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return 0
    count, place = 0, 2
    while (marker := _MARKER.search(data, place)) and marker[1] != b"\xd9":
        count += marker[1] == b"\xda"
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return count


def scale_key(image: Image.Image, data: bytes) -> None:
    """Bring the value that a PNG calls transparent to 8 bits, as Pillow brings the pixels, but not the value.

    16-bit grey stays at 16 bits for `from_deep_grey`; of 16-bit colour Pillow keeps the upper 8 bits, and these are compared.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("1", "L", "RGB") or not isinstance(key, int | tuple):
        return
    bits = data[_PNG_BITS]
    if isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> (bits - 8) for value in key)
    elif bits > 1:  # of 1 bit, Pillow scales the value too
        image.info["transparency"] = (key & (2**bits - 1)) * 255 // (2**bits - 1)
