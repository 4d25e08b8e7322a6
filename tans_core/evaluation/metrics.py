"""Metrics of the meta-test's rows. Accuracies are on the test split, in 0..1; no choice depends on them.

Axes: T tasks, S seeds, D draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from tans_core.evaluation.compare import FitRow

PICKED = "picked"
LONG = "imagenet-long"
"""The strategy with more steps than all others, so it is not ranked with them."""
_TIE = 1e-9


def summarise(rows: Sequence[FitRow]) -> dict[str, Any]:
    """Return the content of metrics/evaluate.json.

    - `accuracy.<strategy>`: mean over tasks of the mean over draws and seeds; std is the sample standard deviation over
      seeds of the mean over tasks and draws (the variation when everything is trained again).
    - `tasks.<task>.<strategy>`: mean and sample standard deviation over that task's draws and seeds.
    - `margins.<strategy>`: picked minus the strategy: mean over tasks, tasks won, lost and tied, and each task's.
    - `rank.<strategy>`: mean over tasks of the rank by mean accuracy (1 is best, ties share), and the number of tasks
      where it is (jointly) best.
    - `speed.<strategy>`: see `steps_to_match`.
    - `cost.<strategy>`: mean parameters and MACs in millions, and seconds of a fit.
    - `noise.between_seeds`: absolute difference between two seeds of one network on one task, mean over all pairs.
    - `fits`: number of distinct fits and their total seconds.
    """
    frame = runs_frame(rows)
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    by_task = frame.groupby(["task", "strategy"])["test_accuracy"].mean().unstack()[strategies]
    return {
        "accuracy": {name: _across_tasks(frame[frame.strategy == name]) for name in strategies},
        "tasks": {task: _within_task(group) for task, group in frame.groupby("task")},
        "margins": {name: _margin(by_task[PICKED] - by_task[name]) for name in strategies if name != PICKED},
        "rank": _ranks(by_task.drop(columns=LONG, errors="ignore")),
        "speed": {name: steps_to_match(rows, name) for name in strategies if name != PICKED},
        "cost": {name: _cost(frame[frame.strategy == name]) for name in strategies},
        "noise": {"between_seeds": _between_seeds(frame)},
        "fits": _fits(frame),
    }


def runs_frame(rows: Sequence[FitRow]) -> pd.DataFrame:
    """Return a table with one line a row: task, strategy, draw, seed, label, accuracies, seconds, costs."""
    keys = ("task", "strategy", "draw", "seed", "label")
    values = ("best_step", "best_val_accuracy", "test_accuracy", "seconds", "params_m", "macs_m")
    return pd.DataFrame([{k: getattr(row, k) for k in keys} | {v: getattr(row.fit, v) for v in values} for row in rows])


def curves_frame(rows: Sequence[FitRow]) -> pd.DataFrame:
    """Return a table with one line a validation.

    Columns: task, strategy, draw, seed, step, epoch, train_loss, val_accuracy, seconds.
    """
    keys = ("task", "strategy", "draw", "seed")
    return pd.DataFrame([{k: getattr(row, k) for k in keys} | point for row in rows for point in row.fit.curve])


def mean_curve(rows: Sequence[FitRow]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the steps (P,) and validation accuracies (runs, P) of rows that were validated at the same steps."""
    steps = np.array([point["step"] for point in rows[0].fit.curve], dtype=np.int64)
    return steps, np.array([[point["val_accuracy"] for point in row.fit.curve] for row in rows])


def steps_to_match(rows: Sequence[FitRow], other: str) -> dict[str, Any]:
    """Measure when picked reaches the best value of `other`, on each task's mean validation curves.

    Returns:
        `tasks`: the first such step, for tasks where there is one; `matched`: the number of those tasks;
        `median_share`: median over tasks of that step as a share of the budget, 1 for a task without one.
    """
    matched: dict[str, int] = {}
    shares = []
    for task in sorted({row.task for row in rows}):
        steps, ours = mean_curve([row for row in rows if row.task == task and row.strategy == PICKED])
        _, theirs = mean_curve([row for row in rows if row.task == task and row.strategy == other])
        reached = np.flatnonzero(ours.mean(axis=0) >= theirs.mean(axis=0).max() - _TIE)
        if len(reached):
            matched[task] = int(steps[reached[0]])
        shares.append(matched.get(task, int(steps[-1])) / int(steps[-1]))
    return {"tasks": matched, "matched": len(matched), "median_share": float(np.median(shares))}


def _across_tasks(frame: pd.DataFrame) -> dict[str, float]:
    # (S, T): draws are averaged first, so that tasks with more draws have no more weight.
    table = frame.groupby(["seed", "task"])["test_accuracy"].mean().unstack().to_numpy()
    return _mean_std(table.mean(axis=1))


def _within_task(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {str(name): _mean_std(group["test_accuracy"].to_numpy()) for name, group in frame.groupby("strategy")}


def _mean_std(values: npt.NDArray[np.float64]) -> dict[str, float]:
    return {"mean": float(values.mean()), "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0}


def _margin(differences: pd.Series[float]) -> dict[str, Any]:
    return {
        "mean": float(differences.mean()),
        "wins": int((differences > _TIE).sum()),
        "losses": int((differences < -_TIE).sum()),
        "ties": int((differences.abs() <= _TIE).sum()),
        "tasks": {str(task): float(value) for task, value in differences.items()},
    }


def _ranks(by_task: pd.DataFrame) -> dict[str, dict[str, float]]:
    ranks = rankdata(-by_task.to_numpy().round(9), axis=1, method="average")
    best = by_task.to_numpy() >= by_task.to_numpy().max(axis=1, keepdims=True) - _TIE
    return {
        str(name): {"mean_rank": float(ranks[:, column].mean()), "best_on": int(best[:, column].sum())}
        for column, name in enumerate(by_task.columns)
    }


def _cost(frame: pd.DataFrame) -> dict[str, float]:
    return {name: float(frame[name].mean()) for name in ("params_m", "macs_m", "seconds")}


def _between_seeds(frame: pd.DataFrame) -> float:
    distinct = frame.drop_duplicates(["task", "label", "seed"])
    pairs = [
        abs(one - other)
        for _, group in distinct.groupby(["task", "label"])
        for one, other in combinations(group["test_accuracy"], 2)
    ]
    return float(np.mean(pairs)) if pairs else 0.0


def _fits(frame: pd.DataFrame) -> dict[str, float]:
    distinct = frame.drop_duplicates(["task", "label", "seed"])
    return {"count": len(distinct), "seconds": float(distinct["seconds"].sum())}
