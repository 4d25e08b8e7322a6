"""Losses of the space. Axes: D tasks, one model each; d space dimension."""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive_hinge(queries: Tensor, models: Tensor, margin: float) -> Tensor:
    """TANS's contrastive loss, both ways round, as a mean over the pairs instead of a sum.

    The sum starts in the thousands and starves the predictor, whose loss starts near one; the mean has its scale.

    Args:
        queries: (D, d), unit rows.
        models: (D, d), unit rows; row i is a model of task i.
        margin: by which a task's own model must be nearer than another task's.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: fewer than two tasks.
    """
    count = len(queries)
    if count < 2:
        raise ValueError("a contrast needs at least two tasks")
    similarity = models @ queries.T  # (D, D), rows models, columns queries
    own = similarity.diagonal()
    other = ~torch.eye(count, dtype=torch.bool, device=similarity.device)
    by_query = (similarity + margin - own[None, :]).clamp_min(0)[other]
    by_model = (similarity + margin - own[:, None]).clamp_min(0)[other]
    # Only violated pairs count, else the loss fades with the number of tasks.
    violated = (by_query > 0).sum() + (by_model > 0).sum()
    return (by_query.sum() + by_model.sum()) / violated.clamp_min(count)
