"""The probe: how well a network's features, as they are, tell a task's classes apart.

A ridge regression on penultimate features, judged by leaving each image out in turn, which has a closed form: one forward pass of
a few hundred images and one small decomposition a network.

Axes: n images, K classes, D feature width, S side of an input in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tans_core.errors import TooFewImagesError, WeightsError
from tans_core.networks.family import Network
from tans_core.networks.preprocess import Preprocess, batch_of, batch_statistics, normalise, statistics_of
from tans_core.tasks.task import Task

_PENALTIES = tuple(10.0**exponent for exponent in range(-3, 4))
"""Shares of the features' mean squared singular value."""


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


@dataclass(frozen=True)
class ProbeScore:
    """What a probe found, leaving each image out.

    Attributes:
        accuracy: share of images that are named rightly, 0..1.
        fit: share of the labels' variance that is explained, at most 1; finer than the accuracy, and negative where the
            features say less than the classes' shares do.
    """

    accuracy: float
    fit: float


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


@torch.no_grad()
def probe_features(network: Network, images: Tensor, precision: str = "fp32") -> npt.NDArray[np.float64]:
    """Return a network's penultimate features (n, D) of normalised images (n, 3, S, S).

    BatchNorm uses the images' own statistics, as fine-tuning on the task will; the stored ones are those of another
    task. The network stays as it was. `precision` bf16 runs under autocast.
    """
    place = next(network.parameters()).device
    parts = [part.to(place) for part in images.split(batch_of(images.shape[-1]))]
    # One pass is enough where the images are one batch: BatchNorm then normalises by what it is given.
    by_images = batch_statistics(network) if len(parts) == 1 else statistics_of(network, parts[0])
    with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"), by_images:
        answers = [network.features(part).float().cpu() for part in parts]
    features: npt.NDArray[np.float64] = torch.cat(answers).double().numpy()
    if not np.isfinite(features).all():
        raise WeightsError("the network answers images with NaN or infinity: its weights are damaged.")
    return features


def ridge_probe(features: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> ProbeScore:
    """Judge features (n, D) by how well a ridge regression on them names the labels (n,) of images left out.

    The regularisation is the one that leaves the smallest error; each image's own prediction never saw it.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    shares = np.bincount(codes) / len(codes)
    targets = np.eye(len(classes))[codes] - shares  # (n, K)
    centred = features - features.mean(axis=0)
    deviation = centred.std(axis=0)
    centred = centred[:, deviation > 1e-9] / deviation[deviation > 1e-9]
    if centred.shape[1] == 0:
        return ProbeScore(float(shares.max()), 0.0)
    # By torch, which keeps to the threads that it was given; numpy's would fight over the cores of the other workers.
    left, singular = (part.numpy() for part in torch.linalg.svd(torch.from_numpy(centred), full_matrices=False)[:2])
    projected = left.T @ targets  # (r, K)
    total = float((targets**2).sum())
    best: ProbeScore | None = None
    for penalty in _PENALTIES:
        shrink = singular**2 / (singular**2 + penalty * float((singular**2).mean()))  # (r,)
        fitted = left @ (shrink[:, None] * projected)  # (n, K)
        leverage = (left**2) @ shrink + 1 / len(labels)  # the mean is fitted, too
        left_out = targets - (targets - fitted) / np.maximum(1 - leverage, 1e-6)[:, None]
        fit = 1 - float(((targets - left_out) ** 2).sum()) / total
        if best is None or fit > best.fit:
            best = ProbeScore(float(((left_out + shares).argmax(axis=1) == codes).mean()), fit)
    assert best is not None
    return best


def probe(network: Network, preprocess: Preprocess, sample: ProbeSample, precision: str = "fp32") -> ProbeScore:
    """Probe one network on a sample, whose images it gets as its card wants them."""
    return ridge_probe(probe_features(network, sample.images(preprocess), precision), sample.labels)
