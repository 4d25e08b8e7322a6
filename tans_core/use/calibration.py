"""Calibrated probabilities: one temperature for all logits (Guo et al., "On calibration of modern neural networks").

Axes: N images, K classes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

_LEAST, _MOST = 0.05, 20.0


def fit_temperature(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Return the temperature T for which softmax(logits / T) has the lowest cross-entropy.

    The targets are those of Platt (1999): as if one image more, spread over the other classes, had been wrong. So few
    images that are all right do not make the network certain of everything.

    Args:
        logits: (N, K) of the validation split, N at least 1.
        labels: (N,) in [0, K).
    """
    doubt = 1 / (len(labels) + 2)
    targets = np.full(logits.shape, doubt / (logits.shape[1] - 1))
    targets[np.arange(len(labels)), labels] = 1 - doubt

    def cross_entropy(log_temperature: float) -> float:
        return float(-(targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    found = minimize_scalar(cross_entropy, bounds=(np.log(_LEAST), np.log(_MOST)), method="bounded")
    return float(np.exp(found.x))
