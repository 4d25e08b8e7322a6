"""The picture of a comparison of two releases: the weighted tau of both, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tans_core.evaluation.challenge import LABELS, REGRET, TAU, Decision, Measure, shown
from tans_core.evaluation.metrics import PICKED
from tans_core.evaluation.style import LIGHT, Theme, spread, tidy

Floats = npt.NDArray[np.float64]
_NAMED, _LONGEST = 6, 22
"""How many tasks are named, those that changed most, and with how many characters."""


def draw_challenge(decision: Decision, champion: str, challenger: str, theme: Theme = LIGHT) -> Figure:
    """Draw a dot for each task: the champion's weighted tau to the right, the challenger's upwards.

    Args:
        decision: with at least one task.
        champion, challenger: ids of the releases.
        theme: colours.
    """
    figure = Figure(figsize=(8.4, 5.6), dpi=160, facecolor=theme.paper)
    axes = figure.add_axes((0.085, 0.1, 0.5, 0.75))
    tidy(axes, theme, grid="both")
    old, new = (np.array([getattr(row, side)[TAU] for row in decision.tasks]) for side in ("champion", "challenger"))
    low, high = min(old.min(), new.min(), 0.0) - 0.08, max(old.max(), new.max(), 0.0) + 0.08
    axes.plot([low, high], [low, high], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    accent = theme.colour(PICKED)
    axes.scatter(old, new, s=34, color=accent, edgecolor=theme.paper, linewidth=0.8, zorder=3)
    axes.plot([old.mean()], [new.mean()], "D", markersize=9, color=theme.ink, markeredgecolor=theme.paper, zorder=4)
    # Names of tasks need room on both sides.
    axes.set_xlim(low - 0.3 * (high - low), high + 0.3 * (high - low))
    axes.set_ylim(low, high)
    _name_tasks(axes, old, new, [row.task for row in decision.tasks], theme)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xticks([float(tick) for tick in axes.get_yticks() if low <= tick <= high])
    axes.set_xlabel(f"in production: {champion}", color=theme.muted, fontsize=9, parse_math=False)
    axes.set_ylabel(f"challenger: {challenger}", color=theme.muted, fontsize=9, parse_math=False)
    verdict = "may be published" if decision.publish else "refused"
    figure.text(
        0.012, 0.955, f"Weighted tau on tasks never seen: {verdict}", fontsize=12, weight="bold", color=theme.ink
    )
    below = "a dot above the line: the challenger orders this task's networks better; diamond: mean"
    figure.text(0.012, 0.915, below, fontsize=8.5, color=theme.muted)
    _beside(figure, decision, theme)
    return figure


def _name_tasks(axes: Axes, old: Floats, new: Floats, names: Sequence[str], theme: Theme) -> None:
    """Write the names of the tasks that changed most beside their dots, away from the line."""
    low, high = axes.get_ylim()
    size = high - low
    named = [index for index in np.argsort(-np.abs(new - old), kind="stable")[:_NAMED] if old[index] != new[index]]
    for better in (True, False):
        own = [index for index in named if (new[index] > old[index]) == better]
        heights = spread([float(new[index]) for index in own], 0.045 * size, low, high)
        for index, height in zip(own, heights, strict=True):
            axes.annotate(
                names[index] if len(names[index]) <= _LONGEST else f"{names[index][: _LONGEST - 1]}…",
                (old[index], new[index]),
                xytext=(old[index] + 0.04 * size * (-1 if better else 1), height),
                ha="right" if better else "left",
                va="center_baseline",
                fontsize=8,
                color=theme.muted,
                arrowprops={"arrowstyle": "-", "color": theme.rule, "shrinkA": 0, "shrinkB": 3},
                parse_math=False,  # names come from users; a dollar sign would start a formula
            )


def _beside(figure: Figure, decision: Decision, theme: Theme) -> None:
    """Write the measures and the reason to the right of the dots."""
    left, top, step = 0.62, 0.83, 0.05
    columns = (left + 0.2, left + 0.28, left + 0.365)
    for place, head in zip(columns, ("before", "now", "p"), strict=True):
        figure.text(place, top, head, fontsize=8.5, color=theme.muted, ha="right")
    for row, one in enumerate(decision.measures, 1):
        height = top - row * step
        figure.text(left, height, _short(one), fontsize=8.5, color=theme.ink)
        values = (shown(one.name, one.champion), shown(one.name, one.challenger))
        cells = (*values, "" if one.p is None else f"{one.p:.2g}")
        for place, cell in zip(columns, cells, strict=True):
            weight = "bold" if one.name in (TAU, REGRET) else "normal"
            figure.text(place, height, cell, fontsize=8.5, color=theme.ink, ha="right", weight=weight)
    words = "\n".join([*wrap(decision.reason, 46), "", *wrap(f"Compared: {decision.basis}.", 46)])
    figure.text(
        left,
        top - (len(decision.measures) + 1.2) * step,
        words,
        fontsize=8.5,
        color=theme.ink,
        va="top",
        parse_math=False,
        linespacing=1.35,
    )


def _short(one: Measure) -> str:
    return LABELS[one.name].replace(", networks held out", ", held out")
