"""One chunk of files, decoded: what a worker process does.

Axes: S = working size in pixels, T = thumbnail pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from PIL import Image

from tans_core.leash import die_with_parent
from tans_core.runtime import keep_freed_memory
from tans_core.tasks.decode import UnreadableImageError, decode, fit
from tans_core.tasks.inputs.base import file_content

VERSION = 8
"""Part of every stored chunk's name: raise it when the decoder or a column changes."""

THUMBNAIL_PX = 16
_HASHED_PX = 2 * THUMBNAIL_PX
_LOOK_BYTES = 16
_STRIP = 2**20
"""Pixels that are hashed at a time."""
# Grey as Pillow has it (ITU-R 601).
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# The eight lowest frequencies of the cosine transform (DCT-II); scipy has it, and takes longer to import than to compute.
_COSINES = np.cos(np.pi / _HASHED_PX * np.outer(np.arange(8), np.arange(_HASHED_PX) + 0.5))


class OnDisk(NamedTuple):
    """A file that is to be read."""

    path: str


# An image's content, where it lies, or why it could not be had.
Content = bytes | OnDisk | str


def schema(image_size_px: int) -> pa.Schema:
    """Return the columns of a chunk.

    `reason` is set where a file cannot be used, and the rest is then null, but for `sha256` where it could be read.
    """
    return pa.schema(
        [
            ("reason", pa.string()),
            ("sha256", pa.string()),
            ("phash", pa.uint64()),
            ("look", pa.binary(_LOOK_BYTES)),
            ("thumbnail", pa.binary(THUMBNAIL_PX**2)),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("format", pa.string()),
            ("pixels", pa.binary(3 * image_size_px**2)),
        ]
    )


def read_chunk(contents: Sequence[Content], image_size_px: int) -> pa.RecordBatch:
    """Decode files, and return a row for each (`schema`)."""
    reasons: list[str | None] = []
    hashes: list[str | None] = []
    facts: list[tuple[int, int, str]] = []
    images: list[Image.Image] = []
    looks: list[bytes] = []
    for content in contents:
        try:
            data = file_content(content.path) if isinstance(content, OnDisk) else content
            hashes.append(None if isinstance(data, str) else hashlib.sha256(data).hexdigest())
            if isinstance(data, str):
                raise UnreadableImageError(data)
            decoded = decode(data)
        except UnreadableImageError as error:
            reasons.append(str(error))
            continue
        reasons.append(None)
        facts.append((decoded.width, decoded.height, decoded.format))
        looks.append(_look(decoded.image))
        images.append(fit(decoded.image, image_size_px))
    arrays = [np.asarray(image) for image in images]
    grey = _greys(images, arrays)
    width, height, formats = zip(*facts, strict=True) if facts else ((), (), ())
    pixels = np.empty((len(images), 3, image_size_px, image_size_px), dtype=np.uint8)
    for place, array in enumerate(arrays):
        pixels[place] = array.transpose(2, 0, 1)
    columns = [
        pa.array(perceptual_hashes(grey), type=pa.uint64()),
        pa.array(looks, type=pa.binary(_LOOK_BYTES)),
        _binary(_thumbnails(grey)),
        pa.array(width, type=pa.int32()),
        pa.array(height, type=pa.int32()),
        pa.array(formats, type=pa.string()),
        _binary(pixels),
    ]
    if len(images) < len(reasons):
        # Rows of files that cannot be used stay null.
        usable = np.array([reason is None for reason in reasons])
        place_of = pa.array(np.cumsum(usable) - 1, mask=~usable)
        columns = [column.take(place_of) for column in columns]
    texts = [pa.array(reasons, type=pa.string()), pa.array(hashes, type=pa.string())]
    return pa.RecordBatch.from_arrays([*texts, *columns], schema=schema(image_size_px))


def perceptual_hashes(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Return the pHash of 64 bits of each image, as `imagehash.phash` has it, many images at a time.

    The signs of the 8 x 8 lowest frequencies of the cosine transform, against their median (Zauner 2010).

    Args:
        grey: (N, 32, 32).
    """
    if len(grey) == 0:
        return np.empty(0, dtype=np.uint64)
    # Frequencies that an image lacks, a mirrored one half of them, come out as rounding errors: rounded, they are zero again.
    low = (_COSINES @ grey.astype(np.float64) @ _COSINES.T).round(3).reshape(len(grey), 64)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).ravel()


def unusable(texts: Sequence[str], image_size_px: int) -> pa.RecordBatch:
    """Return the rows of files that cannot be used."""
    return pa.RecordBatch.from_pylist([{"reason": text} for text in texts], schema=schema(image_size_px))


def begin_reading() -> None:
    """Set a worker process up: it ends with its parent, and keeps freed memory for the next image."""
    die_with_parent()
    keep_freed_memory()
    Image.init()


def _binary(values: npt.NDArray[np.uint8]) -> pa.Array:
    """Return one value of fixed size for each of (n, ...)."""
    kind = pa.binary(values[0].size if len(values) else int(np.prod(values.shape[1:])))
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, data])


def _look(image: Image.Image) -> bytes:
    """Return a hash of an image's pixels and sides: the same picture has the same, whatever its file."""
    hashed = xxhash.xxh3_128(f"{image.width} {image.height}".encode())
    # In strips, since a copy of a whole photograph takes much memory.
    height = max(1, _STRIP // image.width)
    for top in range(0, image.height, height):
        strip = image if height >= image.height else image.crop((0, top, image.width, min(top + height, image.height)))
        hashed.update(strip.tobytes())
    return hashed.digest()


def _greys(images: Sequence[Image.Image], arrays: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Return images in grey at the size that the hash works on, (n, 32, 32)."""
    size = (_HASHED_PX, _HASHED_PX)
    small = [
        array if image.size == size else np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        for image, array in zip(images, arrays, strict=True)
    ]
    colours = np.stack(small) if small else np.empty((0, *size, 3), dtype=np.uint8)
    return (colours @ _LUMA).astype(np.float32)


def _thumbnails(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return (n, 16, 16) from (n, 32, 32): the means of squares of two by two."""
    rows = grey[:, 0::2] + grey[:, 1::2]
    return ((rows[:, :, 0::2] + rows[:, :, 1::2]) / 4).round().astype(np.uint8)
