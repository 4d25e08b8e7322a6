"""How well tasks retrieve their own networks, for any objective.

Axes: D tasks, M networks, R rounds, each of one network a task.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tans_core.errors import StoreError

RECALL_AT = (1, 5, 10)


def rounds_of_one(home: Tensor, among: Tensor, tasks: int) -> Tensor:
    """Return (R, D): round r has network r of each task; a task with fewer networks starts again.

    Args:
        home: (M,) int64 in [0, D).
        among: (M,) bool, the networks that may be drawn.
        tasks: D.

    Raises:
        StoreError: a task has no such network.
    """
    order = among.nonzero()[:, 0]
    order = order[home[order].argsort(stable=True)]
    counts = home[order].bincount(minlength=tasks)
    if not bool(counts.all()):
        raise StoreError(f"{int((counts == 0).sum())} of {tasks} tasks have no network to draw.")
    starts = counts.cumsum(0) - counts
    rounds = torch.arange(int(counts.max()), device=home.device)[:, None]
    return order[starts + rounds % counts]


def ranks_of_own(similarity: Tensor) -> Tensor:
    """Return each query's rank, from 1, of its own network.

    From (..., D, D), rows queries, own networks on the diagonal, to (..., D). A tie counts half, so constant
    similarities get the rank of chance.
    """
    own = similarity.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    return 1 + (similarity > own).sum(-1) + ((similarity == own).sum(-1) - 1) / 2


def recall(ranks: Tensor) -> dict[str, float]:
    """Summarise ranks of any shape: R@1/5/10, mean and median rank."""
    shares = [(ranks <= k).double().mean() for k in RECALL_AT]
    # One transfer from the device for all.
    values = torch.stack([*shares, ranks.double().mean(), ranks.double().median()]).tolist()
    return dict(zip([*(f"recall_at_{k}" for k in RECALL_AT), "mean_rank", "median_rank"], values, strict=True))
