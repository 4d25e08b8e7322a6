"""Colour, dash and name of each strategy in all pictures and tables, on light and dark paper.

Colours are those of Okabe and Ito (2008), distinguishable with any colour vision. Only the picked model has a thick
line, so that it can be found without colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

NAMES = {
    "picked": "picked by TANS",
    "refined": "TANS, refined",
    "scratch": "from scratch",
    "imagenet": "ImageNet as it is",
    "imagenet-long": "ImageNet, longer",
    "base": "base supernet",
    "random": "random from zoo",
    "largest": "largest in zoo",
    "nearest": "nearest task",
}
DASHES = {
    "refined": (0, (3, 1)),
    "scratch": (0, (1, 1.4)),
    "random": (0, (5, 2)),
    "base": "solid",
    "imagenet": (0, (2, 1)),
    "imagenet-long": (0, (1, 3)),
    "largest": (0, (6, 1.5, 1, 1.5)),
}


@dataclass(frozen=True)
class Theme:
    """Colours of one kind of paper, as hex codes."""

    paper: str
    ink: str
    muted: str
    rule: str
    panel: str
    strategies: dict[str, str]

    def colour(self, strategy: str) -> str:
        return self.strategies.get(strategy, self.muted)


LIGHT = Theme(
    paper="#ffffff",
    ink="#1c2430",
    muted="#667382",
    rule="#e3e8ed",
    panel="#f3f5f8",
    strategies={
        "picked": "#d55e00",
        "refined": "#a67c00",
        "scratch": "#4a4a4a",
        "base": "#0072b2",
        "imagenet": "#5b3fa8",
        "imagenet-long": "#5b3fa8",
        "random": "#8c8c8c",
        "largest": "#b5568f",
        "nearest": "#009e73",
    },
)
DARK = Theme(
    paper="#171c23",
    ink="#e8ecf0",
    muted="#98a4b1",
    rule="#2c343e",
    panel="#1f2630",
    strategies={
        "picked": "#ff8a3d",
        "refined": "#f0c75e",
        "scratch": "#d2d2d2",
        "base": "#56b4e9",
        "imagenet": "#b39ddb",
        "imagenet-long": "#b39ddb",
        "random": "#8f8f8f",
        "largest": "#e29ac6",
        "nearest": "#2fc79a",
    },
)


def display_name(strategy: str) -> str:
    return NAMES.get(strategy, strategy)


def tidy(axes: Axes, theme: Theme, grid: str) -> None:
    """Remove frames and ticks; keep thin rules along `grid` ("x", "y" or "both")."""
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=theme.rule, linewidth=0.9)  # type: ignore[arg-type]
    for spine in axes.spines.values():
        spine.set_visible(False)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart, as little as possible, until neighbours are at least `gap` away, inside low..high.

    If there are too many, they are spaced evenly. The result has the order of `wanted`.
    """
    count = len(wanted)
    if count > 1 and gap * (count - 1) > high - low:
        gap = (high - low) / (count - 1)
    order = np.argsort(np.asarray(wanted), kind="stable")
    # Isotonic regression on the positions less their gaps: neighbours that would overlap are pooled at their mean.
    blocks: list[tuple[float, int]] = []
    for index, position in enumerate(order):
        mean, size = float(wanted[position]) - index * gap, 1
        while blocks and blocks[-1][0] > mean:
            other, weight = blocks.pop()
            mean, size = (other * weight + mean * size) / (weight + size), size + weight
        blocks.append((mean, size))
    flat = np.repeat([mean for mean, _ in blocks], [size for _, size in blocks])
    placed = np.clip(flat, low, high - gap * (count - 1)) + gap * np.arange(count)
    result = np.empty(count)
    result[order] = placed
    return [float(value) for value in result]
