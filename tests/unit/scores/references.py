"""Each score as its paper writes it: dense, with a loop for every sum, and slow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.covariance import ledoit_wolf

from tans_core.scores.predictions import first_clusters

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def logme(features: Floats, labels: Labels) -> float:
    """You et al. 2021, eq. 2: the evidence by dense matrices, maximised over the ratio of the precisions."""
    n, d = features.shape
    gram = features.T @ features
    scale = float(np.linalg.norm(features, 2)) ** 2

    def evidence(target: Floats, log_ratio: float) -> float:
        ratio = math.exp(log_ratio) * scale
        weights = np.linalg.solve(ratio * np.eye(d) + gram, features.T @ target)
        misfit = float(((features @ weights - target) ** 2).sum()) + ratio * float(weights @ weights)
        beta = n / misfit  # where the derivative by beta is zero
        alpha = ratio * beta
        _, log_det = np.linalg.slogdet(alpha * np.eye(d) + beta * gram)
        terms = d * math.log(alpha) + n * math.log(beta) - log_det - n * math.log(2 * math.pi)
        return (terms - beta * misfit) / 2 / n

    best = []
    for label in np.unique(labels):
        target = (labels == label).astype(float)
        starts = np.linspace(math.log(1e-10), math.log(1e6), 33)
        values = [evidence(target, start) for start in starts]
        around = int(np.argmax(values))
        bounds = starts[max(around - 1, 0)], starts[min(around + 1, 32)]
        found: Any = minimize_scalar(
            lambda x, t=target: -evidence(t, x), bounds=bounds, method="bounded", options={"xatol": 1e-9}
        )
        best.append(max(-found.fun, values[around]))
    return float(np.mean(best))


def logme_of_the_paper(features: Floats, labels: Labels) -> float:
    """You et al. 2021, algorithm 1: the fixed point of alpha and beta, for n of at least d, until nothing moves."""
    n, d = features.shape
    values = []
    eigenvalues = np.linalg.eigvalsh(features.T @ features)
    for label in np.unique(labels):
        target = (labels == label).astype(float)
        alpha = beta = 1.0
        for _ in range(2000):
            a = alpha * np.eye(d) + beta * features.T @ features
            mean = beta * np.linalg.solve(a, features.T @ target)
            gamma = sum(beta * value / (alpha + beta * value) for value in eigenvalues)
            alpha = gamma / float(mean @ mean)
            beta = (n - gamma) / float(((features @ mean - target) ** 2).sum())
        a = alpha * np.eye(d) + beta * features.T @ features
        mean = beta * np.linalg.solve(a, features.T @ target)
        misfit = float(((features @ mean - target) ** 2).sum())
        evidence = n / 2 * math.log(beta) + d / 2 * math.log(alpha) - n / 2 * math.log(2 * math.pi)
        evidence += -beta / 2 * misfit - alpha / 2 * float(mean @ mean) - np.linalg.slogdet(a)[1] / 2
        values.append(evidence / n)
    return float(np.mean(values))


def leep(probabilities: Floats, labels: Labels) -> float:
    """Nguyen et al. 2020, eq. 1 and 2."""
    n, sources = probabilities.shape
    total = 0.0
    for image in range(n):
        likelihood = 0.0
        for z in range(sources):
            joint = sum(probabilities[i, z] for i in range(n) if labels[i] == labels[image]) / n
            marginal = sum(probabilities[i, z] for i in range(n)) / n
            likelihood += joint / marginal * probabilities[image, z]
        total += math.log(likelihood)
    return total / n


def nce(sources: Labels, labels: Labels) -> float:
    """Tran et al. 2019: minus the conditional entropy, from counts."""
    n, value = len(labels), 0.0
    for z in set(sources.tolist()):
        for y in set(labels.tolist()):
            both = sum(1 for i in range(n) if sources[i] == z and labels[i] == y) / n
            if both:
                value += both * math.log(both / (sum(1 for i in range(n) if sources[i] == z) / n))
    return value


def n_leep(features: Floats, labels: Labels) -> float:
    """Li et al. 2021: principal components, expectation maximisation image by image, LEEP of the result."""
    moved = features - features.mean(axis=0)
    variances, axes = np.linalg.eigh(moved.T @ moved)
    order = np.argsort(-variances)
    kept = 1
    while sum(variances[order[:kept]]) < 0.8 * sum(variances):
        kept += 1
    places = moved @ axes[:, order[:kept]]
    places = places / math.sqrt(float((places**2).mean()))
    first = first_clusters(places, len(np.unique(labels)), 0)
    n, clusters = len(places), int(first.max()) + 1
    weights = [float((first == z).mean()) for z in range(clusters)]
    means = [places[first == z].mean(axis=0) for z in range(clusters)]
    spreads = [places[first == z].var(axis=0) + 1e-6 for z in range(clusters)]
    before = -math.inf
    for _ in range(100):
        probabilities, bound = np.zeros((n, clusters)), 0.0
        for i in range(n):
            logs = []
            for z in range(clusters):
                log_p = math.log(weights[z])
                for x, m, v in zip(places[i], means[z], spreads[z], strict=True):
                    log_p += -0.5 * (math.log(2 * math.pi * v) + (x - m) ** 2 / v)
                logs.append(log_p)
            top = max(logs)
            total = top + math.log(sum(math.exp(one - top) for one in logs))
            probabilities[i] = [math.exp(one - total) for one in logs]
            bound += total / n
        for z in range(clusters):
            share = probabilities[:, z].sum() + 10 * np.finfo(float).eps
            weights[z] = share / n
            means[z] = sum(probabilities[i, z] * places[i] for i in range(n)) / share
            spreads[z] = sum(probabilities[i, z] * (places[i] - means[z]) ** 2 for i in range(n)) / share + 1e-6
        if abs(bound - before) < 1e-3:
            break
        before = bound
    final = np.zeros((n, clusters))
    for i in range(n):
        for z in range(clusters):
            density = math.prod(
                math.exp(-0.5 * (x - m) ** 2 / v) / math.sqrt(2 * math.pi * v)
                for x, m, v in zip(places[i], means[z], spreads[z], strict=True)
            )
            final[i, z] = weights[z] * density
    return leep(final / final.sum(axis=1, keepdims=True), labels)


def h_score(features: Floats, labels: Labels) -> float:
    """Ibrahim et al. 2021, eq. 4, with sklearn's estimate of Ledoit and Wolf."""
    covariance, shrinkage = ledoit_wolf(features)
    between = np.zeros_like(covariance)
    for image in range(len(labels)):
        mean = features[labels == labels[image]].mean(axis=0) - features.mean(axis=0)
        between += np.outer(mean, mean) / len(labels)
    return float(np.trace(np.linalg.pinv(covariance) @ ((1 - shrinkage) * between)))


def gbc(features: Floats, labels: Labels) -> float:
    """Pándy et al. 2022, eq. 3 and 4, with spherical Gaussians on 64 principal components."""
    moved = features - features.mean(axis=0)
    variances, axes = np.linalg.eigh(moved.T @ moved)
    places = moved @ axes[:, np.argsort(-variances)[: min(64, int((variances > 1e-9 * variances.max()).sum()))]]
    d = places.shape[1]
    several = [c for c in np.unique(labels) if (labels == c).sum() > 1]
    members = [i for i in range(len(labels)) if labels[i] in several]
    common = np.mean([((places[i] - places[labels == labels[i]].mean(axis=0)) ** 2).mean() for i in members])
    gaussians = []
    for c in np.unique(labels):
        own = places[labels == c]
        variance = own.var(axis=0).mean() if len(own) > 1 else common
        gaussians.append((own.mean(axis=0), np.eye(d) * max(variance, 1e-6 * float((places**2).mean()))))
    score = 0.0
    for i, (mean_i, cov_i) in enumerate(gaussians):
        for j, (mean_j, cov_j) in enumerate(gaussians):
            if i != j:
                middle = (cov_i + cov_j) / 2
                distance = (mean_i - mean_j) @ np.linalg.inv(middle) @ (mean_i - mean_j) / 8
                logs = [np.linalg.slogdet(one)[1] for one in (middle, cov_i, cov_j)]
                score -= math.exp(-(distance + (logs[0] - (logs[1] + logs[2]) / 2) / 2))
    return score


def ridge(features: Floats, labels: Labels) -> tuple[float, float]:
    """Variance explained and accuracy of ridge regressions fitted anew without each image, at the best penalty."""
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    targets = np.eye(int(labels.max()) + 1)[labels]
    shares = targets.mean(axis=0)
    targets = targets - shares
    singular = np.linalg.svd(scaled, compute_uv=False)
    with_one = np.concatenate([np.ones((len(scaled), 1)), scaled], axis=1)
    best = -math.inf, 0.0
    for exponent in range(-3, 4):
        penalty = 10.0**exponent * float((singular**2).mean()) * np.eye(with_one.shape[1])
        penalty[0, 0] = 0
        error, right = 0.0, 0
        for image in range(len(scaled)):
            rest = np.arange(len(scaled)) != image
            weights = np.linalg.solve(with_one[rest].T @ with_one[rest] + penalty, with_one[rest].T @ targets[rest])
            answer = with_one[image] @ weights
            error += float(((answer - targets[image]) ** 2).sum())
            right += int((answer + shares).argmax() == labels[image])
        best = max(best, (1 - error / float((targets**2).sum()), right / len(scaled)))
    return best


def knn(features: Floats, labels: Labels, count: int = 5) -> float:
    """Votes of the nearest others by cosine, sorted one image at a time."""
    scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
    right = 0
    for image in range(len(scaled)):
        others = [other for other in range(len(scaled)) if other != image]
        cosine = {
            other: scaled[image] @ scaled[other] / np.linalg.norm(scaled[image]) / np.linalg.norm(scaled[other])
            for other in others
        }
        nearest = [int(labels[other]) for other in sorted(others, key=lambda o: -cosine[o])[:count]]
        right += max(nearest, key=lambda one: (nearest.count(one), -nearest.index(one))) == labels[image]
    return right / len(scaled)
