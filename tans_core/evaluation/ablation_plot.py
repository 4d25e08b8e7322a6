"""The picture of an ablation: one lane for each variant, best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tans_core.evaluation.ablation import FULL
from tans_core.evaluation.metrics import PICKED
from tans_core.evaluation.style import LIGHT, Theme, tidy

_LANE_IN = 0.25
_METRIC = "weighted_tau"


def draw_ablation(
    compared: Mapping[str, Mapping[str, Mapping[str, Any]]], labels: Mapping[str, str], note: str, theme: Theme = LIGHT
) -> Figure:
    """Draw the weighted tau of each variant as a dot, with one standard deviation over the seeds to either side.

    Args:
        compared: by variant and metric, from `compare_variants`.
        labels: display name by variant.
        note: describes what it was measured on.
        theme: colours.
    """
    order = sorted(compared, key=lambda name: -compared[name][_METRIC]["mean"])
    height = 1.35 + _LANE_IN * len(order)
    figure = Figure(figsize=(8.4, height), dpi=160, facecolor=theme.paper)
    # Titles and axis have a fixed height for any number of lanes.
    axes = figure.add_axes((0.30, 0.52 / height, 0.60, 1 - 1.27 / height))
    tidy(axes, theme, grid="x")
    full = compared[FULL][_METRIC]
    accent = theme.colour(PICKED)
    axes.axvspan(full["mean"] - full["std"], full["mean"] + full["std"], color=accent, alpha=0.10, linewidth=0)
    axes.axvline(full["mean"], color=accent, linewidth=1.2)
    for lane, name in enumerate(order):
        _lane(axes, lane, name, compared[name][_METRIC], theme)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_yticks(range(len(order)), [labels[name] for name in order])
    for label, name in zip(axes.get_yticklabels(), order, strict=True):
        label.set(color=_colour(name, compared[name][_METRIC], theme), weight="bold" if name == FULL else "normal")
        label.set_parse_math(False)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel("weighted tau of the predicted order; higher is better", color=theme.muted, fontsize=9)
    title = "What each part of the space is worth on sources that it never saw"
    figure.text(0.012, 1 - 0.26 / height, title, fontsize=12, weight="bold", color=theme.ink, va="center")
    grey = "grey: no further from the full objective than both spreads"
    below = f"dot: mean, line: ± one standard deviation, over {note}; {grey}"
    figure.text(0.012, 1 - 0.52 / height, below, fontsize=8.5, color=theme.muted, va="center", parse_math=False)
    return figure


def _colour(name: str, value: Mapping[str, Any], theme: Theme) -> str:
    if name == FULL:
        return theme.colour(PICKED)
    return theme.ink if value["beyond"] else theme.muted


def _lane(axes: Axes, lane: int, name: str, value: Mapping[str, Any], theme: Theme) -> None:
    colour, heavy = _colour(name, value, theme), name == FULL
    ends = [value["mean"] - value["std"], value["mean"] + value["std"]]
    axes.plot(ends, [lane, lane], color=colour, linewidth=3.2 if heavy else 1.8, alpha=0.55, solid_capstyle="round")
    axes.plot(
        [value["mean"]], [lane], "o", color=colour, markersize=8 if heavy else 6, markeredgecolor=theme.paper, zorder=3
    )
    axes.text(
        1.015,
        lane,
        f"{value['mean']:.3f}" if heavy else signed(value["difference"], 3),
        transform=axes.get_yaxis_transform(),
        va="center_baseline",  # as the names on the left
        fontsize=9,
        weight="bold" if heavy else "normal",
        color=colour,
    )


def signed(value: float, digits: int) -> str:
    """Format a difference with a true minus sign; zero has no sign."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
