"""A picture of networks: accuracy at home against cost, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from tans_core.evaluation.style import LIGHT, Theme, tidy
from tans_core.zoo.card import ModelCard
from tans_core.zoo.select import pareto_front

_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#b5568f", "#b88600", "#6b5b4f")


def draw_front(cards: Sequence[ModelCard], theme: Theme = LIGHT) -> Figure:
    """Draw a dot for each network with an accuracy, coloured by family, and a Pareto front for each home task.

    Accuracies of different tasks are not comparable: with several home tasks, compare the shapes of the fronts.
    """
    shown = [card for card in cards if card.val_accuracy is not None]
    homes = sorted({card.home_task for card in shown})
    figure = Figure(figsize=(7.6, 4.8), dpi=160, layout="constrained", facecolor=theme.paper)
    axes = figure.subplots()
    tidy(axes, theme, grid="both")
    for home in homes:
        at_home = [card for card in shown if card.home_task == home]
        costs, accuracies = [card.macs_m for card in at_home], [card.val_accuracy or 0.0 for card in at_home]
        front = pareto_front(costs, accuracies)
        axes.plot(
            [costs[index] for index in front],
            [accuracies[index] for index in front],
            drawstyle="steps-post",
            color=theme.muted,
            linewidth=1.4 if len(homes) == 1 else 0.6,
            zorder=1,
        )
    for number, family in enumerate(sorted({card.family for card in shown})):
        of_family = [card for card in shown if card.family == family]
        colour = _COLOURS[number % len(_COLOURS)]
        points = [card.macs_m for card in of_family], [card.val_accuracy or 0.0 for card in of_family]
        axes.scatter(*points, s=34, color=colour, edgecolor=theme.paper, linewidth=0.6, zorder=3, label=family)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else ""))
    axes.tick_params(axis="x", which="minor", colors=theme.muted, labelsize=9, length=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("M MACs of one image", color=theme.muted, fontsize=9)
    # Names come from users; a dollar sign would start a formula.
    title = f"Validation accuracy on {homes[0] if len(homes) == 1 else 'each home task'}, by cost"
    axes.set_title(title, loc="left", fontsize=11.5, weight="bold", color=theme.ink, parse_math=False)
    if shown:
        axes.legend(frameon=False, fontsize=9, labelcolor=theme.muted, loc="lower right")
    return figure
