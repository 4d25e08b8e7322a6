"""The page of an answer: which networks to start from and why, as one file that loads nothing else.

Axes: s = an image's own side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

from tans_core.evaluation.space_map import Kind, SpaceMap
from tans_core.io import write_text
from tans_core.pages import page_environment, png_uri
from tans_core.retrieval.candidate import LOW_TRUST, Candidate
from tans_core.views.pictures import short_name, thumbnail

if TYPE_CHECKING:
    from tans_core.results import Retrieval

Images = Sequence[npt.NDArray[np.uint8]]

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 20, 22, 44
_MAP_PX = 520
_MAP_PAD = 30
_NAMED = 5
_KINDS = {
    "capacity": "its size and shape",
    "start": "its weights as a start for any images",
    "fit": "its fit to these images",
}
_WORTH_SAYING = 0.05
_SAME = 1.02
_LINE_PX = 15


@dataclass(frozen=True)
class NearTask:
    """A task near to the data set.

    Attributes:
        name: of the task.
        similarity: cosine to the data set in the space, -1..1.
        class_names: none if the task is not on this machine.
        images: some of its images, (3, s, s) uint8 each.
        best: its best network in the pool, by score; None if there is none.
    """

    name: str
    similarity: float
    class_names: Sequence[str]
    images: Images
    best: str | None


def write_answer_page(
    path: Path,
    *,
    title: str,
    found: Retrieval,
    limits: str,
    images: int,
    own: Images,
    pool: Sequence[Candidate],
    fitting: int,
    mapped: SpaceMap,
    nearest: Sequence[NearTask],
) -> None:
    """Write the page. Names of tasks, classes and networks come from outside and are escaped.

    Args:
        path: of the page.
        title: name of the data set.
        found: the answer.
        limits: in words; empty for none.
        images: how many images of the data set were read.
        own: some of them, (3, s, s) uint8 each.
        pool: the best networks within the limits, best first, at most 500; ranked again if some were probed.
        fitting: how many networks are within the limits.
        mapped: the map of these, of all tasks and of the data set.
        nearest: the tasks nearest to the data set.
    """
    environment = page_environment("tans_core.views")
    environment.filters["name"] = short_name
    environment.filters["picture"] = lambda image: png_uri(thumbnail(image, 64))
    shown = list(found)
    page = environment.get_template("answer.html.j2").render(
        title=title,
        release=found.release,
        limits=limits,
        warning=found.warning,
        images=images,
        classes=None if found.task is None else found.task.num_classes,
        own=own,
        rows=[(one, _reasons(one, shown, pool), _bar(one, shown)) for one in shown],
        runner_up=_runner_up(shown),
        unlike=bool(shown) and shown[0].trust < LOW_TRUST,
        probed=_probed(shown),
        nearest=nearest,
        plot=_plot(pool, shown),
        pool=pool,
        fitting=fitting,
        map=_map(mapped, shown),
    )
    write_text(page, path)


def _reasons(one: Candidate, shown: Sequence[Candidate], pool: Sequence[Candidate]) -> str:
    """Return why a network has its rank, in sentences."""
    if one.home_accuracy is None:
        said = ["Its weights are general: tuned on no task alone."]
    else:
        said = [f"Tuned on {one.home_task}, where it reaches {one.home_accuracy:.0%}."]
    over = {
        kind: getattr(one, kind) - float(np.mean([getattr(other, kind) for other in pool or [one]])) for kind in _KINDS
    }
    strongest = max(over, key=lambda kind: over[kind])
    if over[strongest] > _WORTH_SAYING:
        said.append(f"Most in its favour: {_KINDS[strongest]} ({over[strongest]:+.2f} over the average network).")
    if one.probe is not None:
        share = max(0.0, one.probe)
        said.append(f"On your images, its features explain {share:.0%} of the differences between classes.")
    first = shown[0]
    if one is not first:
        behind = first.score - one.score
        gap = f"{abs(behind):.2f} {'behind' if behind > 0 else 'ahead of'} the first"
        said.append(
            f"{'Equal to the first' if abs(behind) < 0.005 else gap}, {_times(one.macs_m, first.macs_m)} compute."
        )
    return " ".join(said)


def _times(value: float, base: float) -> str:
    times = value / base
    return "at about the same" if 0.9 < times < 1.1 else f"at {times:.2g} times the"


def _runner_up(shown: Sequence[Candidate]) -> dict[str, Any] | None:
    """Return what taking the second network in place of the first would cost and save."""
    if len(shown) < 2:
        return None
    first, second = shown[:2]
    costs = {
        "score": (f"{first.score:+.2f}", f"{second.score:+.2f}", f"{second.score - first.score:+.2f}"),
        "M parameters": _change(first.params_m, second.params_m),
        "MB of weights": _change(4 * first.params_m, 4 * second.params_m),
        "M MACs of one image": _change(first.macs_m, second.macs_m),
    }
    if first.latency_ms is not None and second.latency_ms is not None:
        costs["ms for a batch"] = _change(first.latency_ms, second.latency_ms)
    gap = abs(first.score - second.score)
    words = f"The scores differ by {gap:.2f}"
    if not _probed(shown):
        apart = "more than" if gap > first.plus_minus else "less than"
        words += (
            f", {apart} the interval of ±{first.plus_minus:.2f} that held four in five results on unknown data sets"
        )
        words += "" if gap > first.plus_minus else ": which of the two is better is open"
    words += "."
    return {"first": first.model, "second": second.model, "costs": costs, "words": words}


def _change(first: float, second: float) -> tuple[str, str, str]:
    return f"{first:.3g}", f"{second:.3g}", f"× {second / first:.2g}"


def _probed(shown: Sequence[Candidate]) -> bool:
    """Return whether networks were run on the images; the interval is that of predicted scores alone."""
    return any(one.probe is not None for one in shown)


def _bar(one: Candidate, shown: Sequence[Candidate]) -> dict[str, str]:
    """Return a score and its interval in per cent of the range of all that are shown; no interval if probed."""
    half = 0.0 if _probed(shown) else one.plus_minus
    low = min(other.score for other in shown) - half
    high = max(other.score for other in shown) + half
    room = max(high - low, 1e-9)
    ends = (one.score - half, one.score, one.score + half)
    from_, middle, to = (100 * (value - low) / room for value in ends)
    return {"from": f"{from_:.1f}", "middle": f"{middle:.1f}", "to": f"{100 - to:.1f}"}


def pareto(networks: Sequence[Candidate]) -> list[Candidate]:
    """Return the networks than which none of the same MACs (within 2 %) or fewer has a higher score, cheapest first."""
    front: list[Candidate] = []
    for one in sorted(networks, key=lambda one: (-one.score, one.macs_m)):
        if not front or one.macs_m * _SAME < front[-1].macs_m:
            front.append(one)
    return front[::-1]


def _plot(pool: Sequence[Candidate], shown: Sequence[Candidate]) -> dict[str, Any]:
    """Return score against MACs as marks of an SVG, the Pareto front, and the ticks of both axes."""
    macs, scores = [one.macs_m for one in pool], [one.score for one in pool]
    least, most = math.log(min(macs) / 1.15), math.log(max(macs) * 1.15)
    low, high = min(scores), max(scores)
    room = (high - low) * 0.08 or 1.0
    low, high = low - room, high + room

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log(value) - least) / (most - least)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    front, ranks = pareto(pool), {one.model: one.rank for one in shown}
    marks = [
        {
            "x": f"{x(one.macs_m):.1f}",
            "y": f"{y(one.score):.1f}",
            "title": f"{one.model}: score {one.score:.2f}, {one.macs_m:.3g} M MACs",
            "kind": "best" if one in front else "in",
            "rank": ranks.get(one.model),
        }
        for one in sorted(pool, key=lambda one: one in front)
    ]
    corners = [(x(one.macs_m), y(one.score)) for one in front]
    steps = [
        step
        for number, (right, height) in enumerate(corners)
        for step in ([(right, corners[number - 1][1])] if number else []) + [(right, height)]
    ]
    decades = range(math.floor(least / math.log(10)), math.ceil(most / math.log(10)) + 1)
    ticks = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
    heights = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    return {
        "size": (_WIDTH, _HEIGHT, _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM),
        "marks": marks,
        "front": " ".join(f"{right:.1f},{height:.1f}" for right, height in steps),
        "best": front,
        "x": [(f"{x(tick):.1f}", f"{tick:g}") for tick in ticks if least <= math.log(tick) <= most],
        "y": [(f"{y(tick):.1f}", f"{tick:+g}") for tick in heights],
    }


def _map(mapped: SpaceMap, shown: Sequence[Candidate]) -> dict[str, Any]:
    """Return the map as marks of an SVG: all tasks, of which the nearest are named, the ranked networks, the query."""
    nearest = [name for rows in mapped.nearest.values() for name, _ in rows[:_NAMED]]
    ranks: Mapping[str, int] = {one.model: one.rank for one in shown}

    def at(index: int) -> dict[str, Any]:
        place, (x, y) = mapped.places[index], mapped.positions[index].astype(float).tolist()
        half = _MAP_PX / 2 - _MAP_PAD
        left = _WIDTH / 2 + x * (_WIDTH / 2 - 2 * _MAP_PAD)
        return {
            "x": f"{left:.1f}",
            "y": f"{_MAP_PX / 2 - y * half:.1f}",
            "label": _MAP_PX / 2 - y * half,
            "end": left > _WIDTH * 0.7,
            "name": place.name,
            "near": place.name in nearest,
            "rank": ranks.get(place.name),
        }

    networks, tasks = ([at(index) for index in mapped.of(kind)] for kind in (Kind.MODEL, Kind.TASK))
    lowest = 0.0
    for one in sorted((one for one in tasks if one["near"]), key=lambda one: one["label"]):
        lowest = one["label"] = max(one["label"], lowest + _LINE_PX)  # a line for each name
    return {
        "size": (_WIDTH, _MAP_PX),
        "tasks": tasks,
        "networks": [one for one in networks if one["rank"] is None],
        "ranked": [one for one in networks if one["rank"] is not None],
        "query": at(mapped.of(Kind.QUERY)[0]),
        "trustworthiness": mapped.figures.get("trustworthiness"),
    }
