"""Built projects whose spaces ordered the same networks well or badly, made in milliseconds."""

from __future__ import annotations

from pathlib import Path

from tans_core.io import write_json
from tans_core.space.elsewhere import Prediction, write_predictions
from tests.factories.releases import build

MODELS = 5
RIGHT, SWAPPED, REVERSED = [5.0, 4, 3, 2, 1], [4.0, 5, 3, 2, 1], [1.0, 2, 3, 4, 5]


def built(
    root: Path, order: list[float] = RIGHT, *, name: str = "space-1", models: int = MODELS, recall: float = 0.9
) -> Path:
    """Make or replace the output of `dvc repro`: a space that ordered five networks alike on each of four tasks."""
    build(root, models=models, space=name)
    rows = [
        Prediction(f"task-{task}", f"m{model}", 0, score, 0.9 - 0.1 * model)
        for task in range(4)
        for model, score in enumerate(order)
    ]
    write_predictions(rows, root / "data/space")
    metrics = {"heldout": {"recall_at_1": recall}, "models": models, "tasks": 4}
    write_json({"metrics": metrics}, root / "data/space/space.json")
    return root
