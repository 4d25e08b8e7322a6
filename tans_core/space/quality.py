"""How good a space of any objective is on a zoo of published form: own networks found, good networks told from bad ones.

Axes: D tasks, M networks, R rounds, each of one network a task.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from tans_core.errors import StoreError
from tans_core.runtime import derive_seed

RECALL_AT = (1, 5, 10)


def hold_out(home: Tensor, share: float, seed: int) -> Tensor:
    """Return (M,) bool: a share of each task's networks, drawn at random; of a task with two or more, one at least and never all.

    Args:
        home: (M,) int64 in [0, D).
        share: in [0, 1); 0 holds none out.
        seed: of the draw; a task's depends on its number and its own networks alone.
    """
    heldout = torch.zeros(len(home), dtype=torch.bool)
    for task in home.unique().tolist() if share > 0 else ():
        members = (home == task).nonzero()[:, 0]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        generator = torch.Generator().manual_seed(derive_seed(seed, "heldout", task))
        heldout[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return heldout


def rounds_of_one(home: Tensor, among: Tensor, tasks: int) -> Tensor:
    """Return (R, D): round r holds the r-th network of each task, from the start again where a task has fewer.

    Args:
        home: (M,) int64 in [0, D).
        among: (M,) bool, the networks that may be drawn.
        tasks: D.

    Raises:
        StoreError: a task has none.
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
    """Return each query's rank of its own network: (..., D, D), rows queries, own ones on the diagonal, to (..., D) from 1.

    A tie counts half, so that constant similarities get the rank of chance.
    """
    own = similarity.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    return 1 + (similarity > own).sum(-1) + ((similarity == own).sum(-1) - 1) / 2


def recall(ranks: Tensor) -> dict[str, float]:
    """Summarise ranks of any shape: R@1/5/10, mean and median rank."""
    found = [(ranks <= k).double().mean() for k in RECALL_AT]
    # One look at the device for all.
    values = torch.stack([*found, ranks.double().mean(), ranks.double().median()]).tolist()
    return dict(zip([*(f"recall_at_{k}" for k in RECALL_AT), "mean_rank", "median_rank"], values, strict=True))


def retrieval_quality(similarity: Tensor, home: Tensor, among: Tensor) -> dict[str, float]:
    """Rank own networks among one network of each task, over as many rounds as a task has networks.

    A task of which no network takes part neither asks nor is found.

    Args:
        similarity: (D, M) of tasks to networks.
        home: (M,) int64 in [0, D).
        among: (M,) bool, the networks that take part.

    Returns:
        `recall_at_1`, `recall_at_5`, `recall_at_10`, `mean_rank`, `median_rank`.

    Raises:
        StoreError: none takes part.
    """
    present = home[among].unique()
    if len(present) == 0:
        raise StoreError("there is no network to measure on.")
    number = torch.full((len(similarity),), -1, device=home.device)
    number[present] = torch.arange(len(present), device=home.device)
    rounds = rounds_of_one(number[home], among, len(present))
    return recall(ranks_of_own(similarity[present][:, rounds].permute(1, 0, 2)))  # (R, D, D)


def heldout_quality(
    similarity: Tensor, predicted: Tensor, accuracy: Tensor, home: Tensor, heldout: Tensor
) -> dict[str, float]:
    """Measure a space on networks that training did not see. Any objective's figures compare, and any scale of predictions.

    Args:
        similarity: (D, M) of tasks to networks.
        predicted: (M,) how well each network is expected to do on its home task; higher is better.
        accuracy: (M,) in [0, 1], how well it does.
        home: (M,) int64 in [0, D).
        heldout: (M,) bool, the networks to measure on.

    Returns:
        What `retrieval_quality` says, and inside each task, as means over the tasks: `spearman` of predicted and true accuracies
        (0 where either is constant); `regret`, the best accuracy less that of the network predicted best; `chance_regret`, the
        same of a network drawn at random.

    Raises:
        StoreError: there is no such network.
    """
    found = retrieval_quality(similarity, home, heldout)
    chosen = heldout.cpu().numpy()
    guesses, truths = predicted.double().cpu().numpy()[chosen], accuracy.double().cpu().numpy()[chosen]
    homes = home.cpu().numpy()[chosen]
    rows = []
    for task in np.unique(homes):
        guess, truth = guesses[homes == task], truths[homes == task]
        constant = np.ptp(guess) == 0 or np.ptp(truth) == 0
        correlation = 0.0 if constant else float(spearmanr(guess, truth).statistic)
        picked = truth[guess == guess.max()].mean()  # of equals, any
        rows.append((correlation, truth.max() - picked, truth.max() - truth.mean()))
    means = np.mean(rows, axis=0).tolist()
    return found | dict(zip(("spearman", "regret", "chance_regret"), means, strict=True))
