"""Copies, contradictions, near-copies and leaks among images.

Two images are near-copies if their perceptual hashes differ in at most `MAX_BITS` bits and their thumbnails correlate
to at least `MIN_CORRELATION`. Measured: 90-100 % of photographs stay within both after re-encoding (JPEG of quality
30, GIF), scaling by a half, conversion to grey, or a change of brightness. Among 5,000 MNIST digits and 1,900 glyphs no
pair is found; by hashes alone there would be 11,469 pairs of digits.

Axes: N images, T = thumbnail pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tans_core.tasks.reading import MIN_CONTRAST

MAX_BITS = 7
MIN_CORRELATION = 0.99

# If two hashes differ in at most MAX_BITS bits, at least one of MAX_BITS + 1 parts is equal in both.
_BANDS = MAX_BITS + 1
_BAND_BITS = 64 // _BANDS
# In a larger bucket, images are compared only with their neighbours in the order of the hashes, not all with all.
_BUCKET = 2048
_NEIGHBOURS = 64
# In a smaller one, this many are compared at a time with all that follow.
_ROWS = 96
_SPLIT_ORDER = {"test": 0, "val": 1, "train": 2, None: 3}


class Labelled(Protocol):
    """The fields of an image that this module reads; `content` is a hash of what the image was made from."""

    @property
    def path(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def split(self) -> str | None: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True)
class Copies:
    """The result of `find_copies`.

    Attributes:
        kept: indices of the images that stay, in order.
        copies: paths left out because their content came before, in the same split.
        leaks: pairs of paths with one content in two splits; the first, of the earlier split, is left out.
    """

    kept: list[int]
    copies: list[str]
    leaks: list[tuple[str, str]]


def repeated(keys: Sequence[Hashable]) -> list[list[int]]:
    """Return the indices of each key that occurs more than once, in the order of first occurrence."""
    times = Counter(keys)
    members: dict[Hashable, list[int]] = {}
    if len(times) < len(keys):
        for index, key in enumerate(keys):
            if times[key] > 1:
                members.setdefault(key, []).append(index)
    return list(members.values())


def contradictory(rows: Sequence[Labelled], looks: Sequence[Hashable]) -> tuple[list[int], list[tuple[str, str]]]:
    """Find images that are the same but have two labels.

    Args:
        rows: N images.
        looks: N hashes of their pixels.

    Returns:
        Indices of the images that stay, in order; and pairs of paths with two labels, which cover all the others.
    """
    out: set[int] = set()
    pairs = []
    for first, *more in repeated(looks):
        other = next((index for index in more if rows[index].label != rows[first].label), None)
        if other is not None:
            out |= {first, *more}
            pairs += [(index, other) if rows[index].label == rows[first].label else (first, index) for index in more]
    kept = [index for index in range(len(rows)) if index not in out]
    return kept, [(rows[one].path, rows[other].path) for one, other in pairs]


def find_copies(rows: Sequence[Labelled]) -> Copies:
    """Find images whose content came before; `contradictory` has left out content with two labels."""
    # If the source defines splits and an image is in train and test, the copy in train is left out.
    order = sorted(range(len(rows)), key=lambda index: _SPLIT_ORDER[rows[index].split])
    first = {
        index: members[0] for members in repeated([rows[index].content for index in order]) for index in members[1:]
    }
    pairs = [(rows[order[index]], rows[order[first[index]]]) for index in sorted(first)]
    gone = {order[index] for index in first}
    return Copies(
        kept=[index for index in range(len(rows)) if index not in gone],
        copies=[row.path for row, earlier in pairs if row.split == earlier.split],
        leaks=[(row.path, earlier.path) for row, earlier in pairs if row.split != earlier.split],
    )


def near_copies(
    hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8], looks: Sequence[Hashable]
) -> npt.NDArray[np.int64]:
    """Group near-copies.

    Args:
        hashes: (N,) perceptual hashes of 64 bits.
        thumbnails: (N, T) grey values.
        looks: N hashes of the pixels; equal ones are near-copies even if the images are blank.

    Returns:
        (N,) the number of each image's group; an image without near-copies is alone in its group.
    """
    count = len(hashes)
    same = [(first, index) for first, *more in repeated(looks) for index in more]
    pairs = [np.array(same, dtype=np.int64).reshape(-1, 2).T]
    for one, other in _candidates(hashes):
        alike = _alike(thumbnails, one, other)
        pairs.append(np.stack([one[alike], other[alike]]))
    return _connected(np.concatenate(pairs, axis=1), count)


def together(groups: npt.NDArray[np.int64], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Join images that are near-copies or have the same group name, directly or through other images.

    Args:
        groups: (N,) from `near_copies`.
        names: N group names; empty for none.

    Returns:
        (N,) the number of each image's group.
    """
    named = [name or index for index, name in enumerate(names)]
    pairs = [(first, index) for keys in (groups.tolist(), named) for first, *more in repeated(keys) for index in more]
    return _connected(np.array(pairs, dtype=np.int64).reshape(-1, 2).T, len(names))


def _connected(pairs: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return the number of each image's group, (count,), from the pairs (2, P) that belong together."""
    one, other = pairs
    if len(one) == 0:
        return np.arange(count)
    # Imported here: it takes a third of a second, and most folders have no copies.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    _, groups = connected_components(links, directed=False)
    return np.asarray(groups, dtype=np.int64)


def without_leaks(rows: Sequence[Labelled], groups: npt.NDArray[np.int64]) -> tuple[list[int], list[tuple[str, str]]]:
    """Take near-copies of test images out of train and val, and those of val images out of train.

    Args:
        rows: N images of an input that defines its own splits.
        groups: (N,) from `near_copies`.

    Returns:
        Indices of the images that stay, in order, and (path left out, path that it looks like).
    """
    latest: dict[int, Labelled] = {}
    for group, row in zip(groups.tolist(), rows, strict=True):
        if _SPLIT_ORDER[row.split] < _SPLIT_ORDER[latest.setdefault(group, row).split]:
            latest[group] = row
    kept, leaks = [], []
    for index, row in enumerate(rows):
        other = latest[int(groups[index])]
        if row.split == other.split:
            kept.append(index)
        else:
            leaks.append((row.path, other.path))
    return kept, leaks


def _candidates(hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield pairs of images whose hashes differ in at most `MAX_BITS` bits; a pair may come more than once."""
    for band in range(_BANDS):
        part = (hashes >> np.uint64(band * _BAND_BITS)) & np.uint64(2**_BAND_BITS - 1)
        order = np.lexsort((hashes, part))
        starts = np.flatnonzero(np.diff(part[order], prepend=np.uint64(2**_BAND_BITS)))
        for bucket in np.split(order, starts[1:]):
            if len(bucket) > 1:
                yield from _close(hashes, bucket)


def _close(
    hashes: npt.NDArray[np.uint64], bucket: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    if len(bucket) <= _BUCKET:
        for start in range(0, len(bucket), _ROWS):
            rest = bucket[start:]
            part = rest[:_ROWS]
            close = np.bitwise_count(hashes[part, None] ^ hashes[None, rest]) <= MAX_BITS
            # Each image is close to itself.
            if np.count_nonzero(close) > len(part):
                one, other = np.nonzero(close)
                later = one < other
                yield part[one[later]], rest[other[later]]
        return
    for step in range(1, _NEIGHBOURS):
        one, other = bucket[:-step], bucket[step:]
        close = np.bitwise_count(hashes[one] ^ hashes[other]) <= MAX_BITS
        yield one[close], other[close]


def _alike(
    thumbnails: npt.NDArray[np.uint8], one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    alike = np.empty(len(one), dtype=np.bool_)
    for start in range(0, len(one), 8192):
        part = slice(start, start + 8192)
        a, b = (_centred(thumbnails[index[part]]) for index in (one, other))
        norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        clear = (a.std(axis=1) > MIN_CONTRAST) & (b.std(axis=1) > MIN_CONTRAST)
        alike[part] = clear & ((a * b).sum(axis=1) >= MIN_CORRELATION * norms)
    return alike


def _centred(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    return values
