"""report.html: how a fine-tuned network did, on one page without external files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tans_core.io import write_text
from tans_core.pages import page_environment, png_uri
from tans_core.use.judge import Judgement
from tans_core.views.pictures import short_name, thumbnail

CLASSES_SHOWN = 100
MATRIX_CLASSES = 30
_PAIRS_SHOWN = 20
_WIDTH, _HEIGHT, _PAD = 640, 170, 8
_THUMB_PX = 96

Mistake = tuple[npt.NDArray[np.uint8], str, str, float, str]
"""Of one image: pixels (3, s, s), true class, predicted class, its probability, path."""


def write_run_page(
    path: Path,
    *,
    title: tuple[str, str],
    facts: Sequence[tuple[str, str]],
    curve: Sequence[Mapping[str, float]],
    best_step: int,
    judgement: Judgement,
    mistakes: Sequence[Mistake],
    warning: str = "",
    leaderboard: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page of a run. Names of files and classes come from outside and are escaped.

    Args:
        path: of the page.
        title: the network, and the data set.
        facts: terms and values for the head of the page.
        curve: of the fine-tuning; see `FinetuneResult`.
        best_step: whose weights were kept.
        judgement: on the test split.
        mistakes: the worst ones.
        warning: why the test accuracy is too high; empty if it is not.
        leaderboard: of the networks that were compared on the way; see `FinetuneRun`.
    """
    environment = page_environment("tans_core.views")
    environment.filters["name"] = short_name
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.3f}"
    worst_first = sorted(judgement.classes, key=lambda one: 2.0 if one.recall is None else one.recall)
    page = environment.get_template("run.html.j2").render(
        title=title,
        facts=facts,
        warning=warning,
        leaderboard=leaderboard,
        judged=judgement,
        classes=worst_first[:CLASSES_SHOWN],
        hidden_classes=len(worst_first) - len(worst_first[:CLASSES_SHOWN]),
        matrix=_matrix(judgement),
        pairs=judgement.confused[:_PAIRS_SHOWN],
        curve=_curve(curve, best_step),
        points=curve,
        best_step=best_step,
        mistakes=[(png_uri(thumbnail(image, _THUMB_PX)), *rest) for image, *rest in mistakes],
        wrong=judgement.images - sum(one.right for one in judgement.classes),
    )
    write_text(page, path)


def _matrix(judgement: Judgement) -> list[tuple[str, list[tuple[int, str]]]]:
    """Return a row for each true class: for each predicted one, count and shade in per cent; empty for many classes."""
    classes = judgement.classes
    if len(classes) > MATRIX_CLASSES:
        return []
    counts = {(one.name, one.name): one.right for one in classes} | {(t, p): n for t, p, n in judgement.confused}
    return [
        (
            row.name,
            [
                (count, f"{100 * count / max(row.images, 1):.0f}")
                for count in (counts.get((row.name, column.name), 0) for column in classes)
            ],
        )
        for row in classes
    ]


def _curve(curve: Sequence[Mapping[str, float]], best_step: int) -> dict[str, Any]:
    """Return the lines of accuracy and loss as points of an SVG, and the place of the kept step."""
    last = max(point["step"] for point in curve)
    highest = max([point["train_loss"] for point in curve]) or 1.0

    def place(step: float, share: float) -> tuple[str, str]:
        x = _PAD + (_WIDTH - 2 * _PAD) * step / last
        return f"{x:.1f}", f"{_PAD + (_HEIGHT - 2 * _PAD) * (1 - share):.1f}"

    kept = next(point for point in curve if point["step"] == best_step)
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "accuracy": [place(point["step"], point["val_accuracy"]) for point in curve],
        "loss": [place(point["step"], point["train_loss"] / highest) for point in curve],
        "kept": place(best_step, kept["val_accuracy"]),
        "highest": f"{highest:.3g}",
        "last": int(last),
    }
