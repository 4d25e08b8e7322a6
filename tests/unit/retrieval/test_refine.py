"""What a few probes say of all candidates."""

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


def test_networks_far_from_all_that_were_probed_keep_their_order() -> None:
    places = np.concatenate([np.eye(8)[:2], -np.eye(8)[:1].repeat(4, axis=0)])
    predicted = np.array([1.0, 0.9, 0.4, 0.3, 0.2, 0.1])
    scores = refined_scores(predicted, places, np.array([0, 1]), np.array([0.1, 0.2]), WEIGHTS)
    assert (np.diff(scores[2:]) < 0).all()


def test_where_all_were_probed_only_the_two_parts_count() -> None:
    rng = np.random.default_rng(3)
    predicted, probes = rng.normal(size=12), rng.uniform(size=12)
    scores = refined_scores(predicted, on_the_sphere(12), np.arange(12), probes, WEIGHTS)
    np.testing.assert_allclose(scores, 0.4 * deviations(predicted) + 0.5 * deviations(probes))


@pytest.mark.parametrize("probes", [[0.3], [0.3, 0.3]])
def test_probes_that_tell_nothing_apart_leave_the_predicted_order(probes: list[float]) -> None:
    predicted = np.sort(np.random.default_rng(4).normal(size=20))[::-1]
    scores = refined_scores(predicted, on_the_sphere(20), np.arange(len(probes)), np.array(probes), WEIGHTS)
    assert (np.diff(scores) < 0).all()


def test_unprobed_networks_are_ordered_better_than_by_prediction_alone() -> None:
    rng = np.random.default_rng(5)
    before, after = [], []
    for seed in range(20):
        places = on_the_sphere(60, seed)
        # What is good lies in one direction, which the prediction knows badly.
        truth = places @ on_the_sphere(1, seed + 100)[0] + 0.1 * rng.normal(size=60)
        predicted = deviations(truth) + 1.5 * rng.normal(size=60)
        first = np.argsort(-predicted)[:8]
        scores = refined_scores(predicted, places, first, truth[first], WEIGHTS)
        rest = np.setdiff1d(np.arange(60), first)
        before.append(order_quality(predicted[rest], truth[rest])["weighted_tau"])
        after.append(order_quality(scores[rest], truth[rest])["weighted_tau"])
    assert np.mean(after) > np.mean(before) + 0.05
