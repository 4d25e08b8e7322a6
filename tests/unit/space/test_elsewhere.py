"""`elsewhere.json`: what a space predicted for tasks that it never saw, beside the results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tans_core.errors import StoreError
from tans_core.space.data import assemble
from tans_core.space.elsewhere import LEAST_NETWORKS, Prediction, read_predictions, write_predictions
from tans_core.space.fit import fit_space, source_folds
from tans_core.space.metrics import order_quality
from tests.factories.embeddings import linked_scores, linked_tables, space_recipe

TASKS = [f"task-{task:02d}" for task in range(6)]


def test_predictions_are_those_that_the_metrics_were_measured_on(tmp_path: Path) -> None:
    models, features = linked_tables(tasks=6, models=6, sources=3)
    options = {"heldout_share": 0.25, "samples": 2, "images_per_sample": 8, "seed": 0}
    scores = linked_scores(models, tasks=6)
    data = assemble(models, features, scores, TASKS, **options)  # type: ignore[arg-type]
    _, report = fit_space(data, space_recipe(steps=8), folds=3, log_every=8, seed=0)
    write_predictions(report.predictions, tmp_path)
    rows = read_predictions(tmp_path)
    assert rows == list(report.predictions)
    home = {card.id: TASKS.index(card.home_task) for card in models.cards}
    fold_of = {TASKS[task]: fold for fold, tasks in enumerate(source_folds(data.sources, 3)) for task in tasks}
    qualities = []
    for task in TASKS:
        own = [row for row in rows if row.task == task]
        # All networks were tried everywhere; those of the task's own source are not predicted.
        assert {row.model for row in own} == {
            name for name, number in home.items() if data.sources[number] != data.sources[TASKS.index(task)]
        }
        assert {row.fold for row in own} == {fold_of[task]}
        for row in own:
            trials = (scores.tasks == task) & (scores.models == row.model) & (scores.kinds == "finetune")
            assert row.tuned == pytest.approx(scores.values[trials].mean())
        qualities.append(order_quality(np.array([row.predicted for row in own]), np.array([row.tuned for row in own])))
    for name in ("weighted_tau", "regret_at_1", "regret_at_3"):
        mean = np.mean([quality[name] for quality in qualities])
        assert report.metrics["elsewhere"][name] == pytest.approx(mean), name


def test_space_without_the_file_has_no_predictions(tmp_path: Path) -> None:
    assert read_predictions(tmp_path) is None


@pytest.mark.parametrize("text", ["[{", '[{"task": "a"}]', "{", "[1]"])
def test_damaged_file_says_what_to_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "elsewhere.json").write_text(text)
    with pytest.raises(StoreError, match="Run `tans build space`"):
        read_predictions(tmp_path)


def test_order_needs_a_few_networks() -> None:
    assert LEAST_NETWORKS >= 3
    assert Prediction("task", "model", 0, 0.1, 0.5).fold == 0
