"""The `tans` objective on a zoo of published form, where home accuracies are all that is known of networks.

Axes: D tasks, M networks, n images of a task, F feature width, T topology width, E functional width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tans_core.runtime import derive_seed
from tans_core.space.data import SpaceData, Trials
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.fit import fit_on
from tans_core.space.metrics import standardise_within
from tans_core.space.objective import SpaceRecipe
from tans_core.space.quality import heldout_quality, retrieval_quality
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
"""Twenty times as many home accuracies as a zoo of ours has, and no trials elsewhere."""


def published_data(
    tasks: Sequence[str],
    sources: Sequence[str],
    train_features: Sequence[Tensor],
    val_features: Sequence[Tensor],
    topology: Tensor,
    functional: Tensor,
    accuracy: Tensor,
    params_m: Tensor,
    home: Tensor,
    heldout: Tensor,
    seed: int,
    samples: int = 16,
) -> SpaceData:
    """Put what an import read into the form that the objective takes.

    Args:
        tasks, sources: D names.
        train_features, val_features: D tensors (n, F).
        topology: (M, T) codes in which identical networks are identical (`masked_topology`).
        functional: (M, E).
        accuracy: (M,) in 0..1.
        params_m: (M,) in millions.
        home: (M,) int64 in [0, D).
        heldout: (M,) bool, networks that training never sees.
        seed: of the random samples of each task's images.
        samples: how many there are.
    """

    def whole(parts: Sequence[Tensor]) -> Tensor:
        return torch.from_numpy(np.stack([query_statistics(part.numpy(), _no_labels(part)) for part in parts]))

    drawn = [
        sampled_statistics(part.numpy(), _no_labels(part), samples, len(part), derive_seed(seed, task))
        for task, part in zip(tasks, train_features, strict=True)
    ]
    none = Trials(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0))
    return SpaceData(
        tasks=tuple(tasks),
        sources=tuple(sources),
        samples=torch.from_numpy(np.stack(drawn)),
        queries=whole(train_features),
        val_queries=whole(val_features),
        topology=topology,
        functional=functional,
        home=home,
        score=torch.from_numpy(standardise_within(accuracy.double().numpy(), home.numpy(), heldout.numpy())),
        accuracy=accuracy,
        params_m=params_m,
        heldout=heldout,
        tuned=none,
        probed=none,
    )


def fit_published(
    data: SpaceData, recipe: SpaceRecipe, seed: int, resume_folder: Path | None = None
) -> CrossModalSpace:
    """Train the space on all tasks of an import; a run that was killed goes on from `resume_folder`."""
    return fit_on(data, range(len(data.tasks)), recipe, 0, derive_seed(seed, "space"), (), resume_folder)[0]


@torch.no_grad()
def measure_published(space: CrossModalSpace, data: SpaceData) -> dict[str, dict[str, float]]:
    """Measure a space on every network, asked by images that training did not see.

    Returns:
        `insample`: `retrieval_quality` of the networks that training saw; `heldout`: `heldout_quality` of the others, empty where
        none was held out.
    """
    queries = space.encode_query(data.val_queries)
    places = space.encode_models(data.topology, data.functional)
    similarity = queries @ places.T
    seen = retrieval_quality(similarity, data.home, ~data.heldout)
    if not bool(data.heldout.any()):
        return {"insample": seen, "heldout": {}}
    predicted = space.predict(queries[data.home], places, *space.parts(data.topology, data.functional))
    return {
        "insample": seen,
        "heldout": heldout_quality(similarity, predicted, data.accuracy, data.home, data.heldout),
    }


def _no_labels(features: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    # The published queries do not say which class an image is of.
    return np.zeros(len(features), dtype=np.int64)
