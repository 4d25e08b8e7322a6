"""Decoding of one chunk of files, which a worker process does.

Axes: s = an image's stored side in pixels.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from tans_core.leash import die_with_parent
from tans_core.runtime import keep_freed_memory
from tans_core.tasks.decode import Decoded, UnreadableImageError, decode, take_turns_by
from tans_core.tasks.inputs.base import Entry, Input, file_content
from tans_core.tasks.jpeg import decode_plain
from tans_core.tasks.pixels import Pixels
from tans_core.tasks.stacks import SMALL_PIXELS, fit_each, resized

VERSION = 12
"""Part of every stored chunk's name: raise it when the decoder or a column changes."""

THUMBNAIL_PX = 16
MIN_CONTRAST = 2.0
"""Standard deviation of a thumbnail, on the scale 0..255, below which an image has no content to compare."""

# Entries requested at a time. An archive is read forwards, and one image is in memory at a time.
_RUN = 256
_HASHED_PX = 2 * THUMBNAIL_PX
_DIGEST_BYTES = 32
# Grey as in Pillow (ITU-R 601).
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# The eight lowest frequencies of the cosine transform (DCT-II). Importing scipy for it takes longer than computing it.
_COSINES = np.cos(np.pi / _HASHED_PX * np.outer(np.arange(8), np.arange(_HASHED_PX) + 0.5))


class OnDisk(NamedTuple):
    """A file to be read."""

    path: str


# An image's content, its file, or the reason why it could not be read.
Content = bytes | OnDisk | str

SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("sha256", pa.string()),
        ("format", pa.string()),
        ("note", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("blank", pa.bool_()),
        ("phash", pa.uint64()),
        ("thumbnail", pa.binary(THUMBNAIL_PX**2)),
        ("digest", pa.binary(_DIGEST_BYTES)),
        ("pixels", pa.large_binary()),
    ]
)
"""The columns of a chunk.

`reason` is set if a file cannot be used. The others are then null, except `sha256` if the file could be read and
`format` if it begins as an image. `pixels`: (3, s, s) uint8; `digest` is their SHA-256.
"""


class _Facts(NamedTuple):
    """The first columns of a row."""

    reason: str | None
    sha256: str | None
    format: str | None
    note: str | None = None
    width: int | None = None
    height: int | None = None


def read_chunk(contents: Sequence[Content], stored_size_px: int) -> pa.RecordBatch:
    """Decode files; return a row for each (`SCHEMA`)."""
    facts: list[_Facts] = []
    pixels: list[bytes] = []
    greys = [np.empty((0, _HASHED_PX, _HASHED_PX), dtype=np.float32)]
    shows = [np.empty(0, dtype=np.bool_)]
    for squares, clear in fit_each(_images(contents, facts), stored_size_px):
        pixels += [image.tobytes() for image in squares.transpose(0, 3, 1, 2)]
        greys.append(_greys(squares))
        shows.append(clear)
    usable = np.array([one.reason is None for one in facts])
    grey = np.concatenate(greys)
    thumbnails = _thumbnails(grey)
    columns = [
        pa.array((thumbnails.std(axis=(1, 2)) < MIN_CONTRAST) & ~np.concatenate(shows)),
        pa.array(perceptual_hashes(grey), type=pa.uint64()),
        _binary(thumbnails),
        pa.array([hashlib.sha256(image).digest() for image in pixels], type=pa.binary(_DIGEST_BYTES)),
        pa.array(pixels, type=pa.large_binary()),
    ]
    if not usable.all():
        # Rows of files that cannot be used stay null.
        place_of = pa.array(np.cumsum(usable) - 1, mask=~usable)
        columns = [column.take(place_of) for column in columns]
    plain = [pa.array(values, type=field.type) for values, field in zip(zip(*facts, strict=True), SCHEMA, strict=False)]
    return pa.RecordBatch.from_arrays([*plain, *columns], schema=SCHEMA)


def _images(contents: Sequence[Content], facts: list[_Facts]) -> Iterator[Image.Image | Pixels]:
    """Yield the images of the files that can be used, and add the facts of every file."""
    for content in contents:
        data = file_content(content.path) if isinstance(content, OnDisk) else content
        content_hash = None if isinstance(data, str) else hashlib.sha256(data).hexdigest()
        try:
            if isinstance(data, str):
                raise UnreadableImageError(data)
            image = decode_plain(data, SMALL_PIXELS)
            if image is not None:
                facts.append(_Facts(None, content_hash, "JPEG", None, image.shape[1], image.shape[0]))
                yield image
                continue
            decoded = decode(data)
        except UnreadableImageError as error:
            facts.append(_Facts(str(error), content_hash, error.format))
            continue
        facts.append(_Facts(None, content_hash, decoded.format, decoded.note, decoded.width, decoded.height))
        yield np.asarray(decoded.image) if math.prod(decoded.image.size) <= SMALL_PIXELS else decoded.image
        # Free the memory before the next image is decoded.
        del data, decoded


def read_images(source: Input, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Decoded | str]]:
    """Yield each entry with its image at its own size, or with the reason why it cannot be read; one at a time."""
    for own_file, group in itertools.groupby(entries, key=lambda entry: entry.path is not None):
        while run := list(itertools.islice(group, _RUN)):
            contents = (file_content(entry.path) for entry in run if entry.path) if own_file else source.read(run)
            yield from zip(run, map(_decoded, contents), strict=True)


def perceptual_hashes(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Return the pHash of each of N images (N, 32, 32), 64 bits, equal to that of `imagehash.phash`.

    A bit is set if one of the 8 x 8 lowest frequencies of the cosine transform is above their median (Zauner 2010).
    """
    if len(grey) == 0:
        return np.empty(0, dtype=np.uint64)
    # Frequencies that an image lacks (half of them in a mirrored one) are rounding errors; rounded, they are zero.
    low = (_COSINES @ grey.astype(np.float64) @ _COSINES.T).round(3).reshape(len(grey), 64)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).ravel()


def unusable(texts: Sequence[str]) -> pa.RecordBatch:
    """Return the rows of files that cannot be used."""
    return pa.RecordBatch.from_pylist([{"reason": text} for text in texts], schema=SCHEMA)


def _decoded(data: bytes | str) -> Decoded | str:
    if isinstance(data, str):
        return data
    try:
        return decode(data)
    except UnreadableImageError as error:
        return str(error)


def begin_reading(lock: AbstractContextManager[object]) -> None:
    """Set up a worker process: it ends with its parent, decodes large images in turn, and keeps freed memory."""
    die_with_parent()
    take_turns_by(lock)
    keep_freed_memory()
    Image.init()


def _binary(values: npt.NDArray[np.uint8]) -> pa.Array:
    """Return values (n, ...) as n binary values of fixed size."""
    kind = pa.binary(values[0].size if len(values) else int(np.prod(values.shape[1:])))
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, data])


def _greys(images: Pixels) -> npt.NDArray[np.float32]:
    """Return images (n, s, s, 3) in grey at the size that is hashed, (n, 32, 32)."""
    side = images.shape[1]
    # The decoder's filter, so that the hash depends little on the stored size.
    kernel = Image.Resampling.HAMMING if side > _HASHED_PX else Image.Resampling.BILINEAR
    small = images if side == _HASHED_PX else resized(images, _HASHED_PX, kernel)
    return (np.ascontiguousarray(small) @ _LUMA).astype(np.float32)


def _thumbnails(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return (n, 16, 16) from (n, 32, 32): means of 2 x 2 pixels."""
    rows = grey[:, 0::2] + grey[:, 1::2]
    return ((rows[:, :, 0::2] + rows[:, :, 1::2]) / 4).round().astype(np.uint8)
