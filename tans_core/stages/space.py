"""Stage `space`: embeddings -> encoders and predictor of the cross-modal space.

Reads data/store (tables by their digests), params `space`, `tasks`, `seed`. Writes data/space, metrics/space.json,
plots/space.csv.
"""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path

from tans_core.embeddings.functional import Anchors
from tans_core.embeddings.scores import ScoreRows
from tans_core.embeddings.store import FeatureRows, ModelRows, read_digests
from tans_core.io import write_csv, write_json
from tans_core.params import load_params
from tans_core.space.data import assemble
from tans_core.space.drift import DriftReference
from tans_core.space.elsewhere import write_predictions
from tans_core.space.fit import fit_space
from tans_core.space.objective import SpaceRecipe
from tans_core.stages._main import run_stage

TABLES = ("models", "task_features", "transfer")


def main(root: Path) -> None:
    """Train the space, and measure it on networks and sources that training never saw."""
    params = load_params(root)
    store = root / "data/store"
    settings = params.space.model_dump()
    recipe = SpaceRecipe(**{field.name: settings[field.name] for field in fields(SpaceRecipe)})
    models, features, scores = ModelRows.read(store), FeatureRows.read(store), ScoreRows.read(store)
    data = assemble(
        models,
        features,
        scores,
        list(params.tasks.meta_train),
        heldout_share=params.space.heldout_share,
        samples=params.space.samples,
        images_per_sample=params.space.images_per_sample,
        seed=params.seed,
    )
    resume = root / ".resume/space"
    space, report = fit_space(data, recipe, params.space.folds, params.space.log_every, params.seed, resume)
    description = {"params": params.space.model_dump(), "metrics": report.metrics, "refine": report.refine}
    space.save(root / "data/space", {**description, "trained_on": read_digests(store, *TABLES)})
    # Served with the space: newcomers are embedded by the anchors and compared with the drift reference.
    Anchors.load(store).save(root / "data/space")
    DriftReference.of(models, list(params.tasks.meta_train)).save(root / "data/space")
    # What a later space is compared with before it is published.
    write_predictions(report.predictions, root / "data/space")
    write_json(report.metrics, root / "metrics/space.json")
    write_csv(report.curve, root / "plots/space.csv")
    # Kept only to resume a killed run; DVC caches the results of a finished one.
    shutil.rmtree(resume, ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
