"""How a few probes change the scores of all candidates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tans_core.retrieval.refine import RefineWeights, refined_scores
from tans_core.space.metrics import deviations, order_quality

WEIGHTS = RefineWeights(predicted=0.4, probe=0.5, expected=0.3)


def on_the_sphere(count: int, seed: int = 0) -> npt.NDArray[np.float64]:
    places = np.random.default_rng(seed).normal(size=(count, 8))
    return np.asarray(places / np.linalg.norm(places, axis=1, keepdims=True))


def test_neighbours_of_a_network_that_surprised_move_with_it() -> None:
    good, bad = on_the_sphere(2)
    good_side, bad_side = (place + 0.05 * on_the_sphere(4, seed) for seed, place in enumerate((good, bad), 1))
    places = np.stack([good, bad, *good_side, *bad_side])
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    # Predicted alike; the first was better than that, the second worse.
    scores = refined_scores(np.zeros(10), places, np.array([0, 1]), np.array([0.6, 0.2]), WEIGHTS)
    assert scores[0] > scores[2:6].max() > scores[2:6].min() > 0 > scores[6:].max() > scores[6:].min() > scores[1]


def test_a_probe_counts_the_less_the_farther_away() -> None:
    angles = np.linspace(0, np.pi, 7)
    # The first has a good probe; one orthogonal to all others has a bad one.
    places = np.stack([np.cos(angles), np.sin(angles), np.zeros(7)], axis=1)
    places = np.concatenate([places, [[0, 0, 1]]])
    scores = refined_scores(np.zeros(8), places, np.array([0, 7]), np.array([0.6, 0.2]), WEIGHTS)
    assert (np.diff(scores[:7]) < 0).all()


def test_scores_are_those_of_a_gaussian_process_written_out() -> None:
    rng = np.random.default_rng(6)
    predicted, places, probed, probes = rng.normal(size=9), on_the_sphere(9), np.array([4, 0, 7]), rng.uniform(size=3)
    covariance = np.exp(-((places[:, None] - places) ** 2).sum(axis=2) / 2)
    found, expected = deviations(probes), 0.3 * (predicted - predicted[probed].mean())
    told = np.linalg.solve(covariance[np.ix_(probed, probed)] + np.eye(3), found - expected[probed])
    guessed = expected + covariance[:, probed] @ told
    guessed[probed] = found
    scores = refined_scores(predicted, places, probed, probes, WEIGHTS)
    np.testing.assert_allclose(scores, 0.4 * deviations(predicted) + 0.5 * guessed)


def test_where_all_were_probed_only_the_two_parts_count() -> None:
    rng = np.random.default_rng(3)
    predicted, probes = rng.normal(size=12), rng.uniform(size=12)
    scores = refined_scores(predicted, on_the_sphere(12), np.arange(12), probes, WEIGHTS)
    np.testing.assert_allclose(scores, 0.4 * deviations(predicted) + 0.5 * deviations(probes))


def test_one_probe_tells_nothing() -> None:
    predicted = np.sort(np.random.default_rng(4).normal(size=20))[::-1]
    scores = refined_scores(predicted, on_the_sphere(20), np.array([0]), np.array([0.3]), WEIGHTS)
    assert (np.diff(scores) < 0).all()


@pytest.mark.parametrize("probes", [[0.7] * 6, [0.1] * 6, [0.3, 0.3, 0.3, 0.3, 0.3, 0.3 + 1e-9]])
def test_probes_that_are_all_but_equal_say_so_and_no_more(probes: list[float]) -> None:
    predicted, places = np.sort(np.random.default_rng(4).normal(size=20))[::-1], on_the_sphere(20)
    scores = refined_scores(predicted, places, np.arange(6), np.array(probes), WEIGHTS)
    np.testing.assert_allclose(
        scores, refined_scores(predicted, places, np.arange(6), np.full(6, 0.5), WEIGHTS), atol=1e-6
    )
    assert (np.diff(scores[:6]) < 0).all()


def test_unprobed_networks_are_ordered_better_than_by_prediction_alone() -> None:
    rng = np.random.default_rng(5)
    before, after = [], []
    for seed in range(20):
        places = on_the_sphere(60, seed)
        # Good networks lie in one direction, which the prediction captures badly.
        truth = places @ on_the_sphere(1, seed + 100)[0] + 0.1 * rng.normal(size=60)
        predicted = deviations(truth) + 1.5 * rng.normal(size=60)
        first = np.argsort(-predicted)[:8]
        scores = refined_scores(predicted, places, first, truth[first], WEIGHTS)
        rest = np.setdiff1d(np.arange(60), first)
        before.append(order_quality(predicted[rest], truth[rest])["weighted_tau"])
        after.append(order_quality(scores[rest], truth[rest])["weighted_tau"])
    assert np.mean(after) > np.mean(before) + 0.05
