from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tans_core.evaluation.compare import Fit, FitRow
from tans_core.evaluation.metrics import LONG, curves_frame, steps_to_match, summarise

MakeRows = Callable[..., list[FitRow]]


def row(task: str, strategy: str, accuracy: float, curve: list[float], label: str = "m", seed: int = 0) -> FitRow:
    points = [{"step": 10.0 * (i + 1), "val_accuracy": value} for i, value in enumerate(curve)]
    return FitRow(task, strategy, 0, seed, label, Fit(points, 10, max(curve), accuracy, 2.0, 0.5, 7.0))


def test_means_and_spreads_are_those_of_slow_loops(make_rows: MakeRows) -> None:
    rows = make_rows(seeds=3)
    metrics = summarise(rows)
    tasks, strategies = (
        ("cups", "leaves", "signs"),
        ("picked", "refined", "scratch", "base", "random", "largest", "nearest"),
    )
    for strategy in strategies:
        of_seeds = []
        for seed in range(3):
            of_tasks = []
            for task in tasks:
                found = [r.fit.test_accuracy for r in rows if (r.task, r.strategy, r.seed) == (task, strategy, seed)]
                of_tasks.append(sum(found) / len(found))
            of_seeds.append(sum(of_tasks) / len(of_tasks))
        mean = sum(of_seeds) / 3
        assert metrics["accuracy"][strategy]["mean"] == pytest.approx(mean)
        spread = (sum((value - mean) ** 2 for value in of_seeds) / 2) ** 0.5
        assert metrics["accuracy"][strategy]["std"] == pytest.approx(spread)
        for task in tasks:
            runs = np.array([r.fit.test_accuracy for r in rows if (r.task, r.strategy) == (task, strategy)])
            assert metrics["tasks"][task][strategy]["mean"] == pytest.approx(runs.mean())
            assert metrics["tasks"][task][strategy]["std"] == pytest.approx(runs.std(ddof=1))


def test_margins_count_wins_losses_and_ties() -> None:
    rows = [
        row("a", "picked", 0.8, [0.5]), row("a", "base", 0.6, [0.5]),
        row("b", "picked", 0.5, [0.5]), row("b", "base", 0.6, [0.5]),
        row("c", "picked", 0.7, [0.5]), row("c", "base", 0.7, [0.5]),
    ]  # fmt: skip
    margin = summarise(rows)["margins"]["base"]
    assert (margin["wins"], margin["losses"], margin["ties"]) == (1, 1, 1)
    assert margin["mean"] == pytest.approx(0.1 / 3)
    assert margin["tasks"] == pytest.approx({"a": 0.2, "b": -0.1, "c": 0.0})


def test_ranks_share_ties_and_count_who_is_best() -> None:
    rows = [
        row("a", "picked", 0.8, [0.5]), row("a", "base", 0.8, [0.5]), row("a", "scratch", 0.3, [0.5]),
        row("b", "picked", 0.4, [0.5]), row("b", "base", 0.6, [0.5]), row("b", "scratch", 0.5, [0.5]),
    ]  # fmt: skip
    assert summarise(rows)["rank"] == {
        "picked": {"mean_rank": (1.5 + 3) / 2, "best_on": 1},
        "base": {"mean_rank": (1.5 + 1) / 2, "best_on": 2},
        "scratch": {"mean_rank": (3 + 2) / 2, "best_on": 0},
    }


def test_speed_is_the_first_step_that_reaches_the_others_best() -> None:
    rows = [
        row("a", "picked", 0.9, [0.2, 0.6, 0.7, 0.8]), row("a", "scratch", 0.6, [0.1, 0.3, 0.6, 0.5]),
        row("b", "picked", 0.9, [0.2, 0.3, 0.4, 0.5]), row("b", "scratch", 0.6, [0.1, 0.3, 0.6, 0.7]),
    ]  # fmt: skip
    assert steps_to_match(rows, "scratch") == {"tasks": {"a": 20}, "matched": 1, "median_share": (0.5 + 1.0) / 2}


def test_noise_is_how_far_apart_two_seeds_of_one_network_end() -> None:
    rows = [
        row("a", "picked", 0.80, [0.5], "m", 0), row("a", "picked", 0.83, [0.5], "m", 1),
        row("a", "base", 0.60, [0.5], "n", 0), row("a", "base", 0.59, [0.5], "n", 1),
        row("a", "largest", 0.80, [0.5], "m", 0), row("a", "largest", 0.83, [0.5], "m", 1),
    ]  # fmt: skip
    assert summarise(rows)["noise"]["between_seeds"] == pytest.approx((0.03 + 0.01) / 2)


def test_a_shared_fit_costs_once() -> None:
    rows = [
        row("a", "picked", 0.8, [0.5], "same"),
        row("a", "largest", 0.8, [0.5], "same"),
        row("a", "base", 0.8, [0.5]),
    ]
    assert summarise(rows)["fits"] == {"count": 2, "seconds": 4.0}


def test_metrics_are_plain_json_between_0_and_1(make_rows: MakeRows) -> None:
    metrics = json.loads(json.dumps(summarise(make_rows()), allow_nan=False))
    values: list[dict[str, Any]] = list(metrics["accuracy"].values())
    rivals = {"picked", "refined", "scratch", "base", "random", "largest", "nearest"}
    assert set(metrics["accuracy"]) == {*rivals, LONG}
    assert set(metrics["rank"]) == rivals
    assert all(0 <= value["mean"] <= 1 and 0 <= value["std"] <= 1 for value in values)


def test_curves_have_a_line_for_each_validation_of_each_run(make_rows: MakeRows) -> None:
    rows = make_rows()
    frame = curves_frame(rows)
    # Ten rows a task and seed, one of which was trained twice as long.
    assert len(rows) == 3 * 2 * 10
    assert len(frame) == 3 * 2 * (9 * 4 + 8)
    assert list(frame.columns[:5]) == ["task", "strategy", "draw", "seed", "step"]
    assert not frame.isna().any(axis=None)
