"""The probe: how well a network's features, as they are, tell a task's classes apart.

A ridge regression on penultimate features, judged by leaving each image out in turn, which has a closed form: one forward pass of
a few hundred images and one small decomposition a network.

Axes: n images, K classes, D feature width, S side of an input in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tans_core.errors import TooFewImagesError
from tans_core.networks.family import Network
from tans_core.networks.head import features_of
from tans_core.networks.preprocess import Preprocess, normalise
from tans_core.networks.ridge import ProbeScore, ridge_probe
from tans_core.tasks.task import Task


class ProbeSample:
    """A balanced few hundred images of a task, which each network gets as its own card wants them.

    Attributes:
        labels: (n,) int64.
    """

    def __init__(self, task: Task, indices: Sequence[int]) -> None:
        self._task, self._indices = task, list(indices)
        self.labels = task.labels[self._indices]
        self._scaled: dict[tuple[int, str, float], Tensor] = {}

    def images(self, preprocess: Preprocess) -> Tensor:
        """Return the images, normalised: (n, 3, S, S) float32. They are scaled once for each way to scale them."""
        form = preprocess.form
        if form not in self._scaled:
            self._scaled[form] = torch.from_numpy(self._task.images.at(*form, self._indices))
        own = preprocess.on(self._task.info)
        return normalise(self._scaled[form], own.mean, own.std)


def probe_sample(task: Task, images_per_class: int, most: int, split: str = "train") -> ProbeSample:
    """Choose as many images of each class as can be had, by a hash of their pixels: order and file format do not matter.

    Args:
        task: whose images are looked at.
        images_per_class: at most.
        most: images in all, at most; classes are then cut to equal shares of at least two.
        split: which images may be seen.

    Raises:
        TooFewImagesError: fewer than two classes have two images.
    """
    members_of, digests = task.where(split), task.images.digests
    labels = task.labels[members_of]
    classes, counts = np.unique(labels, return_counts=True)
    classes = classes[counts >= 2]
    if len(classes) < 2:
        raise TooFewImagesError(
            f"task {task.info.name!r}: {len(classes)} classes have 2 images in the {split} split, want at least 2. Add images."
        )
    share = min(images_per_class, max(2, most // len(classes)))
    chosen: list[int] = []
    for label in classes:
        chosen += sorted(members_of[labels == label].tolist(), key=lambda index: digests[index])[:share]
    return ProbeSample(task, chosen)


def probe(network: Network, preprocess: Preprocess, sample: ProbeSample, precision: str = "fp32") -> ProbeScore:
    """Probe one network on a sample, whose images it gets as its card wants them."""
    return ridge_probe(features_of(network, sample.images(preprocess), precision), sample.labels)
