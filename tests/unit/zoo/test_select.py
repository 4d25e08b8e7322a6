"""Choosing by expected improvement of the front of accuracy against cost."""

from __future__ import annotations

import numpy as np
import pytest

from tans_core.zoo.select import area_below, expected_gain, extend_front, unit_costs


def made_up(seed: int, candidates: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (n, 4), costs (n,) and accuracies (n,) of networks whose accuracy depends smoothly on their code."""
    rng = np.random.default_rng(seed)
    codes = rng.uniform(size=(candidates, 4))
    macs_m = 5 * np.exp(2 * codes[:, 0])
    accuracies = 0.5 + 0.2 * codes[:, 0] + 0.2 * np.exp(-8 * (codes[:, 1] - 0.7) ** 2) + rng.normal(0, 0.01, candidates)
    return codes, macs_m, accuracies


@pytest.mark.parametrize("count", [4, 8])
def test_chosen_networks_reach_a_better_front_than_as_many_random_ones(count: int) -> None:
    better = []
    for seed in range(12):
        codes, macs_m, accuracies = made_up(seed)
        costs, rng = unit_costs(macs_m.tolist()), np.random.default_rng(seed)
        order = extend_front(codes, macs_m.tolist(), accuracies.__getitem__, count)
        others = np.setdiff1d(np.arange(40), order[:2])
        drawn = [[*order[:2], *rng.choice(others, count - 2, replace=False)] for _ in range(5)]
        areas = [area_below(costs[one], accuracies[one].tolist()) for one in drawn]
        better.append(area_below(costs[order], accuracies[order].tolist()) - np.mean(areas))
    assert np.mean(better) > 0.01


def test_each_chosen_one_is_measured_once_and_the_ends_come_first() -> None:
    codes, macs_m, accuracies = made_up(0, candidates=9)
    asked: list[int] = []

    def measure(index: int) -> float:
        asked.append(index)
        return float(accuracies[index])

    order = extend_front(codes, macs_m.tolist(), measure, 20)
    assert order == asked
    assert sorted(order) == list(range(9))
    assert order[:2] == [int(macs_m.argmin()), int(macs_m.argmax())]


def test_expected_gain_is_the_mean_of_the_area_that_draws_add() -> None:
    costs, accuracies = np.array([0.0, 0.4, 0.8, 1.0]), [0.3, 0.5, 0.6, 0.62]
    front = list(zip(costs.tolist(), accuracies, strict=True))
    rng = np.random.default_rng(0)
    for cost, mean, deviation in ((0.2, 0.45, 0.1), (0.5, 0.4, 0.05), (1.0, 0.7, 0.02)):
        before = area_below(costs, accuracies)
        gains = [
            area_below(np.append(costs, cost), [*accuracies, drawn]) - before
            for drawn in rng.normal(mean, deviation, 4000)
        ]
        assert expected_gain(cost, mean, deviation, front) / 1.1 == pytest.approx(np.mean(gains), rel=0.1)


def test_area_is_the_mean_of_the_best_that_can_be_had_at_each_cost() -> None:
    # .2 from 0 to .5, .6 from there to 1.1; what is dearer and worse adds nothing.
    assert area_below(np.array([0.0, 0.5, 0.7]), [0.2, 0.6, 0.1]) == pytest.approx((0.5 * 0.2 + 0.6 * 0.6) / 1.1)


def test_networks_of_one_cost_are_told_apart_by_accuracy_alone() -> None:
    codes = np.eye(3)
    assert unit_costs([7.0, 7.0, 7.0]).tolist() == [0.0, 0.0, 0.0]
    assert sorted(extend_front(codes, [7.0] * 3, [0.1, 0.5, 0.3].__getitem__, 3)) == [0, 1, 2]
