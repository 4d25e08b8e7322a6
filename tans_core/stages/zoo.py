"""Stage `zoo@<task>`: base supernets + one task -> supernets fine-tuned on it, and measured models.

Reads data/base, data/tasks/<task>, params `zoo`, `seed`. Writes data/zoo/<task>, metrics/zoo/<task>.json.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tans_core.io import resume_folder, sha256_file, write_json
from tans_core.networks.registry import network_digest
from tans_core.params import load_params
from tans_core.runtime import clock
from tans_core.stages._main import run_stage
from tans_core.tasks.task import read_task
from tans_core.zoo.build import Sampling, build_zoo, write_zoo
from tans_core.zoo.supernet import SupernetRecipe
from tans_core.zoo.weights import Base


def main(root: Path, name: str) -> None:
    """Build one task's part of the zoo."""
    params = load_params(root)
    seconds = clock()
    base, folder, zoo_folder = Base.open(root / "data/base"), root / "data/tasks" / name, root / "data/zoo" / name
    task, images = read_task(folder), sha256_file(folder / "images.parquet")
    zoos, resumes = {}, []
    for family in base.families:
        # The whole zoo is trained in the precision of the base.
        family_params = params.zoo.of_family(family)
        recipe = SupernetRecipe.of(family_params.model_dump(), family, base.precision)
        inputs = [base.precision, params.seed, sha256_file(base.path(family)), images, network_digest()]
        made_from = [family_params.model_dump(), *inputs]
        resumes.append(resume_folder(root / ".resume/zoo" / name / family, made_from))
        sampling = Sampling(family_params.subnets, family_params.select_from, family_params.calibration_images)
        zoos[family] = build_zoo(task, base, family, recipe, sampling, params.seed, resumes[-1])
    write_zoo(zoos, zoo_folder)
    shutil.rmtree(root / ".resume/zoo" / name)
    cards = [card for zoo in zoos.values() for card in zoo.cards]
    accuracies = sorted(card.val_accuracy or 0.0 for card in cards)
    metrics = {"val_accuracy": {"best": accuracies[-1], "median": accuracies[len(cards) // 2], "worst": accuracies[0]}}
    write_json({**metrics, "models": len(cards), "seconds": seconds()}, root / f"metrics/zoo/{name}.json")


if __name__ == "__main__":
    run_stage(main)
