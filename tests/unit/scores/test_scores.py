"""Each score equals a slow reference written from its paper, is faster, and survives hard inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from tans_core.errors import TooFewImagesError
from tans_core.scores import gbc, h_score, knn_probe, leep, logme, n_leep, nce, ridge_probe
from tests.unit.scores import references

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


class Case(NamedTuple):
    features: Floats
    labels: Labels
    probabilities: Floats


def make(images: int, width: int, classes: int, seed: int = 0, signal: float = 1.0) -> Case:
    """Features of clusters in a few directions, with a skewed spectrum, and a source classifier of 6 classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % classes)
    centres = rng.normal(size=(classes, width))
    features = (signal * centres[labels] + rng.normal(size=(images, width))) * np.linspace(1.5, 0.2, width) + 0.3
    logits = features @ rng.normal(size=(width, 6)) / width**0.5
    odds = np.exp(2 * logits)
    return Case(features, labels, odds / odds.sum(axis=1, keepdims=True))


SCORES: dict[str, tuple[Callable[[Case], float], Callable[[Case], float]]] = {
    "logme": (lambda c: logme(c.features, c.labels), lambda c: references.logme(c.features, c.labels)),
    "leep": (lambda c: leep(c.probabilities, c.labels), lambda c: references.leep(c.probabilities, c.labels)),
    "nce": (
        lambda c: nce(c.probabilities.argmax(axis=1), c.labels),
        lambda c: references.nce(c.probabilities.argmax(axis=1), c.labels),
    ),
    "n_leep": (lambda c: n_leep(c.features, c.labels), lambda c: references.n_leep(c.features, c.labels)),
    "h_score": (lambda c: h_score(c.features, c.labels), lambda c: references.h_score(c.features, c.labels)),
    "gbc": (lambda c: gbc(c.features, c.labels), lambda c: references.gbc(c.features, c.labels)),
    "ridge": (
        lambda c: ridge_probe(c.features, c.labels).fit,
        lambda c: references.ridge(c.features, c.labels)[0],
    ),
    "knn": (lambda c: knn_probe(c.features, c.labels), lambda c: references.knn(c.features, c.labels)),
}
CASES = {
    "more images than features": make(60, 8, 3),
    "more features than images": make(40, 70, 4, seed=1),
    "two classes of noise": make(50, 5, 2, seed=2, signal=0.0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SCORES)
def test_score_equals_its_reference(name: str, case: str) -> None:
    fast, slow = SCORES[name]
    assert fast(CASES[case]) == pytest.approx(slow(CASES[case]), abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_accuracy_of_the_ridge_probe_is_that_of_the_reference(case: str) -> None:
    features, labels, _ = CASES[case]
    assert ridge_probe(features, labels).accuracy == pytest.approx(references.ridge(features, labels)[1])


def test_logme_is_the_fixed_point_of_the_paper() -> None:
    case = CASES["more images than features"]
    assert logme(case.features, case.labels) == pytest.approx(
        references.logme_of_the_paper(case.features, case.labels), abs=1e-6
    )


@pytest.mark.parametrize("name", SCORES)
def test_score_is_faster_than_its_reference(name: str) -> None:
    fast, slow = SCORES[name]
    case = make(120, 40, 5, seed=3)
    fast(case)  # imports

    def seconds(function: Callable[[Case], float]) -> float:
        begin = time.process_time()
        function(case)
        return time.process_time() - begin

    ours, theirs = min(seconds(fast) for _ in range(3)), seconds(slow)
    assert theirs > 2 * ours, f"{theirs:.4f} s of the reference, {ours:.4f} s"


OF_FEATURES: dict[str, Callable[[Any, Any], float]] = {
    "logme": logme,
    "n_leep": n_leep,
    "h_score": h_score,
    "gbc": gbc,
    "ridge": lambda features, labels: ridge_probe(np.asarray(features, np.float64), np.asarray(labels)).fit,
    "knn": knn_probe,
}


@pytest.mark.parametrize("name", OF_FEATURES)
def test_clear_classes_score_higher_than_mixed_ones_and_those_higher_than_noise(name: str) -> None:
    clear, mixed, noise = (make(80, 12, 4, seed=4, signal=signal) for signal in (4.0, 0.7, 0.0))
    values = [OF_FEATURES[name](case.features, case.labels) for case in (clear, mixed, noise)]
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("name", OF_FEATURES)
def test_constant_columns_change_nothing_and_names_of_classes_neither(name: str) -> None:
    case = make(40, 6, 3, seed=5)
    score = OF_FEATURES[name](case.features, case.labels)
    wider = np.concatenate([case.features, np.zeros((40, 2))], axis=1)
    # A shrunk covariance and a mean over dimensions know of the width, as their papers have it.
    if name not in ("h_score",):
        assert OF_FEATURES[name](wider, case.labels) == pytest.approx(score, rel=1e-9)
    named = np.array(["owl", "ash", "bee"])[case.labels]
    if name != "ridge":
        assert OF_FEATURES[name](case.features, named) == pytest.approx(score, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0, 12345.678, 1e30])
@pytest.mark.parametrize("name", OF_FEATURES)
def test_constant_features_know_nothing_and_give_a_number(name: str, value: float) -> None:
    labels = np.arange(20) % 4
    score = OF_FEATURES[name](np.full((20, 5), value), labels)
    known = {"n_leep": -math.log(4), "h_score": 0.0, "gbc": -12.0}
    assert math.isfinite(score)
    if name in known:
        assert score == pytest.approx(known[name], abs=1e-9)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_a_class_of_one_image_is_survived(name: str) -> None:
    case = make(30, 40, 3, seed=6)
    labels = case.labels.copy()
    labels[0] = 9
    assert math.isfinite(OF_FEATURES[name](case.features, labels))
    alone = np.arange(30)
    if name == "gbc":
        with pytest.raises(TooFewImagesError, match="each of 30 classes has 1 image"):
            gbc(case.features, alone)
    else:
        assert math.isfinite(OF_FEATURES[name](case.features, alone))


@pytest.mark.parametrize("name", OF_FEATURES)
def test_float32_of_any_scale_gives_the_score_of_float64(name: str) -> None:
    case = make(50, 20, 3, seed=7)
    narrow = case.features.astype(np.float32)
    score = OF_FEATURES[name](narrow, case.labels)
    assert score == OF_FEATURES[name](narrow.astype(np.float64), case.labels)
    for scale in (1e-6, 1e6):
        scaled = (case.features * scale).astype(np.float32)
        assert OF_FEATURES[name](scaled, case.labels) == pytest.approx(score, abs=1e-4)


def test_leep_and_nce_are_zero_where_sources_tell_the_label_and_the_entropy_where_they_tell_nothing() -> None:
    labels = np.arange(30) % 3
    assert leep(np.eye(3)[labels], labels) == pytest.approx(0, abs=1e-12)
    assert nce(labels + 7, labels) == pytest.approx(0, abs=1e-12)
    assert leep(np.full((30, 4), 0.25), labels) == pytest.approx(-math.log(3))
    assert nce(np.zeros(30, dtype=np.int64), labels) == pytest.approx(-math.log(3))
    # A source class that the network never predicts.
    unused = np.concatenate([np.eye(3)[labels], np.zeros((30, 1))], axis=1)
    assert leep(unused, labels) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in OF_FEATURES if name != "ridge"])
def test_what_cannot_be_scored_is_refused_with_what_where_and_why(name: str) -> None:
    score, features = OF_FEATURES[name], np.ones((4, 2))
    with pytest.raises(ValueError, match=r"shape \(4, 2\) and labels \(3,\)"):
        score(features, [0, 1, 0])
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        score(np.ones(4), [0, 1, 0, 1])
    with pytest.raises(TooFewImagesError, match="1 classes have images"):
        score(features, [2, 2, 2, 2])
    broken = features.copy()
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="image 2 are not finite"):
        score(broken, [0, 1, 0, 1])


def test_probabilities_that_are_none_and_no_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image 1 sum to 3"):
        leep(np.array([[0.5, 0.5], [1.0, 2.0]]), [0, 1])
    with pytest.raises(ValueError, match="got 0, want at least 1"):
        knn_probe(np.ones((4, 2)), [0, 1, 0, 1], neighbours=0)
