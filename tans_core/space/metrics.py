"""How good a space is. Axes: D tasks, R models a task, d space dimension."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

RECALL_AT = (1, 5, 10)


def ranks_of_own(similarity: npt.NDArray[np.float64], own: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
    """Return the rank of each query's own model among one model of every task.

    Args:
        similarity: (Q, D) of queries (rows) to models (columns).
        own: Q columns of the queries' own models; the diagonal where None.

    Returns:
        (Q,) ranks from 1. A tie counts half, so that constant similarities get the rank of chance.
    """
    columns = np.arange(len(similarity)) if own is None else np.asarray(own)
    mine = similarity[np.arange(len(similarity)), columns][:, None]
    nearer = (similarity > mine).sum(axis=1)
    tied = (similarity == mine).sum(axis=1) - 1
    ranks: npt.NDArray[np.float64] = 1 + nearer + tied / 2
    return ranks


def recall_and_rank(ranks: npt.NDArray[np.float64]) -> dict[str, float]:
    """Summarise ranks (any shape) as R@1/5/10 and the mean rank."""
    recalls = {f"recall_at_{k}": float((ranks <= k).mean()) for k in RECALL_AT}
    return recalls | {"mean_rank": float(ranks.mean())}


def prediction_quality(
    predicted: Sequence[npt.NDArray[np.float64]], actual: Sequence[npt.NDArray[np.float64]]
) -> dict[str, float]:
    """Compare predicted with measured scores task by task.

    Args:
        predicted: for each task, (R,) scores.
        actual: the measured ones, in the same order.

    Returns:
        `spearman`: mean over the tasks of the rank correlation inside a task (a constant prediction counts 0);
        `mae`: mean absolute error over all models.
    """
    correlations = []
    for guess, truth in zip(predicted, actual, strict=True):
        constant = np.ptp(guess) == 0 or np.ptp(truth) == 0
        correlations.append(0.0 if constant else float(spearmanr(guess, truth).statistic))
    errors = np.abs(np.concatenate(list(predicted)) - np.concatenate(list(actual)))
    return {"spearman": float(np.mean(correlations)), "mae": float(errors.mean())}


def standardise_within(values: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return z-scores of values (M,) inside each group (M,): a raw accuracy mostly tells how easy its task is."""
    scores = np.zeros(len(values), dtype=np.float32)
    for group in np.unique(groups):
        members = groups == group
        spread = values[members].std()
        if spread > 0:
            scores[members] = (values[members] - values[members].mean()) / spread
    return scores
