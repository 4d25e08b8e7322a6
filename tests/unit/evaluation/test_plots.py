from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tans_core.evaluation.compare import FitRow
from tans_core.evaluation.plots import learning_curves, summary, to_png
from tans_core.evaluation.style import DARK, LIGHT, spread


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_pictures_are_drawn_on_their_paper(make_rows: Callable[..., list[FitRow]], theme: object) -> None:
    rows = make_rows()
    for figure in (learning_curves(rows[:16], 4, theme), summary(rows, theme)):  # type: ignore[arg-type]
        with Image.open(io.BytesIO(to_png(figure))) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert "#" + bytes(pixels[0, 0]).hex() == theme.paper  # type: ignore[attr-defined]
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_the_same_rows_give_the_same_bytes(make_rows: Callable[..., list[FitRow]]) -> None:
    assert to_png(summary(make_rows())) == to_png(summary(make_rows()))


def test_curves_show_each_strategys_mean_and_the_summary_each_mean_accuracy(
    make_rows: Callable[..., list[FitRow]],
) -> None:
    rows = make_rows(tasks=("cups",))
    drawn = [line.get_ydata() for line in learning_curves(rows, 4).axes[0].get_lines()]
    random_runs = [[point["val_accuracy"] for point in row.fit.curve] for row in rows if row.strategy == "random"]
    assert any(len(line) == 4 and np.allclose(line, np.mean(random_runs, axis=0)) for line in drawn)
    texts = [text.get_text() for text in summary(rows).axes[1].texts]
    assert f"{np.mean([row.fit.test_accuracy for row in rows if row.strategy == 'random']):.1%}" in texts


def test_labels_are_spread_apart_in_order_and_inside() -> None:
    wanted = [0.5, 0.51, 0.1, 0.52, 1.2]
    placed = np.array(spread(wanted, gap=0.1, low=0.0, high=1.0))
    assert np.argsort(placed).tolist() == np.argsort(wanted).tolist()
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-9
    assert placed.min() >= 0
    assert placed.max() <= 1 + 1e-9
    assert spread([0.2, 0.8], gap=0.1, low=0.0, high=1.0) == [0.2, 0.8]


def test_too_many_labels_share_the_room_evenly() -> None:
    assert spread([0.5, 0.5, 0.5], gap=0.9, low=0.0, high=1.0) == pytest.approx([0.0, 0.5, 1.0])
