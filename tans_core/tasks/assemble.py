"""From decoded samples to a task: duplicates, classes, splits, caps, normalisation.

Axes: N images, K classes; in pixels: H and W = sides of an original image, s = side of a stored one, S = the largest s.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from natsort import natsorted

from tans_core.errors import DataError, TooFewImagesError
from tans_core.licences import Licence
from tans_core.tasks.decode import fit_box
from tans_core.tasks.duplicates import Labelled
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.splits import assign_splits, balanced_subset, carve_val
from tans_core.tasks.task import SPLITS, Role, Task, TaskInfo

_MIN_STD = 0.01


@dataclass(frozen=True)
class Sample:
    """One labelled image, at its original size.

    Attributes:
        image: (H, W) grey or (H, W, 3) RGB, uint8.
        label: the class's name.
        group: images of one group (a typeface, a field, a region of a picture) stay in one split. Empty: no group.
        path: a name for reports.
        split: set where the source defines its own splits, else None.
        sha256: hash of the file's content; None where the image has no file of its own.
    """

    image: npt.NDArray[np.uint8]
    label: str
    group: str
    path: str
    split: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A sample at its stored size; `image` is (3, s, s) uint8, `content` a hash of what it was made from."""

    image: npt.NDArray[np.uint8]
    label: str
    group: str
    path: str
    split: str | None
    content: str
    width: int
    height: int


def prepare(sample: Sample, stored_size_px: int) -> Prepared:
    """Bring a sample to its stored size and hash its content."""
    height, width = sample.image.shape[:2]
    content = sample.sha256
    if content is None:
        pixels = np.ascontiguousarray(sample.image)
        content = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    image = fit_box(sample.image, stored_size_px)
    return Prepared(image, sample.label, sample.group, sample.path, sample.split, content, width, height)


class Splittable(Labelled, Protocol):
    """The fields of an image that `assemble` reads; images of one `group` stay in one split, unless it is empty."""

    @property
    def group(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def assemble(
    rows: Sequence[Splittable],
    pixels: Callable[[npt.NDArray[np.int64]], SquareImages],
    *,
    name: str,
    source: str,
    licence: Licence,
    role: Role,
    stored_size_px: int,
    limits: tuple[int | None, int | None, int | None],
    min_images_per_class: int,
    seed: int,
) -> Task:
    """Split, cap and normalise prepared samples.

    Args:
        rows: without copies (see `tans_core.tasks.duplicates`).
        pixels: returns the images of the given row numbers.
        stored_size_px: S.
        limits: the most images of train, val, test; None for all.
        min_images_per_class: a class with fewer is refused.

    Raises:
        TooFewImagesError: a class has too few images.
        DataError: there are fewer than two classes, or a source's own split lacks train or test images.
    """
    # Natural order treats 1 and 01 as equal: sorting by letters first makes the order the same in every process.
    class_names = tuple(natsorted(sorted({row.label for row in rows})))
    counts = Counter(row.label for row in rows)
    scarce = [f"{label!r} ({counts[label]})" for label in class_names if counts[label] < min_images_per_class]
    if scarce:
        raise TooFewImagesError(
            f"task {name!r}: {len(scarce)} of {len(class_names)} classes have fewer than {min_images_per_class} usable "
            f"images: {', '.join(scarce[:8])}. Add images, or leave the classes out."
        )
    if len(class_names) < 2:
        raise DataError(f"task {name!r}: got {len(class_names)} class, want at least 2.")
    index_of = {label: index for index, label in enumerate(class_names)}
    labels = np.array([index_of[row.label] for row in rows], dtype=np.int64)
    splits = _split(rows, labels, name, seed)
    order = _cap(labels, splits, [row.group for row in rows], limits, seed)
    chosen = [rows[index] for index in order]
    images = pixels(order)
    final_splits = splits[order]
    mean, std = _normalisation([images[index] for index in np.flatnonzero(final_splits == "train").tolist()])
    info = TaskInfo(
        name=name,
        source=source,
        licence=licence.expression,
        licence_texts=licence.texts,
        role=role,
        class_names=class_names,
        stored_size_px=stored_size_px,
        mean=mean,
        std=std,
        counts={split: int((final_splits == split).sum()) for split in SPLITS},
    )
    return Task(
        info=info,
        images=images,
        labels=labels[order],
        splits=final_splits,
        sha256=tuple(row.content for row in chosen),
        paths=tuple(row.path for row in chosen),
        sizes=np.array([(row.width, row.height) for row in chosen], dtype=np.int32),
    )


def _split(rows: Sequence[Splittable], labels: npt.NDArray[np.int64], name: str, seed: int) -> npt.NDArray[np.str_]:
    groups = [row.group for row in rows]
    given = {row.split for row in rows}
    if given == {None}:
        return assign_splits(labels, groups, seed)
    if None in given or not {"train"} <= given:
        raise DataError(
            f"task {name!r}: its source puts images in splits {sorted(map(str, given))}; want train and test, or none."
        )
    splits = np.array([row.split for row in rows], dtype="<U5")
    if "test" not in given:
        # With train and val only, val serves as the test split.
        splits[splits == "val"] = "test"
    return splits if {"val", "test"} <= given else carve_val(splits, labels, groups, seed)


def _cap(
    labels: npt.NDArray[np.int64],
    splits: npt.NDArray[np.str_],
    groups: list[str],
    limits: tuple[int | None, int | None, int | None],
    seed: int,
) -> npt.NDArray[np.int64]:
    """Return the row numbers to keep, split by split, each in random order: its first n rows are of many classes."""
    rng = np.random.default_rng(seed)
    parts = []
    for split, limit in zip(SPLITS, limits, strict=True):
        members = np.flatnonzero(splits == split)
        limit = len(members) if limit is None else limit
        picked = balanced_subset(labels[members], [groups[index] for index in members], limit, rng)
        parts.append(members[picked])
    return np.concatenate(parts)


Triple = tuple[float, float, float]


def _normalisation(images: Sequence[npt.NDArray[np.uint8]]) -> tuple[Triple, Triple]:
    """Return mean and standard deviation a channel, in 0..1, of images (3, s, s) uint8; each image counts the same."""
    # Sums of integers and of `fsum` are exact, so the order of the images changes no digit.
    means, squares = [], []
    for image in images:
        wide = image.reshape(3, -1).astype(np.int64)
        means.append(wide.sum(axis=1) / wide.shape[1])
        squares.append((wide**2).sum(axis=1) / wide.shape[1])
    mean = np.array([math.fsum(column) for column in zip(*means, strict=True)]) / len(images) / 255
    square = np.array([math.fsum(column) for column in zip(*squares, strict=True)]) / len(images) / 255**2
    std = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), _MIN_STD)
    return _triple(mean), _triple(std)


def _triple(values: npt.NDArray[np.float64]) -> Triple:
    red, green, blue = (round(float(value), 6) for value in values)
    return red, green, blue
