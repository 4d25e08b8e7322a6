"""How well frozen features separate classes: a ridge regression with leave-one-out cross-validation.

It has a closed form: one small decomposition per network.

Axes: n images, K classes, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

_PENALTIES = tuple(10.0**exponent for exponent in range(-3, 4))
"""As shares of the features' mean squared singular value."""


@dataclass(frozen=True)
class ProbeScore:
    """The leave-one-out result of a probe.

    Attributes:
        accuracy: share of images classified correctly, 0..1.
        fit: share of the labels' variance that is explained, at most 1; finer than the accuracy, and negative where the
            features predict worse than the class frequencies alone.
    """

    accuracy: float
    fit: float


def ridge_probe(features: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> ProbeScore:
    """Score features (n, D) by how well a ridge regression predicts the labels (n,), leaving each image out in turn.

    The regularisation is the one with the smallest leave-one-out error.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    shares = np.bincount(codes) / len(codes)
    targets = np.eye(len(classes))[codes] - shares  # (n, K)
    centred = features - features.mean(axis=0)
    deviation = centred.std(axis=0)
    centred = centred[:, deviation > 1e-9] / deviation[deviation > 1e-9]
    if centred.shape[1] == 0:
        return ProbeScore(float(shares.max()), 0.0)
    # torch respects its thread limit; numpy would use the cores of the other workers.
    left, singular = (part.numpy() for part in torch.linalg.svd(torch.from_numpy(centred), full_matrices=False)[:2])
    projected = left.T @ targets  # (r, K)
    total = float((targets**2).sum())
    best: ProbeScore | None = None
    for penalty in _PENALTIES:
        shrink = singular**2 / (singular**2 + penalty * float((singular**2).mean()))  # (r,)
        fitted = left @ (shrink[:, None] * projected)  # (n, K)
        leverage = (left**2) @ shrink + 1 / len(labels)  # the mean is fitted, too
        left_out = targets - (targets - fitted) / np.maximum(1 - leverage, 1e-6)[:, None]
        fit = 1 - float(((targets - left_out) ** 2).sum()) / total
        if best is None or fit > best.fit:
            best = ProbeScore(float(((left_out + shares).argmax(axis=1) == codes).mean()), fit)
    assert best is not None
    return best
