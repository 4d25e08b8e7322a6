"""Writes the meta-test's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tans_core.evaluation.meta_test import Evaluation
from tans_core.evaluation.metrics import curves_frame, summarise
from tans_core.evaluation.plots import learning_curves, summary, to_png
from tans_core.evaluation.report import render_report
from tans_core.io import atomic_folder, write_csv, write_json, write_text


def write_evaluation(evaluation: Evaluation, root: Path) -> None:
    """Write metrics/evaluate.json, plots/evaluate.csv, plots/evaluate/*.png and reports/evaluate.html."""
    write_json(summarise(evaluation.rows), root / "metrics/evaluate.json")
    curves = cast("list[dict[str, Any]]", curves_frame(evaluation.rows).to_dict("records"))
    write_csv(curves, root / "plots/evaluate.csv")
    with atomic_folder(root / "plots/evaluate") as folder:
        (folder / "summary.png").write_bytes(to_png(summary(evaluation.rows)))
        for story in evaluation.stories:
            rows = [row for row in evaluation.rows if row.task == story.task.info.name]
            picture = to_png(learning_curves(rows, story.task.info.num_classes))
            (folder / f"{story.task.info.name}.png").write_bytes(picture)
    write_text(render_report(evaluation), root / "reports/evaluate.html")
