"""The page of the benchmark, one self-contained file, and its picture. Axes: P points of a curve, T tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tans_core.benchmark.judge import RANDOM, pick_of
from tans_core.benchmark.orders import BLIND, IMAGENET, OURS, REFINED_OURS, Judged
from tans_core.evaluation.plots import to_png
from tans_core.evaluation.style import DARK, LIGHT, Theme, spread, tidy
from tans_core.pages import page_environment, png_uri

_DRAWN = {OURS: "picked", REFINED_OURS: "refined", "LogME": "nearest", BLIND: "base", IMAGENET: "imagenet"}
"""Rankings in the picture, each with the strategy of the evaluation whose colour it has."""


def render_page(record: dict[str, Any], pool: Sequence[Judged]) -> str:
    """Return the page. Names of tasks and models come from users and are escaped."""
    environment = page_environment("tans_core.benchmark")
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}%"
    environment.filters["number"] = lambda value, digits=1: "–" if value is None else f"{value:.{digits}f}"
    groups = []
    for key, title in (("unseen", "Unseen tasks, fine-tuned for this"), ("trials", "The zoo's own trials")):
        if key in record:
            rankings = record[key]["rankings"]
            order = sorted(rankings, key=lambda name: (rankings[name]["regret_at_1"], name))
            groups.append({"key": key, "title": title, "order": order, **record[key]})
    return environment.get_template("benchmark.html.j2").render(
        headline=headline(record),
        record=record,
        groups=groups,
        ours=(OURS, REFINED_OURS),
        picture={kind: png_uri(to_png(draw_curves(pool, theme))) for kind, theme in (("light", LIGHT), ("dark", DARK))}
        if pool
        else None,
    )


def headline(record: dict[str, Any]) -> str:
    """Return one sentence: what the picks of TANS lose to the best network, and what LogME loses."""
    group = record.get("unseen") or record["trials"]
    rankings = group["rankings"]
    regrets = ", ".join(
        f"{name} {rankings[name]['regret_at_1']:.1f}"
        for name in (OURS, REFINED_OURS, "LogME", IMAGENET, RANDOM)
        if name in rankings and rankings[name]["tasks"] == group["tasks"]
    )
    return f"Points of accuracy lost to the best network, mean over {group['tasks']} tasks: {regrets}."


def draw_curves(pool: Sequence[Judged], theme: Theme = LIGHT) -> Figure:
    """Draw the validation accuracy of the picks of some rankings by step, mean over the tasks."""
    figure = Figure(figsize=(7.6, 4.3), dpi=160, layout="constrained", facecolor=theme.paper)
    axes = figure.subplots()
    tidy(axes, theme, grid="y")
    assert pool[0].curves is not None
    steps = pool[0].curves[0]
    lines = {"mean of the pool": np.mean([one.curves[1].mean(axis=0) for one in pool if one.curves], axis=0)}
    colours = {"mean of the pool": theme.colour("random")}
    for name, strategy in _DRAWN.items():
        if all(name in one.orders or (name == IMAGENET and one.imagenet) for one in pool):
            lines[name] = np.mean([one.curves[1][pick_of(one, name)] for one in pool if one.curves], axis=0)
            colours[name] = theme.colour(strategy)
    for name, line in lines.items():
        axes.plot(steps, line, color=colours[name], linewidth=3 if name == OURS else 1.6, marker="o", markersize=3.5)
    low, high = axes.get_ylim()
    places = spread([float(line[-1]) for line in lines.values()], gap=(high - low) * 0.062, low=low, high=high)
    for (name, line), place in zip(lines.items(), places, strict=True):
        beside = axes.get_yaxis_transform()
        label = f"{name}  {line[-1]:.1%}"
        axes.text(1.03, place, label, transform=beside, va="center", fontsize=8.5, color=colours[name])
    axes.set_xlim(0, float(steps[-1]))
    axes.set_xlabel("fine-tuning step", color=theme.muted, fontsize=9)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    title = f"Validation accuracy of the network that each ranking puts first, mean over {len(pool)} tasks"
    axes.set_title(title, loc="left", fontsize=11, weight="bold", color=theme.ink)
    return figure
