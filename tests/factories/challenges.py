"""Built projects whose spaces ordered the same networks well or badly, made in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tans_core.io import write_json
from tans_core.space.elsewhere import Prediction, write_predictions
from tests.factories.releases import build

MODELS = 5
RIGHT, SWAPPED, REVERSED = [5.0, 4, 3, 2, 1], [4.0, 5, 3, 2, 1], [1.0, 2, 3, 4, 5]
RESULTS = [0.9, 0.8, 0.7, 0.6, 0.5]


def built(
    root: Path,
    order: Sequence[float] = RIGHT,
    *,
    others: int = 0,
    name: str = "space-1",
    models: int = MODELS,
    recall: float = 0.9,
    results: Sequence[float] = RESULTS,
) -> Path:
    """Make or replace the output of `dvc repro`: a space that ordered five networks alike on each of four tasks.

    Args:
        root: where.
        order: the predicted scores.
        others: number of further tasks, which are ordered rightly.
        name: of the space; another one has other bytes.
        models: number of networks that are served, and that the space was trained on.
        recall: of networks held out.
        results: accuracies of the five networks.
    """
    build(root, models=models, space=name)
    orders = [order] * 4 + [RIGHT] * others
    rows = [
        Prediction(f"task-{task:02d}", f"m{model}", 0, score, result)
        for task, scores in enumerate(orders)
        for model, (score, result) in enumerate(zip(scores, results, strict=True))
    ]
    write_predictions(rows, root / "data/space")
    metrics = {"heldout": {"recall_at_1": recall}, "models": models, "tasks": len(orders)}
    write_json({"metrics": metrics}, root / "data/space/space.json")
    return root
