"""The published zoo in memory, the quality of a space on it, and the `tans` objective fitted to it.

Axes: D data sets or tasks, M networks, n images, T topology width, E functional width, F feature width, R rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tans_core.errors import StoreError
from tans_core.published.files import masked_topology
from tans_core.runtime import derive_seed
from tans_core.space.data import SpaceData, Trials
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.fit import fit_on
from tans_core.space.metrics import prediction_quality, standardise_within
from tans_core.space.objective import SpaceRecipe
from tans_core.space.quality import ranks_of_own, recall, rounds_of_one
from tans_core.space.queries import query_statistics, sampled_statistics

PUBLISHED_RECIPE = SpaceRecipe(
    dim=128,
    steps=800,
    lr=0.003,
    weight_decay=0.1,
    temperature=0.1,
    positives=4,
    pairs_per_step=1,
    topology_noise=0.3,
    functional_noise=0.7,
    query_noise=0.0,
    matching_weight=1.0,
    home_weight=1.0,
    tuned_weight=0.0,
    probed_weight=0.0,
    rank_weight=0.1,
    frechet_weight=0.0,
)
"""For twenty times as many home accuracies as in a zoo of ours, and no trials on other tasks."""


@dataclass(frozen=True)
class PublishedData:
    """The published networks and data sets; of the unseen data sets, only the features."""

    tasks: tuple[str, ...]  # D names of data sets
    sources: tuple[str, ...]  # D names of their sources
    topology: Tensor  # (M, T = 45) float32, the published integers; `masked_topology` encodes them
    functional: Tensor  # (M, E) float32
    accuracy: Tensor  # (M,) float32 in [0, 1]
    params_m: Tensor  # (M,) float32, millions
    home: Tensor  # (M,) int64 in [0, D), each network's data set
    train_features: tuple[Tensor, ...]  # D times (n, F) float32, of `x_query_train`
    val_features: tuple[Tensor, ...]  # D times (n, F) float32, of `x_query_test`
    test_tasks: tuple[str, ...] = ()  # names of the unseen data sets, sorted; empty if none were imported
    test_features: tuple[Tensor, ...] = ()  # (n, F) float32 for each


def hold_out_at_random(home: Tensor, share: float, seed: int) -> Tensor:
    """Draw a share, in [0, 1), of each task's networks, (M,) bool: at least one of two or more, and never all."""
    heldout = torch.zeros(len(home), dtype=torch.bool)
    for task in home.unique().tolist() if share > 0 else ():
        members = (home == task).nonzero()[:, 0]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        generator = torch.Generator().manual_seed(derive_seed(seed, "heldout", task))
        heldout[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return heldout


def quality(
    similarity: Tensor, predicted: Tensor, accuracy: Tensor, home: Tensor, heldout: Tensor
) -> dict[str, dict[str, float]]:
    """Measure a space on every network. Results are comparable between objectives, for any scale of predictions.

    Takes the similarity (D, M) of tasks to networks, and for each network, (M,): its predicted score on its home task,
    its accuracy there, in [0, 1], its home task, and whether it was held out from training.

    Returns:
        `insample`: own networks ranked among one network of each task (`recall`), with each network in some round.
        `heldout`, empty if none was held out: the same for the held-out networks; and, as means over the tasks:
        `spearman` of predicted and true accuracies (0 if either is constant); `regret`, the best accuracy less that
        of the network predicted best; `chance_regret`, the same for a network drawn at random.
    """
    measured = {"insample": _retrieval(similarity, home, ~heldout), "heldout": {}}
    if bool(heldout.any()):
        guesses, truths, homes = (values[heldout].cpu().double().numpy() for values in (predicted, accuracy, home))
        pairs = [(guesses[homes == task], truths[homes == task]) for task in np.unique(homes)]
        # Networks with equal predictions are picked with equal probability.
        regrets = [truth.max() - truth[guess == guess.max()].mean() for guess, truth in pairs]
        measured["heldout"] = _retrieval(similarity, home, heldout) | {
            "spearman": prediction_quality(*zip(*pairs, strict=True))["spearman"],
            "regret": float(np.mean(regrets)),
            "chance_regret": float(np.mean([truth.max() - truth.mean() for _, truth in pairs])),
        }
    return measured


def _retrieval(similarity: Tensor, home: Tensor, among: Tensor) -> dict[str, float]:
    """Rank own networks among the chosen ones, (M,) bool; a task without a chosen network is left out."""
    present, number = home[among].unique(return_inverse=True)
    if len(present) == 0:
        raise StoreError("there is no network to measure on.")
    rounds = rounds_of_one(number, torch.ones_like(number, dtype=torch.bool), len(present))
    return recall(ranks_of_own(similarity[present][:, among][:, rounds].permute(1, 0, 2)))  # (R, D, D)


def fit_tans(
    data: PublishedData, heldout: Tensor, recipe: SpaceRecipe, seed: int, resume: Path | None = None
) -> tuple[CrossModalSpace, dict[str, dict[str, float]]]:
    """Train the space on all networks but those held out, (M,) bool, and measure it with queries of validation images.

    Returns the space in eval mode, and the result of `quality`. A killed run resumes from the folder `resume`.
    """

    def labels(part: Tensor) -> npt.NDArray[np.int64]:
        # The published queries have no class labels.
        return np.zeros(len(part), dtype=np.int64)

    train, val = (
        torch.from_numpy(np.stack([query_statistics(part.numpy(), labels(part)) for part in parts]))
        for parts in (data.train_features, data.val_features)
    )
    sampled = [
        sampled_statistics(part.numpy(), labels(part), 16, len(part), derive_seed(seed, task))
        for task, part in zip(data.tasks, data.train_features, strict=True)
    ]
    scores = standardise_within(data.accuracy.double().numpy(), data.home.numpy(), heldout.numpy())
    no_trials = Trials(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0))
    space_data = SpaceData(
        **{name: getattr(data, name) for name in ("tasks", "sources", "functional", "home", "accuracy", "params_m")},
        samples=torch.from_numpy(np.stack(sampled)),
        queries=train,
        val_queries=val,
        topology=torch.from_numpy(masked_topology(data.topology.numpy())),
        score=torch.from_numpy(scores),
        heldout=heldout,
        tuned=no_trials,
        probed=no_trials,
    )
    space, _ = fit_on(space_data, range(len(data.tasks)), recipe, 0, derive_seed(seed, "space"), (), resume)
    with torch.no_grad():
        queries, networks = space.encode_query(space_data.val_queries), (space_data.topology, space_data.functional)
        encoded = space.encode_models(*networks)
        predicted = space.predict(queries[data.home], encoded, *space.parts(*networks))
        return space, quality(queries @ encoded.T, predicted, data.accuracy, data.home, heldout)
