"""What networks are good for whatever the task, as trials on tasks tell it: the mean of a Gaussian process over networks.

Networks that are built alike did alike, and those that also answer alike did so even more: the covariance of two networks is
a Gaussian of the distance of their topology codes, times one plus a Gaussian of that of their functional embeddings. A zoo holds
few architectures many times over, which a process tells apart and a linear map does not.

Axes: n trials, m networks, K networks known from trials, T topology width, E functional width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

_TOPOLOGY_LENGTHS, _FUNCTIONAL_LENGTHS = (0.25, 0.5, 1.0), (0.5, 1.0)
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

    def fit(self, networks: tuple[Tensor, Tensor], model: Tensor, score: Tensor, group: Tensor) -> Tensor:
        """Learn from trials, and return what each would have been expected to be by those of other groups, (n,).

        Args:
            networks: (K, T) and (K, E) float32, standardised, of the networks that were tried.
            model: (n,) int64 in [0, K).
            score: (n,) float32, in deviations inside a task.
            group: (n,) int64, of trials that must not tell of each other: the task's source.
        """
        self.topology.copy_(networks[0])
        self.functional.copy_(networks[1])
        chosen, expected = _choose(networks, model, score.double(), group)
        self.covariance.copy_(
            torch.tensor([chosen.topology_length, chosen.functional_length, chosen.share, chosen.noise])
        )
        self.weights.copy_(_weights(_sum(chosen, networks), model, score.double(), chosen.noise))
        return expected.float()

    def forward(self, topology: Tensor, functional: Tensor) -> tuple[Tensor, Tensor]:
        """Map standardised topology (m, T) and functional embeddings (m, E) to both parts, (m,) each."""
        if not len(self.weights):
            return topology.new_zeros(len(topology)), topology.new_zeros(len(topology))
        covariance = Covariance(*self.covariance.tolist())
        alike, answers = covariance.between((topology, functional), (self.topology, self.functional))
        return alike @ self.weights, answers @ self.weights


def _choose(networks: tuple[Tensor, Tensor], model: Tensor, score: Tensor, group: Tensor) -> tuple[Covariance, Tensor]:
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
            expected[held] = matrix[model[held]] @ _weights(matrix, model[rest], score[rest], covariance.noise)
        error = float(((expected - score) ** 2).mean())
        if error < least:
            best, least, kept = covariance, error, expected
    return best, kept


def _sum(covariance: Covariance, networks: tuple[Tensor, Tensor]) -> Tensor:
    """Return the covariance of networks, (K, K) float64."""
    wide = networks[0].double(), networks[1].double()
    alike, answers = covariance.between(wide, wide)
    return alike + answers


def _weights(matrix: Tensor, model: Tensor, score: Tensor, noise: float) -> Tensor:
    """Return what each network weighs in the mean, (K,): the trials of one, (n,) together, count as their mean, and as often."""
    counts = torch.bincount(model, minlength=len(matrix))
    tried = counts > 0
    means = torch.zeros(len(matrix), dtype=matrix.dtype).index_add_(0, model, score)[tried] / counts[tried]
    factor = torch.linalg.cholesky(matrix[tried][:, tried] + torch.diag(noise / counts[tried]))
    found = torch.zeros(len(matrix), dtype=matrix.dtype)
    found[tried] = torch.cholesky_solve(means[:, None], factor)[:, 0]
    return found


def groups_of(names: Sequence[str]) -> Tensor:
    """Number names by their first occurrence, (n,) int64."""
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number[name] for name in names], dtype=torch.int64)
