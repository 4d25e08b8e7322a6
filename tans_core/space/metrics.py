"""Quality of predicted scores of models. Axes: M models, R models a task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr, weightedtau


def prediction_quality(
    predicted: Sequence[npt.NDArray[np.float64]], actual: Sequence[npt.NDArray[np.float64]]
) -> dict[str, float]:
    """Compare predicted with measured scores task by task.

    Args:
        predicted: for each task, (R,) scores.
        actual: the measured ones, in the same order.

    Returns:
        `spearman`: mean over the tasks of the rank correlation inside a task (0 for a constant prediction);
        `mae`: mean absolute error over all models.
    """
    correlations = []
    for guess, truth in zip(predicted, actual, strict=True):
        constant = np.ptp(guess) == 0 or np.ptp(truth) == 0
        correlations.append(0.0 if constant else float(spearmanr(guess, truth).statistic))
    errors = np.abs(np.concatenate(list(predicted)) - np.concatenate(list(actual)))
    return {"spearman": float(np.mean(correlations)), "mae": float(errors.mean())}


def order_quality(predicted: npt.NDArray[np.float64], actual: npt.NDArray[np.float64]) -> dict[str, float]:
    """Measure a predicted order of models on one task by their accuracies there.

    Args:
        predicted: (R,) scores, R at least 2.
        actual: (R,) accuracies in 0..1.

    Returns:
        `weighted_tau`: Kendall's tau with most weight on the truly best (Vigna 2015; scipy's `rank=None`), 0 for
        constant scores; `regret_at_1`, `regret_at_3`: best accuracy less that of the best of the first 1 or 3, in
        points.
    """
    order = np.argsort(-predicted, kind="stable")
    constant = np.ptp(predicted) == 0 or np.ptp(actual) == 0
    tau = 0.0 if constant else float(weightedtau(actual, predicted, rank=None).statistic)
    best = float(actual.max())
    regrets = {f"regret_at_{k}": 100 * (best - float(actual[order[:k]].max())) for k in (1, 3)}
    return {"weighted_tau": tau, **regrets}


# Relative to the values: the mean of equal values is off by no more than this.
_ROUNDING = 1e-12


def deviations(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return values (n,) in standard deviations around their mean; zeros where all are equal."""
    wide = np.asarray(values, dtype=np.float64)
    spread = float(wide.std())
    if spread <= _ROUNDING * float(np.abs(wide).max(initial=0.0)):
        return np.zeros_like(wide)
    standardised: npt.NDArray[np.float64] = (wide - wide.mean()) / spread
    return standardised


def spread_within(values: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the standard deviation of each value's group, (M,)."""
    spread = np.zeros(len(values))
    for group in np.unique(groups):
        spread[groups == group] = values[groups == group].std()
    return spread


def standardise_within(
    values: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], unknown: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float32]:
    """Return z-scores of values (M,) inside each group (M,), since a raw accuracy mostly reflects how easy its task is.

    Values marked `unknown` (M,) do not enter mean and deviation, so held-out results do not move training's targets.
    """
    scores = np.zeros(len(values), dtype=np.float32)
    for group in np.unique(groups):
        members = groups == group
        known = values[members if unknown is None else members & ~unknown]
        spread = known.std() if len(known) else 0.0
        if spread > _ROUNDING * np.abs(known).max(initial=0.0):
            scores[members] = (values[members] - known.mean()) / spread
    return scores
