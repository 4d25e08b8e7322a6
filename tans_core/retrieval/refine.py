"""The middle way: rank without running a network, then probe the first few on the user's images and rank all of them again.

Axes: M candidates, K of them that are probed, d space dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tans_core.embeddings.probe import ProbeSample, probe, probe_sample
from tans_core.networks.family import Network
from tans_core.networks.preprocess import Preprocess
from tans_core.retrieval.candidate import Candidate
from tans_core.runtime import device, progress
from tans_core.space.metrics import deviations
from tans_core.tasks.task import Task

Floats = npt.NDArray[np.float64]

_REACH = 1.0
"""Distance in the space over which a probe says something of other networks. Chosen on held-out sources, where 0.5 to 1.5 differ
little; likewise `_NOISE`, of which 0.3 to 1 do."""
_NOISE = 1.0
"""Variance of a probe beside what it has in common with its neighbours', which is 1."""
_LEAST_SPREAD = 0.01
"""Of probes: what differs by less, other images would have differ otherwise."""


@dataclass(frozen=True)
class RefineWeights:
    """What a refined score is made of, as held-out sources rewarded it when the space was trained.

    Attributes:
        predicted: of the predicted score, in deviations of all candidates around their mean.
        probe: of the probe, in deviations of the K around their mean.
        expected: by how much the probe rises, in its deviations, where the predicted score rises by one. Spaces made before it
            was learned lack it; it is near 1.
    """

    predicted: float
    probe: float
    expected: float = 1.0


def refined_scores(
    predicted: Floats,
    places: npt.NDArray[np.floating],
    probed: npt.NDArray[np.int64],
    probes: Floats,
    weights: RefineWeights,
) -> Floats:
    """Score all candidates by their prediction and by what the probes of some of them say.

    A network that was not probed gets the probe that its predicted score lets expect, moved by what its neighbours in the space
    were found to be above or below theirs: a Gaussian process over the places.

    Args:
        predicted: (M,) predicted scores.
        places: (M, d), rows of unit norm.
        probed: (K,) which of them were probed. One alone tells nothing, since there is nothing to hold it against.
        probes: (K,) what was found.
        weights: of the parts.

    Returns:
        (M,) scores.
    """
    # A second of imports that a retrieval without probes need not wait for.
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    found = (probes - probes.mean()) / max(float(probes.std()), _LEAST_SPREAD)
    expected = weights.expected * (predicted - predicted[probed].mean())
    process = GaussianProcessRegressor(RBF(_REACH), alpha=_NOISE, optimizer=None)
    process.fit(places[probed], found - expected[probed])
    guessed: Floats = expected + process.predict(places)
    guessed[probed] = found
    return weights.predicted * deviations(predicted) + weights.probe * guessed


def refine(
    candidates: Sequence[Candidate],
    places: npt.NDArray[np.floating],
    count: int,
    task: Task,
    load: Callable[[str], tuple[Network, Preprocess]],
    weights: RefineWeights,
    images_per_class: int,
    most_images: int,
) -> list[Candidate]:
    """Probe the first candidates on a task's training images, and rank all of them again.

    Args:
        candidates: best first.
        places: (M, d) of the candidates, in their order.
        count: K, at least 1, how many are probed; fewer where there are fewer.
        task: whose images are looked at.
        load: a network and its preprocessing by its id.
        weights: of prediction and probe.
        images_per_class: images of a class that a probe sees, at most.
        most_images: images that a probe sees, at most.

    Returns:
        All candidates with their new ranks and refined scores; those probed carry `probe`.

    Raises:
        TooFewImagesError: fewer than two classes have two training images.
        WeightsError: a network cannot be read.
    """
    sample = probe_sample(task, images_per_class, most_images)
    first = progress(candidates[:count], "probing networks")
    found = [_probe(*load(one.model), sample) for one in first]
    predicted = np.array([one.predicted_score for one in candidates])
    scores = refined_scores(predicted, places, np.arange(len(found)), np.array(found), weights)
    probes: list[float | None] = [*found, *[None] * (len(candidates) - len(found))]
    refined = [
        replace(one, probe=value, score=score)
        for one, value, score in zip(candidates, probes, scores.tolist(), strict=True)
    ]
    ordered = sorted(refined, key=lambda one: (-one.score, one.model))
    return [replace(one, rank=rank) for rank, one in enumerate(ordered, start=1)]


def _probe(network: Network, preprocess: Preprocess, sample: ProbeSample) -> float:
    return probe(network.to(device()), preprocess, sample).fit
