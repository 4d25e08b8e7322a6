"""The classifier that a network begins with on a new task, fitted to its features as they are.

Training all weights under a fresh classifier spends the first steps on the classifier, and distorts features meanwhile (Kumar et
al., "Fine-tuning can distort pretrained features", 2022).

Axes: n images, K classes, D feature width, S side of an input in pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tans_core.errors import WeightsError
from tans_core.networks.family import Network
from tans_core.networks.preprocess import balanced_indices, batch_of, batch_statistics, statistics_of
from tans_core.networks.ridge import ridge_probe

_IMAGES, _IMAGES_PER_CLASS = 512, 4
_PENALTY = 1.0
"""Of the squared weights, beside the sum of the losses, where features have a mean square of one in all. Larger features than
these make a surer classifier, whose first mistakes cost more."""
_ITERATIONS = 100


def head_sample(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return indices of the images that a classifier is fitted to: balanced, some hundreds (n,) int64."""
    return balanced_indices(labels, max(_IMAGES, _IMAGES_PER_CLASS * len(labels.unique())), generator)


@torch.no_grad()
def fit_head(network: Network, classifier: nn.Linear, images: Tensor, labels: Tensor, precision: str) -> float:
    """Fit a classifier to a network's features by logistic regression; the network stays as it is.

    Args:
        network: whose features, of its largest member where it is a supernet.
        classifier: (K, D) weights and (K,) biases, on any device; classes without an image get the least bias.
        images: (n, 3, S, S) float32, normalised.
        labels: (n,) int64 in [0, K).
        precision: of the forward pass.

    Returns:
        The share of the labels' variance that the features explain, leaving each image out (`ridge_probe`); at most 1.
    """
    # A second of imports that fresh classifiers need not wait for.
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    features = features_of(network, images, precision)
    centre, scale = features.mean(axis=0), (features.std(axis=0) + 1e-6) * features.shape[1] ** 0.5
    with threadpool_limits(torch.get_num_threads()):
        fitted = LogisticRegression(C=1 / _PENALTY, max_iter=_ITERATIONS, tol=1e-3)
        fitted.fit((features - centre) / scale, labels.cpu().numpy())
    weights, biases = fitted.coef_, fitted.intercept_
    if len(weights) == 1:  # of two classes sklearn keeps the second one's
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    weights = weights / scale
    biases = biases - weights @ centre
    known = torch.from_numpy(fitted.classes_)
    classifier.weight.zero_()
    classifier.bias.fill_(float(biases.min()))
    classifier.weight[known] = torch.from_numpy(weights).to(classifier.weight)
    classifier.bias[known] = torch.from_numpy(biases).to(classifier.bias)
    return ridge_probe(features, labels.cpu().numpy()).fit


@torch.no_grad()
def features_of(network: Network, images: Tensor, precision: str = "fp32") -> npt.NDArray[np.float64]:
    """Return a network's penultimate features (n, D) of normalised images (n, 3, S, S).

    BatchNorm uses the images' own statistics, as fine-tuning on the task will; the stored ones are those of another
    task. The network stays as it was. `precision` bf16 runs under autocast.

    Raises:
        WeightsError: they are not finite.
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
