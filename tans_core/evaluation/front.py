"""Networks as a picture: accuracy at home against cost, and the front of those that no other beats at both."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from tans_core.evaluation.style import LIGHT, Theme, tidy
from tans_core.zoo.card import ModelCard
from tans_core.zoo.select import pareto_front

_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#b5568f", "#b88600", "#6b5b4f")


def draw_front(cards: Sequence[ModelCard], theme: Theme = LIGHT) -> Figure:
    """Draw a dot a network that has an accuracy, a colour a family, and a front a home task through the best at each cost.

    Accuracies of different tasks say nothing of each other: with several homes, look at the shape of each front.
    """
    shown = [card for card in cards if card.val_accuracy is not None]
    homes = sorted({card.home_task for card in shown})
    figure = Figure(figsize=(7.6, 4.8), dpi=160, layout="constrained", facecolor=theme.paper)
    axes = figure.subplots()
    tidy(axes, theme, grid="both")
    for home in homes:
        own = [card for card in shown if card.home_task == home]
        costs, accuracies = [card.macs_m for card in own], [card.val_accuracy or 0.0 for card in own]
        front = pareto_front(costs, accuracies)
        line = {"color": theme.muted, "linewidth": 1.4 if len(homes) == 1 else 0.6, "zorder": 1}
        axes.plot([costs[one] for one in front], [accuracies[one] for one in front], drawstyle="steps-post", **line)  # type: ignore[arg-type]
    for number, family in enumerate(sorted({card.family for card in shown})):
        own = [card for card in shown if card.family == family]
        colour = _COLOURS[number % len(_COLOURS)]
        places = [card.macs_m for card in own], [card.val_accuracy or 0.0 for card in own]
        axes.scatter(*places, s=34, color=colour, edgecolor=theme.paper, linewidth=0.6, zorder=3, label=family)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else ""))
    axes.tick_params(axis="x", which="minor", colors=theme.muted, labelsize=9, length=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("M MACs of one image", color=theme.muted, fontsize=9)
    # Names come from outside; a dollar sign in one would start a formula.
    title = f"Validation accuracy on {homes[0] if len(homes) == 1 else 'each home task'}, by cost"
    axes.set_title(title, loc="left", fontsize=11.5, weight="bold", color=theme.ink, parse_math=False)
    if shown:
        axes.legend(frameon=False, fontsize=9, labelcolor=theme.muted, loc="lower right")
    return figure
