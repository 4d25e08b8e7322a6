"""Checks the inputs of the scores. Axes: n images, D feature width, K classes, r rank."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tans_core.errors import TooFewImagesError

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
_NOTHING = 1e-12
"""Singular values below this share of the largest one are rounding errors."""


def checked(values: npt.ArrayLike, labels: npt.ArrayLike, what: str = "features") -> tuple[Floats, Codes, int]:
    """Return the rows (n, D) as float64, the labels (n,) numbered from 0 without gaps, and the number of classes.

    Raises:
        ValueError: wrong shapes, or a value that is not finite.
        TooFewImagesError: fewer than two classes.
    """
    rows = np.asarray(values, dtype=np.float64)
    names = np.asarray(labels)
    if rows.ndim != 2 or rows.shape[1] == 0 or names.shape != rows.shape[:1]:
        raise ValueError(
            f"{what} have shape {rows.shape} and labels {names.shape}, want (n, D) with D of at least 1, and (n,)."
        )
    if not np.isfinite(rows).all():
        image = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"{what} of image {image} are not finite. The network's weights are damaged.")
    classes, codes = np.unique(names, return_inverse=True)
    if len(classes) < 2:
        raise TooFewImagesError(f"{len(classes)} classes have images, want at least 2. Add images.")
    return rows, codes.astype(np.int64), len(classes)


def decompose(rows: Floats) -> tuple[Floats, Floats]:
    """Return left singular vectors (n, r) and singular values (r,) of rows (n, D), without those that are zero."""
    # torch respects its thread limit; numpy would use the cores of the other workers.
    left, singular = (part.numpy() for part in torch.linalg.svd(torch.from_numpy(rows), full_matrices=False)[:2])
    kept = singular > _NOTHING * float(singular.max(initial=0.0))
    return left[:, kept], singular[kept]


def centred(rows: Floats) -> Floats:
    """Return rows (n, D) less their mean; columns that are constant up to rounding become exactly zero."""
    moved: Floats = rows - rows.mean(axis=0)
    moved[:, np.abs(moved).max(axis=0) <= _NOTHING * np.abs(rows).max(axis=0)] = 0.0
    return moved
