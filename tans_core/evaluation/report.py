"""Renders reports/evaluate.html, one self-contained page with its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tans_core.evaluation.compare import FitRow
from tans_core.evaluation.findings import findings, headline
from tans_core.evaluation.meta_test import Evaluation, Story
from tans_core.evaluation.metrics import PICKED, runs_frame, summarise
from tans_core.evaluation.plots import learning_curves, summary, to_png
from tans_core.evaluation.style import DARK, LIGHT, display_name
from tans_core.pages import page_environment, png_uri
from tans_core.retrieval.candidate import LOW_TRUST, Candidate
from tans_core.tasks.task import Task

_IMAGES_PER_CLASS = 3
_CLASSES_SHOWN = 12
_THUMB_PX = 64
_CANDIDATES_SHOWN = 5


def render_report(evaluation: Evaluation) -> str:
    """Return the page. Names of tasks, classes and models come from users and are escaped."""
    metrics = summarise(evaluation.rows)
    rows = evaluation.rows
    environment = page_environment("tans_core.evaluation")
    environment.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f}%"
    environment.filters["points"] = lambda value: f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return environment.get_template("report.html.j2").render(
        headline=headline(metrics, evaluation.budget.steps),
        findings=findings(metrics),
        metrics=metrics,
        order=sorted(metrics["accuracy"], key=lambda name: -metrics["accuracy"][name]["mean"]),
        picked=PICKED,
        names={name: display_name(name) for name in metrics["accuracy"]},
        colours={"light": LIGHT.strategies, "dark": DARK.strategies},
        summary={"light": _uri(summary(rows, LIGHT)), "dark": _uri(summary(rows, DARK))},
        sections=[
            _section(story, [row for row in rows if row.task == story.task.info.name]) for story in evaluation.stories
        ],
        evaluation=evaluation,
        shared=_shared(rows),
    )


def sample_strips(task: Task) -> list[dict[str, str]]:
    """Return name and strip of training images (a PNG data URI) of each of the first classes."""
    members = task.where("train")
    labels, side = task.labels[members], int(task.images.sides.max())
    strips = []
    for label, name in list(enumerate(task.info.class_names))[:_CLASSES_SHOWN]:
        chosen = task.images.at(side, indices=members[labels == label][:_IMAGES_PER_CLASS])
        if len(chosen) == 0:
            continue
        # (n, 3, H, W) -> (H, n * W, 3)
        strip = Image.fromarray(np.ascontiguousarray(np.concatenate(list(chosen.transpose(0, 2, 3, 1)), axis=1)))
        if strip.height > _THUMB_PX:
            strip = strip.resize((round(strip.width * _THUMB_PX / strip.height), _THUMB_PX), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        strip.save(buffer, format="PNG", optimize=True)
        strips.append({"name": name, "uri": png_uri(buffer.getvalue()), "count": str(len(chosen))})
    return strips


def _section(story: Story, rows: list[FitRow]) -> dict[str, Any]:
    info = story.task.info
    frame = runs_frame(rows)
    lines: list[dict[str, Any]] = []
    for choice in story.choices:
        runs = frame[frame.strategy == choice.strategy]
        lines.append(
            {
                "strategy": choice.strategy,
                "why": choice.why,
                "models": choice.models,
                "homes": tuple(dict.fromkeys(choice.home_tasks)),
                "mean": runs.test_accuracy.mean(),
                "std": runs.test_accuracy.std(ddof=1) if len(runs) > 1 else 0.0,
                "val": runs.best_val_accuracy.mean(),
                "params_m": runs.params_m.mean(),
                "macs_m": runs.macs_m.mean(),
                "seconds": runs.seconds.mean(),
            }
        )
    lines.sort(key=lambda line: -float(line["mean"]))
    curves = {
        "light": _uri(learning_curves(rows, info.num_classes, LIGHT)),
        "dark": _uri(learning_curves(rows, info.num_classes, DARK)),
    }
    return {
        "info": info,
        "lines": lines,
        "picked_mean": next(line["mean"] for line in lines if line["strategy"] == PICKED),
        "candidates": story.candidates[:_CANDIDATES_SHOWN],
        "why": _why(story.candidates),
        "strips": sample_strips(story.task),
        "hidden_classes": max(0, info.num_classes - _CLASSES_SHOWN),
        "curves": curves,
    }


def _why(candidates: Sequence[Candidate]) -> str:
    first = candidates[0]
    side = "above" if first.predicted_score >= 0 else "below"
    text = (
        f"The predictor puts it {abs(first.predicted_score):.2f} deviations {side} a task's mean model: "
        f"{first.capacity:+.2f} by its capacity, {first.start:+.2f} as a start for any task, "
        f"{first.fit:+.2f} by how it fits this one (a cosine of {first.similarity:.2f} in the space)."
    )
    if first.trust < LOW_TRUST:
        text += " The images are far from those of all training tasks, so the fit has little weight."
    if len(candidates) > 1:
        same_home = sum(candidate.home_task == first.home_task for candidate in candidates)
        ahead = first.score - candidates[1].score
        text += f" It leads the next by {ahead:.2f} in score; "
        text += f"{same_home} of the first {len(candidates)} share its home task."
    return text


def _shared(rows: tuple[FitRow, ...]) -> list[str]:
    """Return a sentence for each model that several strategies chose on a task, and that was trained once."""
    sentences = []
    for task in dict.fromkeys(row.task for row in rows):
        by_label: dict[str, list[str]] = {}
        for row in rows:
            if row.task == task and display_name(row.strategy) not in by_label.setdefault(row.label, []):
                by_label[row.label].append(display_name(row.strategy))
        sentences += [
            f"{task}: {' and '.join(names)} are {label}" for label, names in by_label.items() if len(names) > 1
        ]
    return sentences


def _uri(figure: Figure) -> str:
    return png_uri(to_png(figure))
