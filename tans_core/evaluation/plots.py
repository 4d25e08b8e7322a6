"""The pictures of the meta-test: learning curves of each task, and a summary of all results."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from tans_core.evaluation.compare import FitRow
from tans_core.evaluation.metrics import LONG, PICKED, mean_curve, summarise
from tans_core.evaluation.style import DASHES, LIGHT, Theme, display_name, spread, tidy


def learning_curves(rows: Sequence[FitRow], num_classes: int, theme: Theme = LIGHT) -> Figure:
    """Draw one task: validation accuracy by step, a mean line and a band of all runs for each strategy.

    Args:
        rows: of one task.
        num_classes: K; chance is drawn at 1 / K.
        theme: colours.
    """
    figure = Figure(figsize=(7.6, 4.3), dpi=160, layout="constrained", facecolor=theme.paper)
    axes = figure.subplots()
    tidy(axes, theme, grid="y")
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    ends: dict[str, float] = {}
    steps, _ = mean_curve([row for row in rows if row.strategy == PICKED])
    # Picked last, on top of all others.
    for strategy in sorted(strategies, key=lambda name: name == PICKED):
        own_steps, curves = mean_curve([row for row in rows if row.strategy == strategy])
        colour, heavy = theme.colour(strategy), strategy == PICKED
        style: Any = DASHES.get(strategy, "solid")
        ends[strategy] = float(curves.mean(axis=0)[-1])
        if strategy == LONG:
            # Its final value only: its steps lie far to the right of this picture.
            axes.axhline(ends[strategy], color=colour, linewidth=1.2, linestyle=style)
            continue
        if len(curves) > 1:
            alpha = 0.18 if heavy else 0.07
            axes.fill_between(own_steps, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=alpha, linewidth=0)
        axes.plot(own_steps, curves.mean(axis=0), color=colour, linewidth=3 if heavy else 1.6, linestyle=style)
    last = int(steps[-1])
    axes.axhline(1 / num_classes, color=theme.muted, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.annotate(
        "chance", (steps[0], 1 / num_classes), (0, 3), textcoords="offset points", color=theme.muted, fontsize=8
    )
    low, high = axes.get_ylim()
    low = max(-0.02, min(low, 1 / num_classes - 0.03))
    high = min(1.0, high) + 0.01
    axes.set_ylim(low, high)
    axes.set_xlim(steps[0] - 0.01 * last, last)
    _label_ends(axes, ends, theme)
    axes.set_xlabel(f"fine-tuning step (of {last})", color=theme.muted, fontsize=9)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    title = f"{rows[0].task}: validation accuracy by fine-tuning step"
    _title(axes, title, "line: mean, band: range over seeds and draws", theme)
    return figure


def summary(rows: Sequence[FitRow], theme: Theme = LIGHT) -> Figure:
    """Draw a panel for all tasks, then one for each: a lane for each strategy, a dot at its mean test accuracy.

    The line through a dot spans a task's runs; in the first panel, one standard deviation between seeds to either side.
    All panels have the same scale, each centred on its own task.
    """
    metrics = summarise(rows)
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    panels = {"mean over tasks": {name: _interval(metrics["accuracy"][name]) for name in strategies}}
    for task in dict.fromkeys(row.task for row in rows):
        of_task = {
            name: [r.fit.test_accuracy for r in rows if (r.task, r.strategy) == (task, name)] for name in strategies
        }
        panels[task] = {name: (min(runs), float(np.mean(runs)), max(runs)) for name, runs in of_task.items()}
    across = 3 if len(panels) <= 6 else 4
    down = -(-len(panels) // across)
    figure = Figure(
        figsize=(1.6 + 2.5 * across, 1.0 + down * (0.8 + 0.24 * len(strategies))), dpi=160, facecolor=theme.paper
    )
    figure.set_layout_engine("constrained", wspace=0.03, hspace=0.06, h_pad=0.07)
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    span = max(0.05, *(_reach(lanes)[1] - _reach(lanes)[0] for lanes in panels.values()))
    for axes, (title, lanes) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, title, lanes, theme)
        middle = sum(_reach(lanes)) / 2
        # Room on the right for the numbers.
        axes.set_xlim(middle - 0.6 * span, middle + 0.95 * span)
    grid[0, 0].set_facecolor(theme.panel)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    _name_lanes(list(grid[:, 0]), strategies, theme)
    title = "Test accuracy after the same short fine-tuning, by what it started from"
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, weight="bold", color=theme.ink)
    ranges = "dot: mean; line: range over runs, in the first panel ± one standard deviation between seeds"
    figure.supxlabel(f"test accuracy  ({ranges})", fontsize=9, color=theme.muted)
    return figure


def _interval(value: dict[str, float]) -> tuple[float, float, float]:
    return value["mean"] - value["std"], value["mean"], value["mean"] + value["std"]


def _reach(lanes: dict[str, tuple[float, float, float]]) -> tuple[float, float]:
    return min(low for low, _, _ in lanes.values()), max(high for _, _, high in lanes.values())


def _panel(axes: Axes, title: str, lanes: dict[str, tuple[float, float, float]], theme: Theme) -> None:
    tidy(axes, theme, grid="x")
    # Task names come from users; a dollar sign would start a formula.
    axes.set_title(title, loc="left", fontsize=10, weight="bold", color=theme.ink, parse_math=False)
    for height, (strategy, (low, mean, high)) in enumerate(lanes.items()):
        _lane(axes, height, low, mean, high, strategy, theme)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}" if 0 <= value <= 1 else ""))
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _name_lanes(first_column: Sequence[Axes], strategies: Sequence[str], theme: Theme) -> None:
    for axes in first_column:
        axes.set_yticks(range(len(strategies)), [display_name(name) for name in strategies])
        for label, name in zip(axes.get_yticklabels(), strategies, strict=True):
            label.set(color=theme.colour(name), weight="bold" if name == PICKED else "normal", fontsize=9)


def to_png(figure: Figure) -> bytes:
    """Render a figure; the same figure gives the same bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def _lane(axes: Axes, height: float, low: float, mean: float, high: float, strategy: str, theme: Theme) -> None:
    colour, heavy = theme.colour(strategy), strategy == PICKED
    width = 3.6 if heavy else 1.8
    axes.plot([low, high], [height] * 2, color=colour, linewidth=width, alpha=0.5, solid_capstyle="round")
    axes.plot(
        [mean], [height], "o", color=colour, markersize=8.5 if heavy else 5.5, markeredgecolor=theme.paper, zorder=3
    )
    axes.annotate(
        f"{mean:.1%}",
        (high, height),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=9 if heavy else 8,
        weight="bold" if heavy else "normal",
        color=colour if heavy else theme.muted,
    )


def _label_ends(axes: Axes, ends: dict[str, float], theme: Theme) -> None:
    low, high = axes.get_ylim()
    places = spread(list(ends.values()), gap=(high - low) * 0.062, low=low, high=high)
    beside = axes.get_yaxis_transform()
    for (strategy, value), place in zip(ends.items(), places, strict=True):
        heavy, colour = strategy == PICKED, theme.colour(strategy)
        axes.plot([1.0, 1.035], [value, place], transform=beside, color=colour, linewidth=0.8, clip_on=False)
        axes.text(
            1.042,
            place,
            f"{display_name(strategy)}  {value:.0%}",
            transform=beside,
            va="center",
            fontsize=9.5 if heavy else 8.5,
            weight="bold" if heavy else "normal",
            color=colour,
        )


def _title(axes: Axes, title: str, subtitle: str, theme: Theme) -> None:
    # Task names come from users; a dollar sign would start a formula.
    axes.set_title(title, loc="left", pad=22, fontsize=11.5, weight="bold", color=theme.ink, parse_math=False)
    below = {"xytext": (0, 9), "textcoords": "offset points", "xycoords": "axes fraction"}
    axes.annotate(subtitle, (0, 1), color=theme.muted, fontsize=9, **below)  # type: ignore[arg-type]
