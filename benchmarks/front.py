"""Compare zoos: all candidates of a task, those that expected improvement selects, and as many random ones.

    python benchmarks/front.py [--tasks N] [--candidates N] [--out metrics/bench-front.json]

Needs a built project. The candidates come from the fine-tuned supernets of some tasks. Each is measured at every input
size. A zoo's figure is the best validation accuracy within a cost, averaged over the axis of costs.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tans_core.io import write_json
from tans_core.networks.preprocess import balanced_indices, calibrate
from tans_core.networks.registry import get_family
from tans_core.params import load_params
from tans_core.runtime import begin_worker, derive_seed, progress
from tans_core.tasks.task import Task, read_task
from tans_core.zoo.build import accuracy_on_normalised, preprocess_of, sample_members
from tans_core.zoo.select import area_below, extend_front, unit_costs
from tans_core.zoo.supernet import TrainingData
from tans_core.zoo.weights import Base

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (3, 4, 6, 8, 12)
DRAWS = 50


def compare(root: Path, base: Base, family: str, task: Task, candidates: int, images: int) -> dict[str, Any]:
    """Return the areas below the fronts of one task's zoos, by number of networks."""
    chosen, space = get_family(family), base.space(family)
    network = base.load(family)
    network.reset_classifier(task.info.num_classes, torch.Generator())
    network.load_state_dict(load_file(root / f"data/zoo/{task.info.name}/{family}.safetensors"))
    members = sample_members(space, candidates, derive_seed(0, "candidates", task.info.name))
    pairs = list(itertools.product(members, chosen.sizes_px(space)))
    inputs = {}
    for size in chosen.sizes_px(space):
        preprocess = preprocess_of(family, space, task, size)
        train, val = (TrainingData.of(task, split, preprocess) for split in ("train", "val"))
        sample = train.normalised(balanced_indices(train.labels, images, torch.Generator().manual_seed(0)))
        inputs[size] = sample, val.normalised(), val.labels
    accuracies = []
    for member, size in progress(pairs, f"{task.info.name}, {family}"):
        subnet, (sample, val_images, labels) = network.extract(member), inputs[size]
        with torch.autocast("cpu", torch.bfloat16, enabled=base.precision == "bf16"):
            calibrate(subnet, sample)
            accuracies.append(accuracy_on_normalised(subnet.eval(), val_images, labels))
    described = [(space.describe(member), size) for member, size in pairs]
    codes = np.stack([chosen.topology(*one) for one in described]).astype(np.float64)
    macs_m = [chosen.cost(*one, task.info.num_classes).macs_m for one in described]
    costs, rng = unit_costs(macs_m), np.random.default_rng(0)
    ends = [int(costs.argmin()), int(costs.argmax())]
    others = np.setdiff1d(np.arange(len(pairs)), ends)
    selected, random = {}, {}
    for count in (one for one in COUNTS if one < len(pairs)):
        order = extend_front(codes, macs_m, accuracies.__getitem__, count)
        selected[str(count)] = area_below(costs[order], [accuracies[one] for one in order])
        drawn = [[*ends, *rng.choice(others, count - len(ends), replace=False)] for _ in range(DRAWS)]
        random[str(count)] = float(np.mean([area_below(costs[one], [accuracies[i] for i in one]) for one in drawn]))
    every = area_below(costs, accuracies)
    return {"candidates": len(pairs), "all": every, "selected": selected, "random": random}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8, help="how many tasks, evenly spaced in the list")
    parser.add_argument(
        "--candidates", type=int, default=16, help="members per task and family, each at every input size"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "metrics/bench-front.json")
    parser.add_argument("--root", type=Path, default=ROOT, help="a built project")
    options = parser.parse_args()
    begin_worker()
    params, base = load_params(options.root), Base.open(options.root / "data/base")
    names = list(params.tasks.meta_train)
    names = [names[index] for index in np.linspace(0, len(names) - 1, options.tasks).round().astype(int)]
    by_family: dict[str, Any] = {}
    for family in base.families:
        tasks = {}
        for name in names:
            task = read_task(options.root / "data/tasks" / name)
            tasks[name] = compare(options.root, base, family, task, options.candidates, params.zoo.calibration_images)
        means = {
            kind: {
                n: float(np.mean([one[kind][n] for one in tasks.values()])) for n in next(iter(tasks.values()))[kind]
            }
            for kind in ("selected", "random")
        }
        every = float(np.mean([one["all"] for one in tasks.values()]))
        by_family[family] = {"mean": {"all": every, **means}, "tasks": tasks}
        print(f"{family}: all {next(iter(tasks.values()))['candidates']} candidates {every:.4f}")
        for count in means["selected"]:
            print(f"  {count} networks: selected {means['selected'][count]:.4f}, random {means['random'][count]:.4f}")
    write_json({"families": by_family, "draws": DRAWS}, options.out)


if __name__ == "__main__":
    main()
