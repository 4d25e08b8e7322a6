"""Scores from predictions of other classes than the task's: NCE, LEEP, and N-LEEP.

Axes: n images, D feature width, Z source classes (of the network's own classifier) or clusters, K classes of the task.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from tans_core.scores.inputs import Codes, Floats, centred, checked, decompose

_ENERGY = 0.8
_CLUSTERS_PER_CLASS, _IMAGES_PER_CLUSTER = 5, 5
_STEPS = 100
_LEAST_VARIANCE = 1e-6


def nce(source_labels: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return minus the entropy of the labels, given the source class of each image.

    Tran et al., "Transferability and hardness of supervised classification tasks", ICCV 2019.

    Args:
        source_labels: (n,), the class that the network's own classifier gives to each image.
        labels: (n,), of K classes.

    Returns:
        Nats: 0 where the source class determines the label, at least -log K.

    Raises:
        ValueError: wrong shapes.
        TooFewImagesError: fewer than two classes.
    """
    sources = np.unique(np.asarray(source_labels), return_inverse=True)[1].reshape(-1)
    _, codes, classes = checked(sources[:, None], labels, "source labels")
    return _mean_log_likelihood(np.eye(int(sources.max()) + 1)[sources], codes, classes)


def leep(source_probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the log likelihood of the labels, if each is drawn from the source classes that the network predicts.

    Nguyen et al., "LEEP: a new measure to evaluate transferability of learned representations", ICML 2020.

    Args:
        source_probabilities: (n, Z) from the network's own classifier, rows of sum 1. Features without a classifier
            have none: LEEP is then undefined, and so is NCE.
        labels: (n,), of K classes.

    Returns:
        Nats an image: 0 is perfect.

    Raises:
        ValueError: wrong shapes, values that are not finite, or rows that are no probabilities.
        TooFewImagesError: fewer than two classes.
    """
    rows, codes, classes = checked(source_probabilities, labels, "source probabilities")
    if rows.min() < 0 or np.abs(rows.sum(axis=1) - 1).max() > 1e-4:
        image = int(np.argmax(np.maximum(np.abs(rows.sum(axis=1) - 1), -rows.min(axis=1))))
        raise ValueError(
            f"source probabilities of image {image} sum to {rows[image].sum():.6g} with a least value of "
            f"{rows[image].min():.3g}, want 1 and none below 0. Give a softmax of the logits."
        )
    return _mean_log_likelihood(rows / rows.sum(axis=1, keepdims=True), codes, classes)


def n_leep(features: npt.ArrayLike, labels: npt.ArrayLike, seed: int = 0) -> float:
    """Return LEEP with clusters of the features in place of source classes, so that it needs no classifier.

    Li et al., "Ranking neural checkpoints", CVPR 2021: principal components with 80% of the variance, and a mixture of
    Gaussians with five clusters a class. Here covariances are diagonal, and a cluster has five images on average, since
    a few hundred images do not determine full ones.

    Args:
        features: (n, D), any float type; n may be less than D.
        labels: (n,), of K classes.
        seed: of the first clusters (k-means).

    Returns:
        Nats an image: 0 is perfect. Constant features are one cluster: minus the entropy of the labels.

    Raises:
        ValueError: wrong shapes, or features that are not finite.
        TooFewImagesError: fewer than two classes.
    """
    rows, codes, classes = checked(features, labels)
    return _mean_log_likelihood(cluster_probabilities(reduced(rows), classes, seed), codes, classes)


def reduced(rows: Floats) -> Floats:
    """Return the first principal components with 80% of the variance, (n, P), with a total variance of P."""
    left, singular = decompose(centred(rows))
    power = np.cumsum(singular**2)
    kept = int(np.searchsorted(power, _ENERGY * power[-1])) + 1 if len(power) else 0
    places = (left * singular)[:, :kept]
    scaled: Floats = places / np.sqrt((places**2).mean()) if kept else places
    return scaled


def first_clusters(places: Floats, classes: int, seed: int) -> Codes:
    """Return the cluster of each place (n,) by k-means."""
    from sklearn.cluster import KMeans

    wanted = min(_CLUSTERS_PER_CLASS * classes, max(classes, len(places) // _IMAGES_PER_CLUSTER))
    wanted = min(wanted, len(np.unique(places, axis=0)))
    found: Codes = np.unique(KMeans(wanted, n_init=1, random_state=seed).fit_predict(places), return_inverse=True)[1]
    return found.astype(np.int64)


def cluster_probabilities(places: Floats, classes: int, seed: int) -> Floats:
    """Return the probability of each cluster for each place, (n, Z)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    if places.shape[1] == 0:
        return np.ones((len(places), 1))
    # sklearn would use the cores of the other workers.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        members = np.eye(1 + int((first := first_clusters(places, classes, seed)).max()))[first]
        sizes = members.sum(axis=0)
        means = members.T @ places / sizes[:, None]
        variances = members.T @ places**2 / sizes[:, None] - means**2 + _LEAST_VARIANCE
        mixture = GaussianMixture(
            len(sizes),
            covariance_type="diag",
            reg_covar=_LEAST_VARIANCE,
            tol=1e-3,
            max_iter=_STEPS,
            init_params="random",
            weights_init=sizes / len(places),
            means_init=means,
            precisions_init=1 / np.maximum(variances, _LEAST_VARIANCE),
            random_state=seed,
        )
        probabilities: Floats = mixture.fit(places).predict_proba(places)
    return probabilities


def _mean_log_likelihood(sources: Floats, codes: Codes, classes: int) -> float:
    """Return LEEP's mean over images, from source probabilities (n, Z) and labels (n,)."""
    joint = np.eye(classes)[codes].T @ sources  # (K, Z)
    # A source class without any probability contributes nothing.
    given = joint / np.maximum(joint.sum(axis=0), np.finfo(np.float64).tiny)
    likelihood = (given[codes] * sources).sum(axis=1)
    return float(np.log(np.maximum(likelihood, np.finfo(np.float64).tiny)).mean())
