"""Stage `base`: meta-train tasks -> the supernet that every task's zoo starts from.

Reads data/tasks, params `base`, `networks`, `seed`. Writes data/base, metrics/base.json, plots/base.csv.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tans_core.io import resume_folder, sha256_file, write_csv, write_json
from tans_core.networks.elastic import ElasticSpace
from tans_core.params import load_params
from tans_core.runtime import choose_precision, clock
from tans_core.stages._main import run_stage
from tans_core.tasks.task import read_task
from tans_core.zoo.build import build_base
from tans_core.zoo.supernet import SupernetRecipe
from tans_core.zoo.weights import save_base


def main(root: Path) -> None:
    """Train the base supernet on the tasks that params list for it."""
    params = load_params(root)
    seconds = clock()
    folders = [root / "data/tasks" / name for name in params.base.tasks]
    precision = choose_precision(params.base.precision)
    recipe = SupernetRecipe(**params.base.model_dump(exclude={"tasks", "precision"}), precision=precision)
    space = ElasticSpace.from_dict(params.networks.model_dump())
    made_from = [params.base.model_dump(), params.networks.model_dump(), params.seed, recipe.precision]
    digests = [sha256_file(folder / "images.parquet") for folder in folders]
    resume = resume_folder(root / ".resume/base", [made_from, digests])
    network, losses = build_base(space, [read_task(folder) for folder in folders], recipe, params.seed, resume)
    save_base(network, root / "data/base", {"tasks": params.base.tasks, "precision": recipe.precision})
    shutil.rmtree(resume)
    final_loss = sum(losses[-50:]) / len(losses[-50:])
    write_json({"final_loss": final_loss, "tasks": len(folders), "seconds": seconds()}, root / "metrics/base.json")
    write_csv(
        [{"step": step, "loss": loss} for step, loss in enumerate(losses) if step % 10 == 0], root / "plots/base.csv"
    )


if __name__ == "__main__":
    run_stage(main)
