"""Terms of the `tans` objective.

Axes: D tasks, P models of each, n pairs of a task and a model, d space dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def matching_loss(queries: Tensor, models: Tensor, temperature: float) -> Tensor:
    """Pull each task towards its own models, away from those of other tasks, and each model towards its own task.

    The cross-entropy in both directions with P positives a task (InfoNCE; Khosla et al. 2020 for several positives).
    Its scale does not depend on the number of tasks; the published sum of hinges starts in the thousands and outweighs
    the predictor's loss.

    Args:
        queries: (D, d), unit rows.
        models: (D, P, d), unit rows; row i holds models of task i.
        temperature: divides the cosines.

    Returns:
        A scalar; log D + log(1 + (D - 1) P) where all vectors are equal.

    Raises:
        ValueError: fewer than two tasks.
    """
    tasks, positives = models.shape[:2]
    if tasks < 2:
        raise ValueError("a contrast needs at least two tasks")
    logits = models @ queries.T / temperature  # (D, P, D), the last axis queries
    own = torch.arange(tasks, device=logits.device)
    by_model = F.cross_entropy(logits.flatten(end_dim=1), own.repeat_interleave(positives))
    # From a query to the models of the batch: each of its own P against the (D - 1) P of other tasks.
    by_query = logits.permute(2, 0, 1)  # (D queries, D tasks, P)
    mine = by_query[own, own]  # (D, P)
    others = by_query.masked_fill(torch.eye(tasks, dtype=torch.bool, device=logits.device)[:, :, None], float("-inf"))
    rest = others.flatten(start_dim=1).logsumexp(dim=1, keepdim=True)  # (D, 1)
    return by_model + (torch.logaddexp(mine, rest) - mine).mean()


def rank_loss(similarity: Tensor, score: Tensor, task: Tensor, margin: float) -> Tensor:
    """Pull the better of two models on one task nearer to it than the other (MedNNS rank loss).

    The mean over pairs of one task with score_i > score_j of max(0, margin - (s_i - s_j)).

    Args:
        similarity: (n,) cosines.
        score: (n,), higher is better.
        task: (n,) int64.
        margin: least difference of cosines.

    Returns:
        A scalar, at least 0; 0 where no two scores differ.
    """
    better = (task[:, None] == task[None, :]) & (score[:, None] > score[None, :])  # (n, n)
    short = (margin - (similarity[:, None] - similarity[None, :])).clamp_min(0)
    return (short * better).sum() / better.sum().clamp_min(1)


def frechet_loss(queries: Tensor, distances: Tensor) -> Tensor:
    """Make distances of tasks follow those of their images (MedNNS FID loss): one minus the correlation of the two.

    Args:
        queries: (D, d), unit rows.
        distances: (D, D), see `frechet_distances`.

    Returns:
        A scalar in 0..2.
    """
    rows, columns = torch.triu_indices(len(queries), len(queries), offset=1, device=queries.device)
    apart = 1 - (queries @ queries.T)[rows, columns]
    wanted = distances[rows, columns]
    apart, wanted = apart - apart.mean(), wanted - wanted.mean()
    correlation: Tensor = (apart * wanted).sum() / (apart.norm() * wanted.norm()).clamp_min(1e-12)
    return 1 - correlation


def frechet_distances(mean: Tensor, spread: Tensor) -> Tensor:
    """Return the Frechet distances of tasks' features, treated as Gaussians with uncorrelated columns.

    Full covariances need many more images than features; a query has a few hundred.

    Args:
        mean: (D, F).
        spread: (D, F) standard deviations.

    Returns:
        (D, D), the square roots of |mu_k - mu_l|^2 + |sigma_k - sigma_l|^2.
    """
    both = torch.cat([mean, spread], dim=1)
    distances: Tensor = torch.cdist(both, both)
    return distances
