"""LogME: You et al., "LogME: practical assessment of pre-trained models for transfer learning", ICML 2021.

Axes: n images, D feature width, K classes, r rank, L values of the ratio.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tans_core.scores.inputs import Floats, checked, decompose

_RATIOS = np.logspace(-10, 6, 65)
"""First guesses of the ratio of both precisions, as shares of the largest squared singular value."""
_REFINEMENTS = 60
_SHORTER = (5**0.5 - 1) / 2


def logme(features: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the greatest log evidence of a Bayesian linear model of each class against the rest.

    Weights have the prior N(0, 1/a), targets the noise 1/b. The evidence is maximal over a and b. For a given ratio
    a / b, the best b has a closed form, so only the ratio is searched, over 16 orders of magnitude: on a grid, then by
    golden section. The fixed-point iteration of the paper climbs to the same maximum, but may stop early.

    Args:
        features: (n, D), any float type; n may be less than D. They are not centred, as in the paper.
        labels: (n,), of K classes.

    Returns:
        Nats an image, mean over the classes. Features that are all zero give the evidence of noise alone.

    Raises:
        ValueError: wrong shapes, or features that are not finite.
        TooFewImagesError: fewer than two classes.
    """
    rows, codes, classes = checked(features, labels)
    targets = np.eye(classes)[codes]  # (n, K)
    left, singular = decompose(rows)
    power = singular**2
    explained = (left.T @ targets) ** 2  # (r, K)
    total = (targets**2).sum(axis=0)
    # What no weights explain. A difference this small is a rounding error.
    rest = total - explained.sum(axis=0)
    rest[rest < 1e-12 * total] = 0.0
    if len(power) == 0:
        return float(_evidence(np.zeros((1, classes)), power, explained, rest, len(rows)).mean())
    grid = np.log(_RATIOS * power.max())
    on_grid = _evidence(np.repeat(grid[:, None], classes, axis=1), power, explained, rest, len(rows))  # (L, K)
    best = on_grid.argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, len(grid) - 1)]
    for _ in range(_REFINEMENTS):
        inner = np.stack([high - _SHORTER * (high - low), low + _SHORTER * (high - low)])  # (2, K)
        lower, upper = _evidence(inner, power, explained, rest, len(rows))
        low, high = np.where(lower < upper, inner[0], low), np.where(lower < upper, high, inner[1])
    refined = _evidence((low + high)[None] / 2, power, explained, rest, len(rows))[0]
    return float(np.maximum(refined, on_grid.max(axis=0)).mean())


def _evidence(log_ratios: Floats, power: Floats, explained: Floats, rest: Floats, count: int) -> Floats:
    """Return the log evidence an image (L, K) at ratios (L, K), each with its best noise."""
    odds = np.exp(-log_ratios)[:, None] * power[:, None]  # (L, r, K)
    misfit = (explained / (1 + odds)).sum(axis=1) + rest
    noise = np.maximum(misfit, np.finfo(np.float64).tiny) / count
    evidence: Floats = -0.5 * (np.log(2 * np.pi) + 1 + np.log(noise)) - 0.5 * np.log1p(odds).sum(axis=1) / count
    return evidence
