"""Ranking in two steps: without running a network; then again, after the first few are probed on the user's images.

Axes: M candidates, K of them that are probed, d space dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tans_core.embeddings.probe import ProbeSample, probe, probe_sample
from tans_core.errors import WeightsError
from tans_core.networks.family import Network
from tans_core.networks.preprocess import Preprocess
from tans_core.retrieval.candidate import Candidate
from tans_core.runtime import device, progress
from tans_core.tasks.task import Task

Floats = npt.NDArray[np.float64]

_REACH = 1.0
"""Length scale of the Gaussian process over places. Chosen on held-out sources, where 0.5 to 1.5 differ little, as do
0.3 to 1 for `_NOISE`."""
_NOISE = 1.0
"""Variance of a probe alone, relative to that which it shares with its neighbours."""
_LEAST_SPREAD = 0.01
"""Least spread of probes: smaller differences depend on which images were drawn."""


@dataclass(frozen=True)
class RefineWeights:
    """Weights of a refined score, fitted on held-out sources when the space was trained.

    Attributes:
        predicted: of the predicted score, standardised over all candidates.
        probe: of the probe, standardised over the K.
        expected: rise of the standardised probe per unit of predicted score. Older spaces lack it; it is near 1.
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
    """Score all candidates by their predictions and the probes of some of them.

    For a network that was not probed, the probe is estimated from its predicted score and corrected by a Gaussian
    process over the places, fitted to the errors of this estimate on probed networks.

    Args:
        predicted: (M,) predicted scores.
        places: (M, d), rows of unit norm.
        probed: (K,) indices of the probed networks. A single one changes nothing, since probes are relative.
        probes: (K,) their probes.
        weights: of the parts.

    Returns:
        (M,) scores.
    """
    # Imported here: scikit-learn and scipy take seconds, which a retrieval without probes saves.
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    from tans_core.space.metrics import deviations

    standardised = (probes - probes.mean()) / max(float(probes.std()), _LEAST_SPREAD)
    expected = weights.expected * (predicted - predicted[probed].mean())
    process = GaussianProcessRegressor(RBF(_REACH), alpha=_NOISE, optimizer=None)
    process.fit(places[probed], standardised - expected[probed])
    estimated: Floats = expected + process.predict(places)
    estimated[probed] = standardised
    return weights.predicted * deviations(predicted) + weights.probe * estimated


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
        count: K, at least 1, how many to probe; fewer if there are fewer candidates.
        task: whose images are used.
        load: loads a network and its preprocessing by id.
        weights: of prediction and probe.
        images_per_class: images of a class in a probe, at most.
        most_images: images in a probe, at most.

    Returns:
        All candidates with their new ranks and refined scores; those probed carry `probe`.

    Raises:
        TooFewImagesError: fewer than two classes have two training images.
        WeightsError: a network cannot be read.
    """
    sample = probe_sample(task, images_per_class, most_images)
    first = progress(candidates[:count], "probing networks")
    probes = [_probe(candidate.model, load, sample) for candidate in first]
    predicted = np.array([candidate.predicted_score for candidate in candidates])
    scores = refined_scores(predicted, places, np.arange(len(probes)), np.array(probes), weights)
    all_probes: list[float | None] = [*probes, *[None] * (len(candidates) - len(probes))]
    refined = [
        replace(candidate, probe=value, score=score)
        for candidate, value, score in zip(candidates, all_probes, scores.tolist(), strict=True)
    ]
    ordered = sorted(refined, key=lambda candidate: (-candidate.score, candidate.model))
    return [replace(candidate, rank=rank) for rank, candidate in enumerate(ordered, start=1)]


def _probe(model: str, load: Callable[[str], tuple[Network, Preprocess]], sample: ProbeSample) -> float:
    network, preprocess = load(model)
    try:
        return probe(network.to(device()), preprocess, sample).fit
    except WeightsError as error:
        raise WeightsError(f"model {model!r}: {error} Run `tans zoo verify`, or search without --refine.") from error
