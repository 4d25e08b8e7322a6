"""Stage `base`: meta-train tasks -> the supernets that every task's zoo starts from, one per family.

It also writes the general networks, of no single task: members of the base, and the published ones it started from.

Reads data/tasks, params `base`, `networks`, `seed`. Writes data/base, metrics/base.json, plots/base.csv.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tans_core.errors import ParamsError
from tans_core.io import resume_folder, sha256_file, write_csv, write_json
from tans_core.networks.registry import check_settings, get_family, network_digest
from tans_core.params import load_params
from tans_core.runtime import begin_worker, choose_precision, clock, cores
from tans_core.stages._main import run_stage
from tans_core.tasks.task import read_info, read_task
from tans_core.yaml_file import read_yaml
from tans_core.zoo.base import BaseRecipe, build_base, save_base
from tans_core.zoo.build import Zoo
from tans_core.zoo.card import ModelCard
from tans_core.zoo.supernet import SupernetRecipe


def main(root: Path) -> None:
    """Train one supernet per family on the tasks of `base.tasks`."""
    params = load_params(root)
    check_settings(params.networks, params.data.stored_size_px)
    check_dependencies(root, params.base.tasks)
    seconds = clock()
    folders = [root / "data/tasks" / name for name in params.base.tasks]
    precision = choose_precision(params.base.precision)
    digests = [sha256_file(folder / "images.parquet") for folder in folders]
    jobs = []
    for family, settings in params.networks.items():
        family_params = params.base.of_family(family)
        training = SupernetRecipe.of(params.base.model_dump(), family, precision)
        recipe = BaseRecipe(training, family_params.start_share, family_params.subnets)
        implementation = get_family(family)
        base_weights = [asdict(weights) for weights in implementation.base_weights(implementation.space(settings))]
        inputs = [settings, base_weights, params.seed, precision, digests, network_digest()]
        made_from = [family_params.model_dump(), *inputs]
        resume = resume_folder(root / ".resume/base" / family, made_from)
        jobs.append(_Job(family, settings, folders, recipe, params.seed, resume))
    workers = min(cores(), len(jobs))
    if workers == 1:
        built = [_train(job) for job in jobs]
    else:
        # Families in parallel, in spawned processes: torch's threads do not survive a fork.
        with ProcessPoolExecutor(workers, get_context("spawn"), begin_worker) as pool:
            built = list(pool.map(_train, jobs))
    zoos = {job.family: _zoo(job, result) for job, result in zip(jobs, built, strict=True)}
    losses = {job.family: result.losses for job, result in zip(jobs, built, strict=True)}
    infos = [read_info(folder) for folder in folders]
    save_base(root / "data/base", zoos, params.networks, infos, precision)
    final = {family: sum(values[-50:]) / len(values[-50:]) for family, values in losses.items()}
    write_json({"final_loss": final, "tasks": len(folders), "seconds": seconds()}, root / "metrics/base.json")
    rows = [(family, step, loss) for family, values in losses.items() for step, loss in enumerate(values)]
    points = [{"family": family, "step": step, "loss": loss} for family, step, loss in rows if step % 10 == 0]
    write_csv(points, root / "plots/base.csv")
    for job in jobs:
        shutil.rmtree(job.resume)


Arrays = dict[str, npt.NDArray[Any]]


class _Job(NamedTuple):
    family: str
    settings: dict[str, Any]
    folders: list[Path]
    recipe: BaseRecipe
    seed: int
    resume: Path


class _Result(NamedTuple):
    weights: Arrays
    calibrations: Arrays
    cards: list[str]
    losses: list[float]


def _train(job: _Job) -> _Result:
    tasks = [read_task(folder) for folder in job.folders]
    zoo, losses = build_base(job.family, job.settings, tasks, job.recipe, job.seed, job.resume)
    # Numpy arrays can always be sent between processes; the objects of a third-party family may not.
    weights, calibrations = (
        {name: value.cpu().numpy() for name, value in part.items()}
        for part in (zoo.supernet.state_dict(), zoo.calibrations)
    )
    return _Result(weights, calibrations, [card.to_json() for card in zoo.cards], losses)


def _zoo(job: _Job, result: _Result) -> Zoo:
    network = get_family(job.family).space(job.settings).supernet(num_classes=2)
    weights, calibrations = (
        {name: torch.from_numpy(np.asarray(value)) for name, value in part.items()}
        for part in (result.weights, result.calibrations)
    )
    network.load_state_dict(weights)
    return Zoo(network, [ModelCard.from_json(text) for text in result.cards], calibrations)


def check_dependencies(root: Path, tasks: Sequence[str]) -> None:
    """Raise ParamsError unless stage `base` of dvc.yaml depends on exactly these tasks: DVC must see their changes."""
    path = root / "dvc.yaml"
    if not path.is_file():  # the stage also runs without DVC
        return
    deps = read_yaml(path)["stages"]["base"]["deps"]
    have, want = {dep for dep in deps if dep.startswith("data/tasks/")}, {f"data/tasks/{task}" for task in tasks}
    changes = [
        f"{verb} {', '.join(sorted(names))}" for verb, names in (("add", want - have), ("drop", have - want)) if names
    ]
    if changes:
        raise ParamsError(
            f"{path}, stages.base.deps: not the tasks of base.tasks in params.yaml: {'; '.join(changes)}."
        )


if __name__ == "__main__":
    run_stage(main)
