"""The probe: how well a network's frozen features separate a task's classes.

It is a ridge regression on penultimate features with leave-one-out cross-validation, in closed form. Each network costs
one forward pass of a few hundred images and one small decomposition.

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
    """A few hundred class-balanced images of a task, preprocessed for each network by its card.

    Attributes:
        labels: (n,) int64.
    """

    def __init__(self, task: Task, indices: Sequence[int]) -> None:
        self._task, self._indices = task, list(indices)
        self.labels = task.labels[self._indices]
        self._scaled: dict[tuple[int, str, float], Tensor] = {}

    def images(self, preprocess: Preprocess) -> Tensor:
        """Return the images, normalised: (n, 3, S, S) float32. Scaled images are cached by size and interpolation."""
        form = preprocess.form
        if form not in self._scaled:
            self._scaled[form] = torch.from_numpy(self._task.images.at(*form, self._indices))
        on_task = preprocess.on(self._task.info)
        return normalise(self._scaled[form], on_task.mean, on_task.std)


def probe_sample(task: Task, images_per_class: int, most: int, split: str = "train") -> ProbeSample:
    """Choose images of each class by a hash of their pixels, independent of their order and file format.

    Args:
        task: the task.
        images_per_class: maximum per class.
        most: maximum in total; reduces all classes to equal shares, of at least two images each.
        split: the split to choose from.

    Raises:
        TooFewImagesError: fewer than two classes have two images.
    """
    classes, counts = np.unique(task.labels[task.where(split)], return_counts=True)
    classes = classes[counts >= 2]
    if len(classes) < 2:
        raise TooFewImagesError(
            f"task {task.info.name!r}: a probe needs 2 classes with 2 images or more in the {split} split, got "
            f"{len(classes)}. Add images, or try without --refine."
        )
    share = min(images_per_class, max(2, most // len(classes)))
    return ProbeSample(task, task.few_of_each(split, classes, share))


def probe(network: Network, preprocess: Preprocess, sample: ProbeSample, precision: str = "fp32") -> ProbeScore:
    """Probe one network on a sample of images."""
    return ridge_probe(features_of(network, sample.images(preprocess), precision), sample.labels)
