"""The map of the space as a page: one file with data and script, which loads nothing else.

The script is our own: a plotting library would add megabytes to each page, treat names as HTML and lack our dark theme.
"""

from __future__ import annotations

import numpy as np

from tans_core.evaluation.space_map import Kind, SpaceMap
from tans_core.evaluation.space_picture import headline, source_marks, trust
from tans_core.pages import page_environment


def render_map_page(mapped: SpaceMap) -> str:
    """Return the page. Names of tasks, networks and sources come from users and are escaped."""
    marks = source_marks(mapped.sources)
    order = {source: index for index, source in enumerate(marks)}
    columns = {
        "kind": [place.kind.value for place in mapped.places],
        "name": [place.name for place in mapped.places],
        "home": [place.home_task for place in mapped.places],
        "source": [order.get(place.source, -1) for place in mapped.places],
        "accuracy": [place.val_accuracy for place in mapped.places],
        "params": [place.params_m for place in mapped.places],
        "x": mapped.positions[:, 0].round(4).astype(float).tolist(),
        "y": mapped.positions[:, 1].round(4).astype(float).tolist(),
    }
    sources = [
        {"name": name, "shape": mark.shape, "light": mark.light, "dark": mark.dark} for name, mark in marks.items()
    ]
    return (
        page_environment("tans_core.evaluation")
        .get_template("space.html.j2")
        .render(
            data={"places": columns, "sources": sources},
            headline=headline(mapped),
            trust=trust(mapped),
            nearest=mapped.nearest,
            tasks=_task_rows(mapped),
        )
    )


def _task_rows(mapped: SpaceMap) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for index in mapped.of(Kind.TASK):
        task = mapped.places[index]
        networks = [place for place in mapped.places if place.network and place.home_task == task.name]
        accuracies = [place.val_accuracy for place in networks if place.val_accuracy is not None]
        median = float(np.median(accuracies)) if accuracies else None
        best = max(accuracies, default=None)
        rows.append(
            {"name": task.name, "source": task.source, "networks": len(networks), "best": best, "median": median}
        )
    return sorted(rows, key=lambda row: str(row["name"]))
