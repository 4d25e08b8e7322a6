"""From decoded samples to a task: caps and normalisation.

Axes: N images, K classes; in pixels: H and W = sides of an original image, s = side of a stored one, S = the largest s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tans_core.licences import Licence
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.splits import Splittable, balanced_subset, labels_of
from tans_core.tasks.task import SPLITS, Role, Task, TaskInfo

_MIN_STD = 0.01


class Sized(Splittable, Protocol):
    """The fields of an image that `assemble` reads."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def assemble(
    rows: Sequence[Sized],
    splits: npt.NDArray[np.str_],
    pixels: Callable[[npt.NDArray[np.int64]], SquareImages],
    *,
    name: str,
    source: str,
    licence: Licence,
    role: Role,
    stored_size_px: int,
    limits: tuple[int | None, int | None, int | None],
    seed: int,
) -> Task:
    """Make a task of prepared samples whose classes and splits were judged: cap its splits and normalise.

    Args:
        rows: without copies (see `tans_core.tasks.duplicates`).
        splits: (N,) from `plan_splits`; there is an image in train.
        pixels: returns the images of the given row numbers.
        stored_size_px: S.
        limits: the most images of train, val, test; None for all.
    """
    class_names, labels = labels_of(rows)
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
