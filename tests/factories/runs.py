"""The folder of a fine-tuning, as `tans finetune` writes it, in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tans_core.finetuning.finetune import FinetuneResult, finetune
from tans_core.finetuning.run import write_run
from tans_core.networks.family import Network
from tans_core.recipe import Recipe
from tans_core.tasks.scan import scan
from tans_core.tasks.task import Task
from tans_core.use.outcome import write_outcome
from tests.factories.embeddings import card
from tests.factories.images import encoded
from tests.factories.networks import tiny_network

SIZE_PX = 20
CLASSES = ("ash", "elm", "oak")


class Run(NamedTuple):
    folder: Path
    network: Network
    task: Task
    result: FinetuneResult


def write_pictures(root: Path, per_class: int = 20, seed: int = 0) -> Path:
    """Write pictures of many sizes and shapes, under noise, that a short training tells apart only in part."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            height, width = rng.integers(18, 70, 2)
            colour = 110 + 25 * (number == np.arange(3))
            pixels = np.clip(rng.normal(colour, 50, (height, width, 3)), 0, 255).astype(np.uint8)
            kind = ("PNG", "JPEG")[index % 2]
            (root / name / f"{index}.{kind.lower()}").write_bytes(encoded(pixels, kind))
    return root


def make_run(
    folder: Path,
    pictures: Path,
    steps: int = 12,
    network: Network | None = None,
    stored_size_px: int = SIZE_PX,
    lr: float = 0.02,
    **of: Any,
) -> Run:
    """Scan a folder, tune a network on it, and write the run.

    Args:
        folder: of the run.
        pictures: class folders.
        steps: of the fine-tuning.
        network: by default a tiny one of 16 pixels.
        stored_size_px: of the scan.
        lr: of the recipe.
        of: fields of the card of another network: `family`, `architecture`, `preprocess`.
    """
    with scan(pictures, stored_size_px=stored_size_px, workers=0) as scanned:
        task = scanned.task("pictures")
    if network is None:
        network = tiny_network(task.info.num_classes)
        of = {"architecture": network.architecture.model_dump(mode="json")}
    home = card("home.1", "elsewhere").model_copy(update=of)
    settings = {"steps": steps, "batch_size": 8, "seed": 3}
    result = finetune(network, task, home.preprocess, Recipe(lr=lr), **settings, eval_points=min(steps, 3))
    folder.mkdir(parents=True)
    write_outcome(folder, network, result, task, home)
    write_run(folder, result=result, task=task, card=home, settings=settings)
    return Run(folder, network, task, result)
