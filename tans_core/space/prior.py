"""What networks are good for whatever the task, as trials on tasks tell it: the mean of a Gaussian process over networks.

Networks that are built alike did alike, and those that also answer alike did so even more: the covariance of two networks is
a Gaussian of the distance of their topology codes, times one plus a Gaussian of that of their functional embeddings. A zoo holds
few architectures many times over, which a process tells apart and a linear map does not.

A trial is relative to the others on its task, and which these were is chance: a network that was tried beside good ones is not
worse for it. So each task has a level of its own, which the process does not know beforehand.

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
    """How networks are related.

    Attributes:
        topology_length: distance of topology codes, a column of unit weight, over which results differ.
        functional_length: likewise of functional embeddings.
        share: variance of what functional embeddings tell beside topology, relative to that of topology.
        noise: variance of a trial around the mean of its network, likewise.
    """

    topology_length: float
    functional_length: float
    share: float
    noise: float

    def between(self, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return both terms of the covariance of networks (m, T), (m, E) and (K, T), (K, E): each (m, K)."""
        alike = torch.exp(-0.5 * (torch.cdist(one[0], other[0]) / self.topology_length) ** 2)
        answers = torch.exp(-0.5 * (torch.cdist(one[1], other[1]) / self.functional_length) ** 2)
        return alike, self.share * alike * answers


class TrialPrior(nn.Module):
    """The process's mean at any network, in two parts: by its topology, and by its functional embedding beside it."""

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
        """Learn from trials, and return what each was to be expected by those of other groups, (n,): relative to what is
        expected of the others on its task, as scores are.

        Args:
            networks: (K, T) and (K, E) float32, standardised, of the networks that were tried.
            model: (n,) int64 in [0, K).
            score: (n,) float32, in deviations inside a task.
            group: (n,) int64, of trials that must not tell of each other: the task's source.
            task: (n,) int64 in [0, D).
            weight: (n,) float32, how sure each is: the noise counts by its inverse.
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
        alike, answers = covariance.between((topology, functional), (self.topology, self.functional))
        return alike @ self.weights, answers @ self.weights


def _choose(
    networks: tuple[Tensor, Tensor], model: Tensor, score: Tensor, group: Tensor, task: Tensor, weight: Tensor
) -> tuple[Covariance, Tensor]:
    """Return the covariance by which trials of a group follow best from those of the others, and what follows."""
    best, least, kept = Covariance(0.5, 1.0, 1.0, 1.0), float("inf"), torch.zeros_like(score)
    groups = group.unique().tolist()
    if len(groups) < 2:
        return best, kept
    for values in product(_TOPOLOGY_LENGTHS, _FUNCTIONAL_LENGTHS, _SHARES, _NOISES):
        covariance = Covariance(*values)
        matrix, expected = _sum(covariance, networks), torch.zeros_like(score)
        for out in groups:
            held, rest = group == out, group != out
            weights = _weights(matrix, model[rest], score[rest], task[rest], weight[rest], covariance.noise)
            expected[held] = _centred(matrix[model[held]] @ weights, task[held], weight[held])
        error = float((weight * (expected - _centred(score, task, weight)) ** 2).sum() / weight.sum())
        if error < least:
            best, least, kept = covariance, error, expected
    return best, kept


def _sum(covariance: Covariance, networks: tuple[Tensor, Tensor]) -> Tensor:
    """Return the covariance of networks, (K, K) float64."""
    wide = networks[0].double(), networks[1].double()
    alike, answers = covariance.between(wide, wide)
    return alike + answers


def _weights(matrix: Tensor, model: Tensor, score: Tensor, task: Tensor, weight: Tensor, noise: float) -> Tensor:
    """Return what each network weighs in the mean, (K,), where the levels of tasks are free."""
    tried, tasks = len(matrix), int(task.max()) + 1
    flat = torch.zeros(tasks * tried, dtype=matrix.dtype).index_add_(0, task * tried + model, weight)
    counts = flat.view(tasks, tried)
    of_task = counts.sum(dim=1).clamp_min(1e-9)
    # What trials tell of networks once each task's mean is taken off: its precision, and the mean times that.
    precision = (torch.diag(counts.sum(dim=0)) - counts.T @ (counts / of_task[:, None])) / noise
    told = torch.zeros(tried, dtype=matrix.dtype).index_add_(0, model, weight * _centred(score, task, weight)) / noise
    found: Tensor = torch.linalg.solve(torch.eye(tried, dtype=matrix.dtype) + precision @ matrix, told)
    return found


def _centred(values: Tensor, task: Tensor, weight: Tensor) -> Tensor:
    """Return values (n,) less the mean of their task, by their weights."""
    tasks = int(task.max()) + 1
    sums, counts = (
        torch.zeros(tasks, dtype=values.dtype).index_add_(0, task, one) for one in (weight * values, weight)
    )
    return values - (sums / counts.clamp_min(1e-9))[task]


def groups_of(names: Sequence[str]) -> Tensor:
    """Number names by their first occurrence, (n,) int64."""
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number[name] for name in names], dtype=torch.int64)
