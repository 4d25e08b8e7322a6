from __future__ import annotations

import numpy as np
import pytest

from tans_core.use.judge import judge


def figures(right: list[list[int]], sure: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a confusion matrix."""
    labels = [true for true, row in enumerate(right) for said, count in enumerate(row) for _ in range(count)]
    said = [said for row in right for said, count in enumerate(row) for _ in range(count)]
    return np.eye(len(right))[said] * sure, np.array(labels)


def test_two_classes_190_to_10_of_noise_are_seen_through() -> None:
    found = judge(*figures([[188, 2], [10, 0]]), ("common", "rare"), 1.0)
    assert (found.accuracy, found.majority_share) == (0.94, 0.95)
    assert found.balanced_accuracy == pytest.approx((188 / 190 + 0) / 2)
    assert found.confused == (("rare", "common", 10), ("common", "rare", 2))
    rare = found.classes[1]
    assert (rare.recall, rare.precision, rare.images, rare.called) == (0.0, 0.0, 10, 2)


def test_intervals_are_those_of_wilson() -> None:
    # By the formula: centre and half width of the score interval.
    right, total, z = 7, 10, 1.959964
    centre = (right / total + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(0.7 * 0.3 / total + z**2 / (4 * total**2))
    found = judge(*figures([[7, 3], [0, 5]]), ("a", "b"), 1.0).classes[0]
    assert (found.low, found.high) == (pytest.approx(centre - half, abs=1e-6), pytest.approx(centre + half, abs=1e-6))


def test_a_class_without_images_has_no_figures_and_spoils_no_mean() -> None:
    found = judge(*figures([[4, 0, 0], [1, 3, 0], [0, 0, 0]]), ("a", "b", "none"), 1.0)
    assert (found.classes[2].recall, found.classes[2].low, found.classes[2].precision) == (None, None, None)
    assert found.balanced_accuracy == pytest.approx((1 + 0.75) / 2)


def test_calibration_error_is_the_gap_of_probability_and_accuracy() -> None:
    logits, labels = figures([[60, 40], [40, 60]], sure=np.log(9))  # says .9, is right six times in ten
    found = judge(logits, labels, ("a", "b"), np.log(9) / np.log(1.5))  # which says .6
    assert found.calibration_error_before == pytest.approx(0.3)
    assert found.calibration_error == pytest.approx(0, abs=1e-9)
    assert found.cross_entropy < found.cross_entropy_before
    assert found.cross_entropy == pytest.approx(-(0.6 * np.log(0.6) + 0.4 * np.log(0.4)))


def test_worst_mistakes_come_first() -> None:
    logits = np.array([[5.0, 0], [0, 1.0], [0, 4.0], [0, 2.0], [3.0, 0]])
    assert judge(logits, np.array([0, 0, 0, 0, 1]), ("a", "b"), 2.0).mistakes == (2, 4, 3, 1)
