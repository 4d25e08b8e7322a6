"""Scores that take the features of a class for a Gaussian: the regularised H-score and GBC.

Axes: n images, D feature width, K classes, r rank, P principal components.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tans_core.errors import TooFewImagesError
from tans_core.scores.inputs import Codes, Floats, centred, checked, decompose

_COMPONENTS = 64
_LEAST_VARIANCE = 1e-6
"""Of a class, as a share of that of all features: a class without spread would be infinitely far from others."""


def h_score(features: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the variance between classes, measured in the variance of the features.

    The H-score (Bao et al. 2019), with the covariance shrunk as by Ledoit and Wolf (2004): Ibrahim et al., "Newer is
    not always better: rethinking transferability metrics, their peculiarities, stability and performance", 2021.

    The shrunk covariance has the same eigenvectors as the plain one, and class means lie in the span of the images. So
    one decomposition of the images gives everything, and no D x D matrix is made.

    Args:
        features: (n, D), any float type; n may be less than D.
        labels: (n,), of K classes.

    Returns:
        0 for features that do not tell classes apart, or are constant; at most K - 1.

    Raises:
        ValueError: wrong shapes, or features that are not finite.
        TooFewImagesError: fewer than two classes.
    """
    rows, codes, classes = checked(features, labels)
    rows, (count, width) = centred(rows), rows.shape
    left, singular = decompose(rows)
    if len(singular) == 0:
        return 0.0
    variances = singular**2 / count  # (r,) eigenvalues of the covariance
    mean = float(variances.sum()) / width
    squares = float((variances**2).sum())
    away = squares / width - mean**2  # how far the covariance is from a multiple of the identity
    unsure = (float(((rows**2).sum(axis=1) ** 2).sum()) / count - squares) / (count * width)
    shrinkage = min(unsure, away) / away if min(unsure, away) > 0 else 0.0
    means, sizes = _class_means(left * singular, codes, classes)  # along the principal axes
    between = (sizes[:, None] * means**2).sum(axis=0) / count  # (r,)
    return float((1 - shrinkage) * (between / ((1 - shrinkage) * variances + shrinkage * mean)).sum())


def gbc(features: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return how little the Gaussians of the classes overlap, by the Bhattacharyya coefficient of each pair.

    Pándy et al., "Transferability estimation using Bhattacharyya class separability", CVPR 2022, with spherical
    Gaussians on the first 64 principal components, as there.

    Args:
        features: (n, D), any float type; n may be less than D.
        labels: (n,), of K classes. A class of one image gets the mean variance of the others.

    Returns:
        Minus the sum of the overlaps of ordered pairs: from -K (K - 1), where all classes are the same, to 0.

    Raises:
        ValueError: wrong shapes, or features that are not finite.
        TooFewImagesError: fewer than two classes, or no class with two images.
    """
    rows, codes, classes = checked(features, labels)
    left, singular = decompose(centred(rows))
    places = (left * singular)[:, :_COMPONENTS]  # (n, P)
    means, sizes = _class_means(places, codes, classes)
    if sizes.max() < 2:
        raise TooFewImagesError(f"each of {classes} classes has 1 image, want 2 in at least one of them. Add images.")
    width = places.shape[1]
    if width == 0:
        return -float(classes * (classes - 1))
    errors = ((places - means[codes]) ** 2).mean(axis=1)
    sums = np.bincount(codes, errors, minlength=classes)
    common = float(sums[sizes > 1].sum() / sizes[sizes > 1].sum())
    least = _LEAST_VARIANCE * float((places**2).mean())
    variances = np.maximum(np.where(sizes > 1, sums / sizes, common), least)  # (K,)
    apart = ((means[:, None] - means[None]) ** 2).sum(axis=2)  # (K, K)
    middle = (variances[:, None] + variances) / 2
    distance = apart / middle / 8 + width / 2 * np.log(middle / np.sqrt(variances[:, None] * variances))
    overlap = np.exp(-distance)
    np.fill_diagonal(overlap, 0.0)
    return -float(overlap.sum())


def _class_means(rows: Floats, codes: Codes, classes: int) -> tuple[Floats, Floats]:
    """Return the mean of each class (K, ·), and its number of images (K,)."""
    members = np.eye(classes)[codes]
    sizes = members.sum(axis=0)
    means: Floats = members.T @ rows / sizes[:, None]
    return means, sizes
