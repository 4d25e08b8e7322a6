"""Facts from the headers of files that Pillow reports too late, or not at all."""

from __future__ import annotations

import io
import math
import re
import struct
from contextlib import suppress

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

MAX_SCANS = 100
"""Of a progressive JPEG. Each scan takes as long as a whole image, and a kilobyte can hold ten."""

_PNG_BITS = 24  # offset of the bits a sample in a PNG's header
_OLD_BITMAP = 12  # bytes of its header
# JPEG markers that a length follows.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")

_AS_JPEG = "save it as JPEG or PNG"
# By their first bytes; files like MP4 have their kind at byte 8.
_STARTS = {
    rb"....ftyp(hei|hev|mif1|msf1)": ("HEIC, as phones take pictures,", "save it as JPEG, as `heif-convert` does"),
    rb"....ftypcrx|FUJIFILMCCD|II[RU][OS\0]|\0MRM": ("a camera's raw file", "export it as JPEG"),
    rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI |OggS|FLV\x01": ("a video", "save some of its frames as images"),
    rb"DDS ": ("DDS", _AS_JPEG),
    rb"qoif": ("QOI", _AS_JPEG),
    rb"8BPS|gimp xcf": ("a file of Photoshop or GIMP", _AS_JPEG),
    rb"\xff\x0a|\0\0\0\x0cJXL ": ("JPEG XL", _AS_JPEG),
    rb"v/1\x01|SIMPLE  =": ("OpenEXR or FITS", _AS_JPEG),
    rb"%!PS|\xc5\xd0\xd3\xc6|%PDF": ("PostScript or PDF", "save its pages as images"),
    rb"\x93NUMPY|\x89HDF|.{128}DICM": ("a file of values (NumPy, HDF5, DICOM)", "save each image as PNG or TIFF"),
    rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ": ("an archive", "unpack it"),
    rb"version https://git-lfs": ("a pointer of Git LFS", "fetch the files with `git lfs pull`"),
    rb"\s*(<[?!].*?>\s*)*<svg": ("an SVG drawing", "save it as PNG, as `resvg` does"),
    rb"\s*<(!doctype )?html": ("a web page", "download the image itself"),
}
_START_BYTES = 4096
_TIFF = (b"II*\0", b"MM\0*")
_SUBFILE, _OLD_SUBFILE, _BITS, _SAMPLES, _KIND = 254, 255, 258, 277, 339
_KINDS = {2: "signed ", 3: "floating "}


def icon_sides(data: bytes) -> tuple[int, int]:
    """Return the sides of the largest image in an icon, which Pillow decodes as soon as it opens the file."""
    sides = [(0, 0)]
    # As Pillow does, read as many entries as the icon claims, up to the end of the data.
    end = min(6 + 16 * int.from_bytes(data[4:6], "little"), len(data))
    for offset in range(6 + 12, end, 16) if data.startswith(b"\0\0\1\0") else ():
        start = int.from_bytes(data[offset : offset + 4], "little")
        if not 6 + 16 <= start <= len(data) - 24:
            continue
        if data[start : start + 4] == b"\x89PNG":
            header = data.find(b"IHDR", start, len(data) - 8)
            sides.append(struct.unpack_from(">II", data, header + 4) if header > 0 else (0, 0))
        else:
            old = data[start] == _OLD_BITMAP
            width, height = struct.unpack_from("<HH" if old else "<ii", data, start + 4)
            # A bitmap's height includes its mask, and is negative if its first row is the top one.
            sides.append((abs(width), abs(height) // 2))
    return max(sides, key=math.prod)


def count_scans(data: bytes) -> int:
    """Count the scans of a JPEG's first image, ignoring appended data; 0 if they cannot exceed `MAX_SCANS`."""
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return 0
    count, offset = 0, 2
    while (marker := _MARKER.search(data, offset)) and marker[1] != b"\xd9":
        count += marker[1] == b"\xda"
        offset = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return count


def scale_key(image: Image.Image, data: bytes) -> None:
    """Bring the transparent value of a PNG to 8 bits; Pillow scales the pixels only.

    16-bit grey stays at 16 bits for `from_deep_grey`. Of 16-bit colour Pillow keeps the upper 8 bits, as is done here.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("1", "L", "RGB") or not isinstance(key, int | tuple):
        return
    bits = data[_PNG_BITS]
    if isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> (bits - 8) for value in key)
    elif bits > 1:  # for 1 bit, Pillow scales the value too
        image.info["transparency"] = (key & (2**bits - 1)) * 255 // (2**bits - 1)


def named(data: bytes) -> str:
    """Return why a file is not read: its kind by its content, and what to do."""
    if data[:4] in _TIFF:
        # A broken directory may raise any error.
        with suppress(Exception):
            directory = ImageFileDirectory_v2(data[:8])
            file = io.BytesIO(data)
            file.seek(directory.next)
            directory.load(file)
            bits, kind = directory.get(_BITS, (1,))[0], _KINDS.get(directory.get(_KIND, (1,))[0], "")
            values = f"{directory.get(_SAMPLES, 1)} x {bits}-bit {kind}values"
            return f"a TIFF of {values} a pixel, which is not read: save it with 8 or 16 bits, without alpha"
        return "a broken TIFF: save it again"
    start = data[:_START_BYTES]
    for pattern, (what, way) in _STARTS.items():
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return f"{what} which is not read: {way}" if what.endswith(",") else f"{what}, which is not read: {way}"
    return "not an image, or of a format that is not read"


def is_preview(tags: object) -> bool:
    """Return whether a TIFF's first picture is a reduced one, as in camera raw files; the full one comes later."""
    get = getattr(tags, "get", None)
    return get is not None and bool(get(_SUBFILE, 0) & 1 or get(_OLD_SUBFILE) == 2)
