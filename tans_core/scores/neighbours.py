"""The k-NN probe: do an image's nearest others have its class? Axes: n images, D feature width, K classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tans_core.scores.inputs import checked


def knn_probe(features: npt.ArrayLike, labels: npt.ArrayLike, neighbours: int = 5) -> float:
    """Return the share of images that get their class by a vote of their nearest others.

    k-nearest neighbours (Cover and Hart 1967), leaving each image out in turn, by the cosine of standardised features.
    Of classes with equally many votes, that of the nearest image wins.

    Args:
        features: (n, D), any float type; constant columns have no effect.
        labels: (n,), of K classes. A class of one image is never right.
        neighbours: votes; fewer where there are fewer other images.

    Returns:
        0..1.

    Raises:
        ValueError: wrong shapes, features that are not finite, or no neighbours.
        TooFewImagesError: fewer than two classes.
    """
    rows, codes, classes = checked(features, labels)
    if neighbours < 1:
        raise ValueError(f"neighbours: got {neighbours}, want at least 1.")
    standard = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-9)
    standard /= np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), 1e-12)
    places = torch.from_numpy(standard)  # torch respects its thread limit
    cosines = (places @ places.T).fill_diagonal_(-torch.inf)
    nearest = cosines.topk(min(neighbours, len(codes) - 1), dim=1).indices.numpy()  # nearest first
    votes = codes[nearest]  # (n, neighbours)
    # A vote counts more than any order of the nearest, which decides ties.
    points = np.zeros((len(codes), classes))
    images = np.arange(len(codes))
    for place in reversed(range(votes.shape[1])):
        voted = points[images, votes[:, place]]
        points[images, votes[:, place]] = np.floor(voted) + 1 + 0.5 * (1 - place / votes.shape[1])
    return float((points.argmax(axis=1) == codes).mean())
