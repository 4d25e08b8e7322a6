from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from tans_core.use.calibration import fit_temperature


def drawn(scale: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels were drawn from softmax(logits / scale)."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (count, 5)) * scale
    chance = softmax(logits / scale, axis=1)
    return logits, np.array([rng.choice(5, p=row) for row in chance])


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_temperature_is_the_one_that_the_labels_were_drawn_at(scale: float) -> None:
    assert fit_temperature(*drawn(scale)) == pytest.approx(scale, rel=0.07)


def test_it_is_the_least_of_a_fine_grid() -> None:
    logits, labels = drawn(2.0, 300)
    doubt = 1 / (len(labels) + 2)
    targets = np.full(logits.shape, doubt / 4)
    targets[np.arange(len(labels)), labels] = 1 - doubt
    grid = np.linspace(0.5, 5, 451)
    losses = [-(targets * log_softmax(logits / one, axis=1)).sum() for one in grid]
    assert fit_temperature(logits, labels) == pytest.approx(grid[int(np.argmin(losses))], abs=0.011)


def test_a_few_images_that_are_all_right_do_not_make_it_certain() -> None:
    logits, labels = np.eye(3)[[0, 1, 2]] * 2.0, np.array([0, 1, 2])
    likely = softmax(logits / fit_temperature(logits, labels), axis=1).max(axis=1)
    assert likely == pytest.approx([1 - 1 / 5] * 3, abs=0.01)
