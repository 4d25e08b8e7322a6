"""The middle way: rank without running a network, then probe the first few on the user's images and rank those again.

Axes: K candidates that are probed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tans_core.embeddings.probe import probe, probe_sample
from tans_core.networks.elastic import ElasticNetwork
from tans_core.retrieval.candidate import Candidate
from tans_core.runtime import device, progress
from tans_core.space.metrics import deviations
from tans_core.tasks.task import Task


@dataclass(frozen=True)
class RefineWeights:
    """What a refined score is made of, as held-out sources rewarded it when the space was trained.

    Attributes:
        predicted: of the predicted score.
        probe: of the probe. Both in deviations of the K around their mean.
    """

    predicted: float
    probe: float


def refine(
    candidates: Sequence[Candidate],
    count: int,
    task: Task,
    load: Callable[[str], ElasticNetwork],
    weights: RefineWeights,
    images_per_class: int,
    most_images: int,
) -> list[Candidate]:
    """Probe the first candidates on a task's training images, and rank those again; the others keep their order behind them.

    Args:
        candidates: best first.
        count: K, how many are probed; fewer where there are fewer.
        task: whose images are looked at.
        load: a network by its id.
        weights: of the two parts.
        images_per_class: images of a class that a probe sees, at most.
        most_images: images that a probe sees, at most.

    Returns:
        All candidates with their new ranks; those probed carry `probe` and a refined `score`.

    Raises:
        TooFewImagesError: fewer than two classes have two training images.
        WeightsError: a network cannot be read.
    """
    sample = probe_sample(task, images_per_class, most_images)
    first, rest = list(candidates[:count]), list(candidates[count:])
    found = [probe(load(one.model).to(device()), sample).fit for one in progress(first, "probing networks")]
    scores = weights.predicted * deviations([one.predicted_score for one in first]) + weights.probe * deviations(found)
    refined = [
        replace(one, probe=value, score=float(score)) for one, value, score in zip(first, found, scores, strict=True)
    ]
    ordered = sorted(refined, key=lambda one: (-one.score, one.model)) + rest
    return [replace(one, rank=rank) for rank, one in enumerate(ordered, start=1)]
