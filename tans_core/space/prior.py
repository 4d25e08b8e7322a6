"""Task-independent quality of networks, learned from trials: the mean of a Gaussian process over networks.

Similar architectures get similar results, and more so if their outputs are similar, too. So the covariance of two
networks is a Gaussian of the distance of their topology codes, times one plus a Gaussian of that of their functional
embeddings. A zoo contains few architectures many times, which a process can separate and a linear map cannot.

A trial's score is relative to the other networks that were tried on its task, which were drawn at random: a network is
no worse for good rivals. So each task has an unknown level of its own.

Axes: n trials, D tasks, m networks, K networks known from trials, T topology width, E functional width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

_TOPOLOGY_LENGTHS, _FUNCTIONAL_LENGTHS = (0.25, 0.5, 1.0, 2.0), (0.5, 1.0, 2.0)
_SHARES, _NOISES = (0.3, 1.0), (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Covariance:
    """Covariance of networks.

    Attributes:
        topology_length: length scale of standardised topology codes.
        functional_length: length scale of standardised functional embeddings.
        share: variance that functional embeddings explain beside topology, relative to that of topology.
        noise: variance of a trial around the mean of its network, relative to the same.
    """

    topology_length: float
    functional_length: float
    share: float
    noise: float

    def between(self, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return both terms of the covariance of networks (m, T), (m, E) and (K, T), (K, E): each (m, K)."""
        by_topology = torch.exp(-0.5 * (torch.cdist(one[0], other[0]) / self.topology_length) ** 2)
        by_functional = torch.exp(-0.5 * (torch.cdist(one[1], other[1]) / self.functional_length) ** 2)
        return by_topology, self.share * by_topology * by_functional


class TrialPrior(nn.Module):
    """Mean of the process at any network, in two parts: by topology, and by functional embedding in addition."""

    topology: Tensor
    functional: Tensor
    weights: Tensor
    covariance: Tensor

    def __init__(self, known: int, topology_dim: int, functional_dim: int) -> None:
        super().__init__()
        self.register_buffer("topology", torch.zeros(known, topology_dim))
        self.register_buffer("functional", torch.zeros(known, functional_dim))
        self.register_buffer("weights", torch.zeros(known))
        self.register_buffer("covariance", torch.ones(4))

    def fit(
        self, networks: tuple[Tensor, Tensor], model: Tensor, score: Tensor, group: Tensor, task: Tensor, weight: Tensor
    ) -> Tensor:
        """Learn from trials, and return the score (n,) that trials of other groups predict for each trial.

        Predictions are centred inside each task, as scores are.

        Args:
            networks: (K, T) and (K, E) float32, standardised, of the networks that were tried.
            model: (n,) int64 in [0, K).
            score: (n,) float32, in deviations inside a task.
            group: (n,) int64, the task's source; trials of one group are not used to predict each other.
            task: (n,) int64 in [0, D).
            weight: (n,) float32, confidence in each trial: its noise is divided by it.
        """
        self.topology.copy_(networks[0])
        self.functional.copy_(networks[1])
        chosen, expected = _choose(networks, model, score.double(), group, task, weight.double())
        self.covariance.copy_(
            torch.tensor([chosen.topology_length, chosen.functional_length, chosen.share, chosen.noise])
        )
        self.weights.copy_(_weights(_sum(chosen, networks), model, score.double(), task, weight.double(), chosen.noise))
        return expected.float()

    def forward(self, topology: Tensor, functional: Tensor) -> tuple[Tensor, Tensor]:
        """Map standardised topology (m, T) and functional embeddings (m, E) to both parts, (m,) each."""
        if not len(self.weights):
            return topology.new_zeros(len(topology)), topology.new_zeros(len(topology))
        covariance = Covariance(*self.covariance.tolist())
        by_topology, by_functional = covariance.between((topology, functional), (self.topology, self.functional))
        return by_topology @ self.weights, by_functional @ self.weights


def _choose(
    networks: tuple[Tensor, Tensor], model: Tensor, score: Tensor, group: Tensor, task: Tensor, weight: Tensor
) -> tuple[Covariance, Tensor]:
    """Return the covariance that best predicts trials of a group from those of others, and the predictions (n,)."""
    best, least_error, predictions = Covariance(0.5, 1.0, 1.0, 1.0), float("inf"), torch.zeros_like(score)
    groups = group.unique().tolist()
    if len(groups) < 2:
        return best, predictions
    for values in product(_TOPOLOGY_LENGTHS, _FUNCTIONAL_LENGTHS, _SHARES, _NOISES):
        covariance = Covariance(*values)
        matrix, expected = _sum(covariance, networks), torch.zeros_like(score)
        for left_out in groups:
            out, rest = group == left_out, group != left_out
            weights = _weights(matrix, model[rest], score[rest], task[rest], weight[rest], covariance.noise)
            expected[out] = _centred(matrix[model[out]] @ weights, task[out], weight[out])
        error = float((weight * (expected - _centred(score, task, weight)) ** 2).sum() / weight.sum())
        if error < least_error:
            best, least_error, predictions = covariance, error, expected
    return best, predictions


def _sum(covariance: Covariance, networks: tuple[Tensor, Tensor]) -> Tensor:
    """Return the covariance of networks, (K, K) float64."""
    wide = networks[0].double(), networks[1].double()
    by_topology, by_functional = covariance.between(wide, wide)
    return by_topology + by_functional


def _weights(matrix: Tensor, model: Tensor, score: Tensor, task: Tensor, weight: Tensor, noise: float) -> Tensor:
    """Return each network's weight in the mean, (K,), with the levels of tasks unknown."""
    tried, tasks = len(matrix), int(task.max()) + 1
    flat = torch.zeros(tasks * tried, dtype=matrix.dtype).index_add_(0, task * tried + model, weight)
    counts = flat.view(tasks, tried)
    of_task = counts.sum(dim=1).clamp_min(1e-9)
    # The trials' evidence once each task's mean is subtracted: its precision, and precision times mean.
    precision = (torch.diag(counts.sum(dim=0)) - counts.T @ (counts / of_task[:, None])) / noise
    sums = torch.zeros(tried, dtype=matrix.dtype).index_add_(0, model, weight * _centred(score, task, weight)) / noise
    solved: Tensor = torch.linalg.solve(torch.eye(tried, dtype=matrix.dtype) + precision @ matrix, sums)
    return solved


def _centred(values: Tensor, task: Tensor, weight: Tensor) -> Tensor:
    """Return values (n,) less the weighted mean of their task."""
    tasks = int(task.max()) + 1
    sums, counts = (
        torch.zeros(tasks, dtype=values.dtype).index_add_(0, task, one) for one in (weight * values, weight)
    )
    return values - (sums / counts.clamp_min(1e-9))[task]


def groups_of(names: Sequence[str]) -> Tensor:
    """Number names in the order of first occurrence, (n,) int64."""
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number[name] for name in names], dtype=torch.int64)
