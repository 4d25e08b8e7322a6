"""Stage `zoo@<task>`: base supernet + one task -> its supernet, fine-tuned, and measured models.

Reads data/base, data/tasks/<task>, params `zoo`, `seed`. Writes data/zoo/<task>, metrics/zoo/<task>.json.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tans_core.io import read_json, resume_folder, sha256_file, write_json
from tans_core.params import load_params
from tans_core.runtime import clock
from tans_core.stages._main import run_stage
from tans_core.tasks.task import read_task
from tans_core.zoo.build import build_zoo, write_zoo
from tans_core.zoo.supernet import SupernetRecipe


def main(root: Path, task: str) -> None:
    """Build one task's part of the zoo."""
    params = load_params(root)
    seconds = clock()
    base, folder, out = root / "data/base", root / "data/tasks" / task, root / "data/zoo" / task
    # One choice of precision for the whole zoo: the one that the base was trained with.
    precision = read_json(base / "base.json")["precision"]
    recipe = SupernetRecipe(**params.zoo.model_dump(exclude={"subnets", "calibration_images"}), precision=precision)
    digests = [sha256_file(base / "base.safetensors"), sha256_file(folder / "images.parquet")]
    resume = resume_folder(root / ".resume/zoo" / task, [params.zoo.model_dump(), params.seed, digests])
    network, cards, calibrations = build_zoo(
        read_task(folder), base, recipe, params.zoo.subnets, params.zoo.calibration_images, params.seed, resume
    )
    write_zoo(network, cards, calibrations, out)
    shutil.rmtree(resume)
    accuracies = sorted(card.val_accuracy for card in cards)
    metrics = {"val_accuracy": {"best": accuracies[-1], "median": accuracies[len(cards) // 2], "worst": accuracies[0]}}
    write_json({**metrics, "models": len(cards), "seconds": seconds()}, root / f"metrics/zoo/{task}.json")


if __name__ == "__main__":
    run_stage(main)
