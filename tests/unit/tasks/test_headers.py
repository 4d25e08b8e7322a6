"""Files whose headers Pillow reads too late: they are refused before they are decoded, and no other files are."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from tans_core.tasks.decode import UnreadableImageError, decode
from tans_core.tasks.headers import count_scans, icon_sides
from tests.factories.images import encoded, encoded_image, noise


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_icons_are_refused_before_their_pixels_are_read() -> None:
    image = encoded_image(Image.new("RGBA", (300, 200)))
    small = encoded_image(Image.new("RGBA", (16, 16), (9, 9, 9, 255)), "ICO", bitmap_format="bmp")
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(image), 22)
    icon = struct.pack("<HHH", 0, 1, 1) + entry + image
    assert decode(icon).width == 300 and decode(small).pixels[0, 0].tolist() == [9, 9, 9]
    with pytest.raises(UnreadableImageError, match="300x200 pixels") as refused:
        decode(icon, max_pixels=50_000)
    assert refused.value.format == "ICO"
    # Another entry that leads nowhere, and bitmaps as they come: from the top, with the header of OS/2.
    twice = (
        struct.pack("<HHH", 0, 1, 2) + entry[:12] + struct.pack("<I", 38) + bytes(12) + struct.pack("<I", 2**31) + image
    )
    assert decode(twice).width == 300
    # What its directory does not tell the truth about, or the picture does not begin with.
    claims = icon[:4] + struct.pack("<H", 2) + icon[6:]
    odd = icon.replace(b"IHDR", b"tEXt\0\0\0\0....\0\0\0\x0dIHDR", 1)
    assert icon_sides(claims) == icon_sides(odd) == (300, 200)
    place = small.index(struct.pack("<I", 40), 22)
    down = small[: place + 8] + struct.pack("<i", -32) + small[place + 12 :]
    for bitmap in (down, small[:place] + struct.pack("<IHHHH", 12, 16, 32, 1, 32) + small[place + 12 :]):
        assert icon_sides(bitmap) == (16, 16)
    for broken in (icon[:20], icon[:30], b"\0\0\1\0\xff\xff"):
        with pytest.raises(UnreadableImageError):
            decode(broken)


def test_jpegs_of_endless_scans_are_refused_before_they_are_read() -> None:
    data = encoded(noise(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert decode(data).format == "JPEG"
    with pytest.raises(UnreadableImageError, match="scans, more than 100"):
        decode(data[:last] + data[last:-2] * 120 + data[-2:])
    # Marks without a length hide none. A run of ones is looked through once: from each of them, it would take days.
    with pytest.raises(UnreadableImageError, match="scans, more than 100"):
        decode(data[:last] + b"\xff\x01\xff\xff" + data[last:-2] * 120 + data[-2:])
    assert count_scans(data[:2] + b"\xff\xda\0\2" * 200 + b"\xff" * 2**22 + b"\0") == 200
    # A film behind the picture, and a note before it, hold what looks like scans.
    note = b"\xff\xe4" + struct.pack(">H", 2002) + b"\xff\xda" * 1000
    whole = data[:2] + note + data[2:] + b"\xff\xda" * 1000
    np.testing.assert_array_equal(decode(whole).pixels, decode(data).pixels)
