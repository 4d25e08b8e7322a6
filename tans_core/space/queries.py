"""Input of the query encoder: statistics of image features.

Axes: n images, K classes, F feature width, S = 3 F + 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tans_core.runtime import derive_seed

Floats = npt.NDArray[np.float32]


def query_statistics(features: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """Summarise a task's images: mean, standard deviation, standard deviation of the class means, and class count.

    TANS uses the mean alone. Two tasks with similar images still differ in how their classes are spread.

    Args:
        features: (n, F), n at least 1.
        labels: (n,); all equal for a data set without labels.

    Returns:
        (S,) float32: mean (F), standard deviation (F), standard deviation of the class means (F), log K. The order of
        the images does not matter.
    """
    wide = features.astype(np.float64)
    _, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes)
    sums = np.zeros((len(counts), wide.shape[1]))
    np.add.at(sums, codes, wide)
    prototypes = sums / counts[:, None]  # (K, F)
    parts = [wide.mean(axis=0), wide.std(axis=0), prototypes.std(axis=0), np.log([float(len(counts))])]
    return np.concatenate(parts).astype(np.float32)


def sampled_statistics(features: Floats, labels: npt.NDArray[np.int64], samples: int, images: int, seed: int) -> Floats:
    """Summarise random samples of a task's images, (samples, S), as other draws of the same data set would vary.

    Each sample draws `images` images with replacement, or as many as there are if fewer.
    """
    rng = np.random.default_rng(derive_seed(seed, "query samples"))
    draws = (rng.integers(len(features), size=min(images, len(features))) for _ in range(samples))
    return np.stack([query_statistics(features[draw], labels[draw]) for draw in draws])
