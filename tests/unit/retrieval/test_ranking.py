from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tans_core.retrieval.candidate import Candidate, Prefer
from tans_core.retrieval.ranking import Choice, chosen_again, few_of_each, frugal

ONE = Candidate(
    rank=1,
    model="m",
    home_task="t",
    source="s",
    licence="MIT",
    similarity=0.0,
    capacity=0.0,
    start=0.0,
    fit=0.0,
    trust=1.0,
    predicted_score=0.0,
    plus_minus=0.5,
    score=0.0,
    home_accuracy=None,
    params_m=1.0,
    macs_m=1.0,
)


def test_front_is_that_of_brute_force_with_good_enough_ones_cheapest_first() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        count = int(rng.integers(1, 40))
        # Few different numbers, so that many are equal.
        scores, costs = rng.integers(0, 12, count).astype(float), rng.integers(0, 12, count).astype(float)
        costs[rng.random(count) < 0.1] = np.nan
        tolerance = float(rng.integers(0, 4))
        front = []
        for one in np.flatnonzero(~np.isnan(costs)):
            others = np.flatnonzero(~np.isnan(costs) & (np.arange(count) != one))
            beats = (scores[others] >= scores[one]) & (costs[others] <= costs[one])
            same = (scores[others] == scores[one]) & (costs[others] == costs[one])
            # Of equal ones the first is taken.
            front += [] if (beats & (~same | (others < one))).any() else [int(one)]
        best = max((scores[one] for one in front), default=0.0)
        near = sorted((one for one in front if scores[one] >= best - tolerance), key=lambda one: costs[one])
        rest = sorted((one for one in front if one not in near), key=lambda one: -scores[one])
        assert frugal(scores, costs, tolerance).tolist() == [*near, *rest]


def test_first_few_of_each_home_task_are_kept_in_their_order() -> None:
    assert few_of_each(["a", "a", "b", "a", "b", "c"], 1) == [0, 2, 5]
    assert few_of_each(["a", "a", "b", "a", "b", "c"], 2) == [0, 1, 2, 4, 5]
    assert few_of_each(["a", "a"], None) == [0, 1]


@pytest.mark.parametrize(
    ("prefer", "timed", "wanted"),
    [
        ("accurate", True, ["best", "dear", "good", "tiny"]),
        ("small", True, ["good", "best", "tiny"]),
        ("fast", False, ["dear", "best"]),
        ("fast", True, ["best", "tiny"]),
    ],
)
def test_preference_takes_parameters_latency_or_macs(prefer: Prefer, timed: bool, wanted: list[str]) -> None:
    # score, parameters, MACs, latency
    models = {"best": (2, 9, 5, 3), "dear": (1.9, 20, 2, 9), "good": (1.6, 4, 9, 4), "tiny": (1, 1, 9, 2)}
    candidates = [
        replace(ONE, model=name, score=score, params_m=params, macs_m=macs, latency_ms=latency if timed else None)
        for name, (score, params, macs, latency) in models.items()
    ]
    assert [one.model for one in chosen_again(candidates, Choice(prefer=prefer))] == wanted
