"""How a network did on a split: per class with intervals, what it confuses, and how sure it was.

Axes: n images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from scipy.stats import binomtest

_BINS = 15
_MISTAKES = 24


@dataclass(frozen=True)
class ClassFigures:
    """One class: `recall` is the share of its images that were recognised, `precision` the share of the images called
    so that are; None if there are none. `low` and `high` bound the recall (Wilson, 95 %)."""

    name: str
    images: int
    right: int
    called: int
    recall: float | None
    low: float | None
    high: float | None
    precision: float | None


@dataclass(frozen=True)
class Judgement:
    """The figures of a split.

    Attributes:
        images: n.
        accuracy: share of the images that were recognised; `low` and `high` bound it (Wilson, 95 %).
        balanced_accuracy: mean recall of the classes that have images.
        majority_share: share of the largest class: what a network that always names it reaches.
        calibration_error: mean difference of probability and accuracy, in bins of probability (ECE); of the calibrated
            probabilities, and of those before.
        cross_entropy: of the calibrated probabilities, in nats, and of those before.
        classes: in their order.
        confused: (true, predicted, count) of each pair that was confused, the most frequent first.
        mistakes: row numbers of the wrong images of which the network was surest, the surest first.
    """

    images: int
    accuracy: float
    low: float
    high: float
    balanced_accuracy: float
    majority_share: float
    calibration_error: float
    calibration_error_before: float
    cross_entropy: float
    cross_entropy_before: float
    classes: tuple[ClassFigures, ...]
    confused: tuple[tuple[str, str, int], ...]
    mistakes: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without the row numbers."""
        plain = asdict(self)
        del plain["mistakes"]
        return {**plain, "classes": [asdict(one) for one in self.classes], "confused": [*map(list, self.confused)]}


def judge(
    logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], class_names: Sequence[str], temperature: float
) -> Judgement:
    """Compare logits (n, K), n at least 1, with labels (n,) in [0, K)."""
    predicted = logits.argmax(axis=1)
    right = predicted == labels
    counts = np.zeros((len(class_names),) * 2, dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    classes = tuple(
        _figures(name, int(counts[index].sum()), int(counts[index, index]), int(counts[:, index].sum()))
        for index, name in enumerate(class_names)
    )
    recalls = [one.recall for one in classes if one.recall is not None]
    off = [(int(t), int(p)) for t, p in np.argwhere(counts) if t != p]
    off.sort(key=lambda pair: (-counts[pair], pair))
    likely = {step: log_softmax(logits / step, axis=1) for step in (temperature, 1.0)}
    surest = likely[temperature].max(axis=1)
    wrong = np.flatnonzero(~right)
    low, high = _interval(int(right.sum()), len(labels))
    rows = np.arange(len(labels))
    return Judgement(
        images=len(labels),
        accuracy=float(right.sum() / len(labels)),
        low=low,
        high=high,
        balanced_accuracy=float(np.mean(recalls)),
        majority_share=float(counts.sum(axis=1).max() / len(labels)),
        calibration_error=_calibration_error(likely[temperature], right),
        calibration_error_before=_calibration_error(likely[1.0], right),
        cross_entropy=float(-likely[temperature][rows, labels].mean()),
        cross_entropy_before=float(-likely[1.0][rows, labels].mean()),
        classes=classes,
        confused=tuple((class_names[t], class_names[p], int(counts[t, p])) for t, p in off),
        mistakes=tuple(wrong[np.argsort(-surest[wrong], kind="stable")[:_MISTAKES]].tolist()),
    )


def _figures(name: str, images: int, right: int, called: int) -> ClassFigures:
    low, high = _interval(right, images) if images else (None, None)
    recall, precision = (right / total if total else None for total in (images, called))
    return ClassFigures(name, images, right, called, recall, low, high, precision)


def _interval(right: int, total: int) -> tuple[float, float]:
    found = binomtest(right, total).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def _calibration_error(log_likely: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error (Naeini et al. 2015), with bins of equal width."""
    surest = np.exp(log_likely.max(axis=1))
    bins = np.minimum((surest * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=surest - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(right))
