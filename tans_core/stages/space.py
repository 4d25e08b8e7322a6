"""Stage `space`: embeddings -> encoders and predictor of the cross-modal space.

Reads data/store (by its digests), params `space`, `tasks`, `seed`. Writes data/space, metrics/space.json, plots/space.csv.
"""

from __future__ import annotations

from pathlib import Path

from tans_core.embeddings.store import FeatureRows, ModelRows, read_digests
from tans_core.io import write_csv, write_json
from tans_core.params import load_params
from tans_core.space.data import assemble
from tans_core.space.drift import DriftReference
from tans_core.space.fit import SpaceRecipe, fit_space
from tans_core.stages._main import run_stage


def main(root: Path) -> None:
    """Train the space, and measure it on networks and on sources that training never saw."""
    params = load_params(root)
    store = root / "data/store"
    recipe = SpaceRecipe(**params.space.model_dump(exclude={"folds", "heldout_share"}))
    models, features = ModelRows.read(store), FeatureRows.read(store)
    data = assemble(models, features, list(params.tasks.meta_train), params.space.heldout_share, params.seed)
    space, report = fit_space(data, recipe, params.space.folds, params.seed)
    description = {"params": params.space.model_dump(), "metrics": report.metrics}
    space.save(root / "data/space", {**description, "trained_on": read_digests(store, "models", "task_features")})
    # Served with the space: newcomers are held against it.
    DriftReference.of(models, list(params.tasks.meta_train)).save(root / "data/space")
    write_json(report.metrics, root / "metrics/space.json")
    write_csv(report.curve, root / "plots/space.csv")


if __name__ == "__main__":
    run_stage(main)
