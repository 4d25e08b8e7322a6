"""The map of the space as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
import textalloc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from tans_core.evaluation.space_map import Kind, Method, SpaceMap
from tans_core.evaluation.style import DARK, LIGHT, Theme

# After Okabe and Ito (2008), without yellow, which is too faint on light paper. Seven colours and four shapes, both
# cycled, distinguish 28 sources; neighbours in the legend differ in both.
_COLOURS = {
    LIGHT.paper: ("#d55e00", "#0072b2", "#009e73", "#b5568f", "#b88600", "#3d9bd1", "#6b5b4f"),
    DARK.paper: ("#ff8a3d", "#4b9fe0", "#2fc79a", "#e29ac6", "#f0c24b", "#8fd0f5", "#b5a495"),
}
_SHAPES = ("o", "s", "^", "D")
_NAME_CHARS = 40
_LEGEND_ROWS = 34
_METHODS = {Method.TSNE: "t-SNE", Method.PCA: "PCA"}


@dataclass(frozen=True)
class Mark:
    """Marker of one source: a shape of matplotlib, and colours on light and dark paper."""

    shape: str
    light: str
    dark: str

    def colour(self, theme: Theme) -> str:
        return self.dark if theme is DARK else self.light


def source_marks(sources: Sequence[str]) -> dict[str, Mark]:
    """Give each source a mark; the 29th source has the mark of the first."""
    pairs = zip(_COLOURS[LIGHT.paper], _COLOURS[DARK.paper], strict=True)
    marks = (Mark(shape, *colours) for shape, colours in zip(cycle(_SHAPES), cycle(tuple(pairs)), strict=False))
    return dict(zip(sources, islice(marks, len(sources)), strict=True))


def headline(mapped: SpaceMap) -> str:
    """Return one line about the content of the map."""
    newcomers = len(mapped.of(Kind.NEWCOMER))
    networks = f"{len(mapped.of(Kind.MODEL, Kind.NEWCOMER)):,} networks"
    if newcomers:
        networks += f", {newcomers:,} of them {'newcomers' if newcomers > 1 else 'a newcomer'},"
    return f"{len(mapped.of(Kind.TASK)):,} tasks and {networks} of {len(mapped.sources):,} sources"


def trust(mapped: SpaceMap) -> str:
    """Return one line about the method and reliability of the map."""
    parts = [_METHODS[mapped.method]]
    if "trustworthiness" in mapped.figures:
        parts.append(f"trustworthiness {mapped.figures['trustworthiness']:.3f} of 1")
    if "own_nearest" in mapped.figures:
        parts.append(f"of the five networks nearest to a task {mapped.figures['own_nearest']:.0%} are its own")
    return "; ".join(parts)


def draw_map(mapped: SpaceMap, theme: Theme = LIGHT) -> Figure:
    """Draw tasks large and named, networks small, newcomers hollow, queries as stars."""
    figure = Figure(figsize=(12.5, 9.2), dpi=160, facecolor=theme.paper)
    axes = figure.add_axes((0.015, 0.015, 0.80, 0.90))
    axes.set_facecolor(theme.paper)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_axis_off()
    marks = source_marks(mapped.sources)
    positions = mapped.positions
    for index in mapped.of(Kind.MODEL, Kind.NEWCOMER):
        mark, hollow = marks[mapped.places[index].source], mapped.places[index].kind is Kind.NEWCOMER
        colour = mark.colour(theme)
        style: dict[str, Any] = {"markersize": 6, "markerfacecolor": "none", "markeredgewidth": 1.3, "alpha": 1.0}
        if not hollow:
            style = {"markersize": 3.6, "markeredgewidth": 0, "alpha": 0.5}
        axes.plot(*positions[index], mark.shape, color=colour, markeredgecolor=colour, **style)
    for index in mapped.of(Kind.TASK):
        mark = marks[mapped.places[index].source]
        axes.plot(
            *positions[index], mark.shape, color=mark.colour(theme), markersize=9.5, markeredgecolor=theme.ink, zorder=3
        )
    for index in mapped.of(Kind.QUERY):
        axes.plot(*positions[index], "*", color=theme.ink, markersize=19, markeredgecolor=theme.paper, zorder=4)
    axes.margins(0.04)
    _legend(axes, mapped, marks, theme)
    figure.text(0.022, 0.965, f"The space: {headline(mapped)}", fontsize=14, weight="bold", color=theme.ink)
    figure.text(0.022, 0.937, trust(mapped), fontsize=10, color=theme.muted)
    _name_places(axes, mapped, theme)
    return figure


def _name_places(axes: Axes, mapped: SpaceMap, theme: Theme) -> None:
    """Place the names of queries and tasks beside their marks, so that they cover few names, marks and networks."""
    named = mapped.of(Kind.QUERY) + mapped.of(Kind.TASK)
    of_query = [mapped.places[index].kind is Kind.QUERY for index in named]
    positions = np.asarray(mapped.positions, dtype=np.float64)
    axes.apply_aspect()
    textalloc.allocate(
        axes,
        x=positions[named, 0],
        y=positions[named, 1],
        text_list=[_short(mapped.places[index].name) for index in named],
        x_scatter=positions[:, 0],
        y_scatter=positions[:, 1],
        textsize=[10.5 if query else 8 for query in of_query],
        fontweight=["bold" if query else "normal" for query in of_query],
        textcolor=theme.ink,
        linecolor=theme.muted,
        linewidth=0.7,
        path_effects=[withStroke(linewidth=2.2, foreground=theme.paper)],
        zorder=5,
        # Names come from users; a dollar sign would start a formula.
        parse_math=False,
    )


def _legend(axes: Axes, mapped: SpaceMap, marks: dict[str, Mark], theme: Theme) -> None:
    plain: dict[str, Any] = {"color": theme.muted, "linestyle": "", "marker": "o"}
    kinds = {
        Kind.TASK: Line2D([], [], **plain, markersize=9, markeredgecolor=theme.ink, label="task"),
        Kind.MODEL: Line2D([], [], **plain, markersize=3.6, label="network"),
        Kind.NEWCOMER: Line2D([], [], **plain, markersize=6, markerfacecolor="none", label="newcomer"),
        Kind.QUERY: Line2D([], [], **{**plain, "marker": "*", "color": theme.ink}, markersize=12, label="your data"),
    }
    sources = [
        Line2D([], [], marker=mark.shape, linestyle="", color=mark.colour(theme), markersize=6, label=_short(name, 26))
        for name, mark in list(marks.items())[:_LEGEND_ROWS]
    ]
    if len(marks) > _LEGEND_ROWS:
        sources.append(Line2D([], [], linestyle="", label=f"and {len(marks) - _LEGEND_ROWS} more"))
    shown = [handle for kind, handle in kinds.items() if mapped.of(kind)]
    for title, handles, top in (("", shown, 1.0), ("source", sources, 0.97 - 0.024 * len(shown))):
        legend = axes.legend(
            handles=handles,
            title=title,
            loc="upper left",
            bbox_to_anchor=(1.0, top),
            frameon=False,
            fontsize=8.5,
            title_fontsize=8.5,
            alignment="left",
            labelcolor=theme.ink,
        )
        legend.get_title().set_color(theme.muted)
        for text in legend.get_texts():
            text.set_parse_math(False)
        if title == "":
            # The second legend would replace it.
            axes.add_artist(legend)


def _short(name: str, chars: int = _NAME_CHARS) -> str:
    return name if len(name) <= chars else name[: chars - 1] + "…"
