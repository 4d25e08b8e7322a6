"""A whole project in seconds: four tasks of two sources, a zoo of sixteen small networks, a release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.task import Task, TaskInfo, write_task
from tests.factories.processes import one_core

SIZE_PX = 16
SPLITS = ("train",) * 10 + ("val",) * 5 + ("test",) * 5
TASKS = {"stripes": "made-of-lines", "bars": "made-of-lines", "shades": "made-of-colours", "tints": "made-of-colours"}
UNSEEN = "patches"

PARAMS: dict[str, Any] = {
    "seed": 0,
    "data": {
        "stored_size_px": SIZE_PX,
        "max_train": 100,
        "max_val": 50,
        "max_test": 50,
        "min_images_per_class": 3,
        "max_bad_share": 0.5,
        "workers": 0,
    },
    "tasks": {
        "meta_train": {name: {"source": source, "options": {}} for name, source in TASKS.items()},
        "meta_test": {UNSEEN: {"source": "made-of-patches", "options": {}}},
    },
    "networks": {
        "elastic-residual": {
            "image_size_px": SIZE_PX,
            "stem_width": 8,
            "widths": [8, 16],
            "strides": [2, 2],
            "max_depth": 2,
            "kernels": [3, 5],
            "ratios": [0.5, 1.0],
        },
    },
    "base": {
        "tasks": list(TASKS),
        "steps": 30,
        "batch_size": 16,
        "lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.0001,
        "precision": "fp32",
    },
    "zoo": {
        "steps": 30,
        "batch_size": 16,
        "lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.0001,
        "subnets": 4,
        "calibration_images": 30,
    },
    "embed": {
        "anchors_per_task": 3,
        "projection_dim": 16,
        "projection_seed": 1,
        "backbone": "base",
        "images_per_class": 6,
    },
    "transfer": {
        "networks_per_task": 3,
        "general_per_task": 1,
        "cover": True,
        "probes_per_home": 1,
        "seeds": 1,
        "steps": 4,
        "probe_images": 30,
        "probe_images_per_class": 10,
    },
    "space": {
        "dim": 8,
        "steps": 40,
        "lr": 0.01,
        "weight_decay": 0.0001,
        "temperature": 0.1,
        "positives": 2,
        "pairs_per_step": 16,
        "samples": 4,
        "images_per_sample": 12,
        "topology_noise": 1.0,
        "functional_noise": 1.0,
        "query_noise": 0.3,
        "matching_weight": 0.3,
        "home_weight": 0.3,
        "tuned_weight": 1.0,
        "probed_weight": 1.0,
        "rank_weight": 0.1,
        "frechet_weight": 0.1,
        "heldout_share": 0.25,
        "log_every": 20,
        "folds": 2,
        "precision": "fp32",
    },
    "retrieval": {"top_k": 5},
    "finetune": {"epochs": 2, "batch_size": 8, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.00004},
    "evaluate": {"steps": 4, "points": 2, "seeds": 2, "random_draws": 3, "longer": 0},
    "gates": {"min_images_per_task": 10, "min_val_accuracy_over_chance": 0.0},
    "release": {
        "margin": 0.05,
        "regret_margin": 1.0,
        "recall_margin": 0.2,
        "confidence": 0.95,
        "branch": "",
        "remote": "",
    },
    "retrain": {"admissions": 10, "days": 1.0, "drift": True},
}


def class_image(kind: int, label: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Draw one (3, H, W) uint8 image; the classes of a kind differ in brightness, and kinds in channel and texture."""
    image = rng.normal(40, 12, (3, SIZE_PX, SIZE_PX))
    image[kind % 3] += 80 * label
    image[:, kind % 2 :: 2] *= 0.8
    return np.clip(image, 0, 255).astype(np.uint8)


def make_task(name: str, source: str, role: Any, kind: int) -> Task:
    """Make a task of three classes that a small network learns in seconds."""
    rng = np.random.default_rng(kind)
    labels = np.repeat(np.arange(3), len(SPLITS))
    images = np.stack([class_image(kind, label, rng) for label in labels])
    names = tuple(f"{kind:032x}{index:032x}" for index in range(len(labels)))
    info = TaskInfo(
        name=name,
        source=source,
        licence="MIT" if source == "made-of-lines" else "CC0-1.0",
        role=role,
        class_names=("dark", "middle", "bright"),
        stored_size_px=SIZE_PX,
        mean=(0.4, 0.4, 0.4),
        std=(0.25, 0.25, 0.25),
        counts={split: 3 * SPLITS.count(split) for split in ("train", "val", "test")},
    )
    sizes = np.full((len(labels), 2), SIZE_PX, dtype=np.int32)
    return Task(info, SquareImages.of(images), labels, np.array(SPLITS * 3), names, names, sizes)


@one_core()
def build_project(root: Path, sources: Mapping[str, str] = TASKS, **changes: Any) -> Path:
    """Run every stage from `base` to `index` on made tasks, and publish the result.

    Args:
        root: where.
        sources: of each task.
        changes: sections of params.yaml.
    """
    from tans_core import api
    from tans_core.stages import base, embed, index, space, transfer, zoo

    (root / "params.yaml").write_text(yaml.safe_dump({**PARAMS, **changes}, sort_keys=False), encoding="utf-8")
    for kind, (name, source) in enumerate(sources.items()):
        write_task(make_task(name, source, "meta-train", kind), root / "data/tasks" / name)
    write_task(make_task(UNSEEN, "made-of-patches", "meta-test", len(TASKS)), root / "data/tasks" / UNSEEN)
    base.main(root)
    for name in TASKS:
        zoo.main(root, name)
    (root / "data/arrivals").mkdir()
    embed.main(root)
    transfer.main(root)
    space.main(root)
    index.main(root)
    api.publish(root)
    return root


def image_folder(folder: Path, per_class: int = 12) -> Path:
    """Write a user's folder: one folder of PNG files a class, and one file that is no image."""
    rng = np.random.default_rng(9)
    for label, name in enumerate(("ash", "elm", "oak")):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = class_image(1, label, rng).transpose(1, 2, 0)
            Image.fromarray(pixels).resize((40, 30)).save(folder / name / f"{index}.png")
    (folder / "ash" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    return folder
