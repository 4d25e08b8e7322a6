"""Draws the curve of one run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tans_core.io import atomic_path

_INK, _MUTED, _ACCENT = "#1f2933", "#6b7785", "#c8501e"


def save_curve(curve: Sequence[dict[str, float]], best_step: int, title: str, path: Path) -> None:
    """Draw validation accuracy and training loss against the step, and mark the step whose weights were kept."""
    steps = [point["step"] for point in curve]
    accuracies = [point["val_accuracy"] for point in curve]
    figure = Figure(figsize=(6.4, 4.6), layout="constrained", dpi=150)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    marker = "o" if len(curve) <= 30 else None
    upper.plot(steps, accuracies, color=_ACCENT, linewidth=2, marker=marker, markersize=3.5)
    best = accuracies[steps.index(best_step)]
    upper.plot([best_step], [best], "o", color=_ACCENT, markersize=9, markerfacecolor="white", markeredgewidth=2)
    late = best_step > steps[-1] * 0.6
    upper.annotate(
        f"kept: {best:.1%} at step {int(best_step)}",
        (best_step, best),
        xytext=(-10 if late else 10, -16),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        color=_INK,
        fontsize=9,
    )
    lower.plot(
        steps, [point["train_loss"] for point in curve], color=_MUTED, linewidth=1.6, marker=marker, markersize=3
    )
    upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    lower.set_ylim(bottom=0)
    lower.set_xlabel("step", color=_MUTED)
    for axes, label in ((upper, "Validation accuracy"), (lower, "Training loss")):
        axes.set_title(label, loc="left", fontsize=9.5, color=_INK)
        axes.tick_params(colors=_MUTED, labelsize=9, length=0)
        axes.grid(axis="y", color="#e5e9ee", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#c5ccd4")
    # Class and task names come from outside; a dollar sign would start a formula.
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=_INK, weight="bold", parse_math=False)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # Characters without a font are drawn as boxes; the run's other files contain the full name.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(temporary, format="png", metadata={"Software": None})
