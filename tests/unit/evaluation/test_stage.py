from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tans_core.stages import evaluate
from tests.factories.processes import one_core


@pytest.fixture(scope="module")
def evaluated(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small project after its evaluate stage."""
    root = tmp_path_factory.mktemp("evaluated") / "project"
    shutil.copytree(project, root)
    evaluate.main(root)
    return root


def test_stage_writes_metrics_pictures_curves_and_the_report(evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics/evaluate.json").read_text())
    assert set(metrics["accuracy"]) == {"picked", "refined", "scratch", "base", "random", "largest", "nearest"}
    assert list(metrics["tasks"]) == ["patches"]
    assert {path.name for path in (evaluated / "plots/evaluate").iterdir()} == {"patches.png", "summary.png"}
    with (evaluated / "plots/evaluate.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (6 * 2 + 3) * 2  # of two seeds, the three random draws take turns; two validations
    assert "patches" in (evaluated / "reports/evaluate.html").read_text()


def test_a_finished_stage_keeps_no_resume_state(evaluated: Path) -> None:
    assert not (evaluated / ".resume/evaluate").exists()


def test_a_second_run_gives_the_same_accuracies(evaluated: Path) -> None:
    first = json.loads((evaluated / "metrics/evaluate.json").read_text())
    # Its tasks in this process.
    with one_core():
        evaluate.main(evaluated)
    second = json.loads((evaluated / "metrics/evaluate.json").read_text())
    assert first["accuracy"] == second["accuracy"]
    assert first["tasks"] == second["tasks"]
