"""The `tans` objective: the loss of a training step.

Axes: D tasks seen, P models of each, M models, V samples of a query, S statistics, T topology width, E functional
width, n pairs of a task and a model, d space dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.space.data import SpaceData, Trials
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.losses import frechet_distances, frechet_loss, matching_loss, rank_loss
from tans_core.space.prior import TrialPrior, groups_of
from tans_core.space.training import Precision, step_generator

_MARGIN = 0.1
"""Margin of the rank loss, in cosines."""
_NEAR = 0.1
"""Weight in the trial prior of a trial on a task of the network's own source."""


@dataclass(frozen=True)
class SpaceRecipe:
    """How a space is trained: AdamW with a cosine to zero; `docs/params.md` explains each weight.

    Attributes:
        dim: d.
        steps, lr, weight_decay: of AdamW.
        temperature: of the matching loss.
        positives: P, models of each task in a step's batch.
        pairs_per_step: trials of each kind in a step's batch.
        topology_noise: on topology codes, in their standard deviations.
        functional_noise: on functional embeddings, in their standard deviations.
        query_noise: on a query's statistics, in their standard deviations.
        matching_weight: of the matching loss (which model belongs to which task).
        home_weight: of the squared error on accuracies at home.
        tuned_weight: of the squared error on short fine-tunings on other tasks.
        probed_weight: of the squared error on probes on other tasks.
        rank_weight: of the rank loss (order of similarities inside a task).
        frechet_weight: of the Frechet loss (distances between tasks).
        precision: `bf16` computes the loss under autocast; weights stay float32.
    """

    dim: int
    steps: int
    lr: float
    weight_decay: float
    temperature: float
    positives: int
    pairs_per_step: int
    topology_noise: float
    functional_noise: float
    query_noise: float
    matching_weight: float
    home_weight: float
    tuned_weight: float
    probed_weight: float
    rank_weight: float
    frechet_weight: float
    precision: Precision = "fp32"


class TansObjective(nn.Module):
    """A space in training, and the parameters that only training needs.

    Probes have a prior of their own, since networks whose frozen features suit many tasks are not always those that
    learn fastest. The cosine learns from both kinds of trial, which have the fit of model to task in common.
    """

    samples: Tensor
    topology: Tensor
    functional: Tensor
    score: Tensor
    trial_prior: Tensor
    deviation: Tensor
    topology_deviation: Tensor
    query_deviation: Tensor
    apart: Tensor

    def __init__(self, data: SpaceData, seen: Sequence[int], recipe: SpaceRecipe, seed: int) -> None:
        super().__init__()
        self.recipe, self.seed = recipe, seed
        width = (data.queries.shape[1], data.topology.shape[1], data.functional.shape[1])
        seen_tasks = torch.tensor(list(seen))
        trained = (torch.isin(data.home, seen_tasks) | (data.home < 0)) & ~data.heldout
        self.tuned, self.probed = (self._usable(trials, seen_tasks, trained) for trials in (data.tuned, data.probed))
        counted = self.tuned.model if recipe.tuned_weight else self.tuned.model[:0]
        tried, of_tried = counted.unique(return_inverse=True)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.space = CrossModalSpace(*width, recipe.dim, len(seen), len(tried))
            self.probe_scale = nn.Parameter(self.space.fit_scale.detach().clone())
        self.space.fit_scales(data.queries[seen_tasks], data.topology[trained], data.functional[trained])
        self.seen = list(seen)
        self.members = [data.members(task, heldout=False) for task in seen]
        # Standardised by the trials that training sees: the others must not move its targets.
        self.tuned_score, self.probed_score = self.tuned.scores(), self.probed.scores()
        # The cosine learns only what trials on other sources do not predict.
        self.expected = [torch.zeros(len(self.tuned.task)), torch.zeros(len(self.probed.task))]
        if len(tried):
            self.space.prior.requires_grad_(False)
            self.expected[0] = self._expect(self.space.tried, data, tried, of_tried, self.tuned, self.tuned_score)
        with_probes, of_probed = self.probed.model.unique(return_inverse=True)
        if len(with_probes) and recipe.probed_weight:
            process = TrialPrior(len(with_probes), *width[1:])
            self.expected[1] = self._expect(process, data, with_probes, of_probed, self.probed, self.probed_score)
        with torch.no_grad():
            trial_prior = sum(self.space.tried(*self.space.scaled(data.topology, data.functional)))
        self.register_buffer("trial_prior", trial_prior, persistent=False)
        for name in ("samples", "topology", "functional", "score"):
            self.register_buffer(name, getattr(data, name), persistent=False)
        self.register_buffer("deviation", _deviation(self.space.functional.scale), persistent=False)
        self.register_buffer("topology_deviation", _deviation(self.space.topology.scale), persistent=False)
        self.register_buffer("query_deviation", _deviation(self.space.queries.scale), persistent=False)
        self.position = torch.full((len(data.tasks),), -1).scatter_(0, seen_tasks, torch.arange(len(seen)))
        queries = self.space.queries(data.queries[seen_tasks])
        third = (queries.shape[1] - 1) // 3
        apart = frechet_distances(queries[:, :third], queries[:, third : 2 * third])
        self.register_buffer("apart", apart, persistent=False)

    @staticmethod
    def _usable(trials: Trials, seen: Tensor, trained: Tensor) -> Trials:
        return trials.where(torch.isin(trials.task, seen) & trained[trials.model])

    def _expect(
        self, process: TrialPrior, data: SpaceData, models: Tensor, of: Tensor, trials: Trials, score: Tensor
    ) -> Tensor:
        networks = self.space.scaled(data.topology[models], data.functional[models])
        groups = groups_of([data.sources[task] for task in trials.task.tolist()])
        # A result on the network's own source reflects that nearness, and less its quality on other tasks.
        near = torch.tensor([data.comes_from(model, task) for task, model, _ in trials.rows()])
        weight = torch.where(near, _NEAR, 1.0) * trials.weights()
        # With one source only, tasks are the groups that predict each other.
        apart = groups if len(groups.unique()) > 1 else trials.task
        return process.fit(networks, of, score, apart, trials.task, weight)

    def loss(self, step: int) -> Tensor:
        """Return the loss of one step; its random numbers depend on the seed and the step's number only."""
        recipe = self.recipe
        generator = step_generator(self.seed, step)
        device = self.deviation.device
        queries = self._queries(generator).to(device)  # (D, d)
        chosen = torch.stack([m[torch.randint(len(m), (recipe.positives,), generator=generator)] for m in self.members])
        homes = torch.arange(len(self.seen)).repeat_interleave(recipe.positives)
        places, prior = self._models(chosen.flatten(), generator)
        similarity = (queries[homes.to(device)] * places).sum(dim=1)
        score = self.score[chosen.flatten().to(device)]
        by_task = places.view(len(self.seen), recipe.positives, -1)
        loss = recipe.matching_weight * matching_loss(queries, by_task, recipe.temperature)
        loss = loss + recipe.home_weight * F.mse_loss(prior + self.space.fit_scale * similarity, score)
        loss = loss + recipe.rank_weight * rank_loss(similarity, score, homes.to(device), _MARGIN)
        loss = loss + recipe.frechet_weight * frechet_loss(queries, self.apart)
        for trials, scores, weight, expected, scale in (
            (self.tuned, self.tuned_score, recipe.tuned_weight, self.expected[0], self.space.fit_scale),
            (self.probed, self.probed_score, recipe.probed_weight, self.expected[1], self.probe_scale),
        ):
            if not weight or len(trials.task) == 0:
                continue
            drawn = torch.randint(len(trials.task), (recipe.pairs_per_step,), generator=generator)
            tasks = self.position[trials.task[drawn]].to(device)
            places, _ = self._models(trials.model[drawn], generator)
            similarity = (queries[tasks] * places).sum(dim=1)
            score = scores[drawn].to(device) - expected[drawn].to(device)
            if scale is self.space.fit_scale:
                loss = loss + recipe.rank_weight * rank_loss(similarity, score, tasks, _MARGIN)
            loss = loss + weight * F.mse_loss(scale * similarity, score)
        return loss

    def _queries(self, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(self.samples.shape[1], (len(self.seen),), generator=generator)
        statistics = self.samples[self.seen, drawn]  # (D, S)
        noise = torch.randn(statistics.shape, generator=generator).to(statistics.device)
        return self.space.encode_query(statistics + self.recipe.query_noise * noise * self.query_deviation)

    def _models(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        topology, functional = self.topology[chosen], self.functional[chosen]
        noise = torch.randn(functional.shape, generator=generator).to(functional.device)
        functional = functional + self.recipe.functional_noise * noise * self.deviation
        noise = torch.randn(topology.shape, generator=generator).to(topology.device)
        topology = topology + self.recipe.topology_noise * noise * self.topology_deviation
        capacity, start = self.space.prior(*self.space.scaled(topology, functional))
        places = self.space.encode_models(topology, functional)
        # The trial prior is that of the network without noise.
        return places, capacity + start + self.trial_prior[chosen]


def _deviation(scale: Tensor) -> Tensor:
    # A constant column has a scale of 0 and gets no noise.
    return torch.where(scale > 0, 1 / scale.clamp_min(1e-12), torch.zeros_like(scale))
