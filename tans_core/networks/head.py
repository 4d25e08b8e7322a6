"""Fits a network's classifier to its frozen features before fine-tuning.

With a fresh classifier, the first steps of training mostly fit the classifier and distort the features meanwhile (Kumar
et al., "Fine-tuning can distort pretrained features", 2022).

Axes: n images, K classes, D feature width, S side of an input in pixels.
"""

from __future__ import annotations

from collections.abc import Collection

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
"""Weight of the squared-weight penalty against the sum of the losses. Features are scaled to a total mean square of
one: larger ones give a more confident classifier, whose first mistakes cost more."""
_ITERATIONS = 100


def head_sample(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the indices (n,) int64 of some hundred class-balanced images to fit a classifier to."""
    return balanced_indices(labels, max(_IMAGES, _IMAGES_PER_CLASS * len(labels.unique())), generator)


@torch.no_grad()
def fit_head(
    network: Network,
    classifier: nn.Linear,
    images: Tensor,
    labels: Tensor,
    precision: str,
    fixed: Collection[nn.Module] = (),
) -> float:
    """Fit a classifier to a network's features by logistic regression, in place; the network does not change.

    Args:
        network: its features are used; of a supernet, those of the active member, by default the largest.
        classifier: (K, D) weights and (K,) biases, on any device; a class without images gets the smallest bias.
        images: (n, 3, S, S) float32, normalised.
        labels: (n,) int64 in [0, K).
        precision: of the forward pass.
        fixed: layers whose BatchNorm keeps its statistics.

    Returns:
        Share of the labels' variance that the features explain, cross-validated (`ridge_probe`), at most 1.
    """
    # Importing these takes a second, and fresh classifiers do not need them.
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    features = features_of(network, images, precision, fixed)
    centre, scale = features.mean(axis=0), (features.std(axis=0) + 1e-6) * features.shape[1] ** 0.5
    with threadpool_limits(torch.get_num_threads()):
        fitted = LogisticRegression(C=1 / _PENALTY, max_iter=_ITERATIONS, tol=1e-3)
        fitted.fit((features - centre) / scale, labels.cpu().numpy())
    weights, biases = fitted.coef_, fitted.intercept_
    if len(weights) == 1:  # of two classes, sklearn returns only the second one's weights
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    weights = weights / scale
    biases = biases - weights @ centre
    classes_present = torch.from_numpy(fitted.classes_)
    classifier.weight.zero_()
    classifier.bias.fill_(float(biases.min()))
    classifier.weight[classes_present] = torch.from_numpy(weights).to(classifier.weight)
    classifier.bias[classes_present] = torch.from_numpy(biases).to(classifier.bias)
    return ridge_probe(features, labels.cpu().numpy()).fit


@torch.no_grad()
def features_of(
    network: Network, images: Tensor, precision: str = "fp32", fixed: Collection[nn.Module] = ()
) -> npt.NDArray[np.float64]:
    """Return a network's penultimate features (n, D) of normalised images (n, 3, S, S).

    BatchNorm uses the statistics of these images, as fine-tuning on the task will; the stored ones belong to another
    task. Layers `fixed` keep theirs. The network does not change. `precision` bf16 runs under autocast.

    Raises:
        WeightsError: a feature is not finite.
    """
    network_device = next(network.parameters()).device
    batches = [batch.to(network_device) for batch in images.split(batch_of(images.shape[-1]))]
    # A single batch needs one pass: in train mode, BatchNorm normalises by the batch itself.
    alone = len(batches) == 1
    image_statistics = batch_statistics(network, fixed) if alone else statistics_of(network, batches[0], fixed)
    with torch.autocast(network_device.type, torch.bfloat16, enabled=precision == "bf16"), image_statistics:
        outputs = [network.features(batch).float().cpu() for batch in batches]
    features: npt.NDArray[np.float64] = torch.cat(outputs).double().numpy()
    if not np.isfinite(features).all():
        fault = "its weights are damaged, or its training diverged"
        raise WeightsError(f"the network answers images with NaN or infinity: {fault}.")
    return features
