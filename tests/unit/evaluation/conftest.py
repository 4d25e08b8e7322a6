"""Results made by hand, with known figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tans_core.evaluation.compare import Fit, FitRow
from tans_core.evaluation.metrics import LONG

DRAWS = {"picked": 1, "refined": 1, "scratch": 1, "base": 1, "random": 3, "largest": 1, "nearest": 1, LONG: 1}


def make_fit(test_accuracy: float, curve: list[float], seconds: float = 2.0) -> Fit:
    points = [
        {
            "step": 10 * place,
            "epoch": place / 2,
            "train_loss": 1.0 / place,
            "val_accuracy": value,
            "seconds": float(place),
        }
        for place, value in enumerate(curve, start=1)
    ]
    best = max(curve)
    return Fit(points, 10 * (1 + curve.index(best)), best, test_accuracy, seconds, 0.5, 7.0)


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[FitRow]]:
    """Return a maker of random results of several tasks, strategies, draws and seeds."""

    def make(tasks: tuple[str, ...] = ("cups", "leaves", "signs"), seeds: int = 2) -> list[FitRow]:
        rng = np.random.default_rng(11)
        rows = []
        for task in tasks:
            for strategy, draws in DRAWS.items():
                for draw in range(draws):
                    for seed in range(seeds):
                        points = 8 if strategy == LONG else 4
                        curve = np.round(np.sort(rng.uniform(0.1, 0.9, points)), 3).tolist()
                        label = f"{strategy}-{draw}"
                        fit = make_fit(float(np.round(rng.uniform(0.2, 0.95), 3)), curve, float(rng.uniform(1, 3)))
                        rows.append(FitRow(task, strategy, draw, seed, label, fit))
        return rows

    return make
