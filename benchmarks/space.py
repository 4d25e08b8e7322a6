"""`make bench-space`: fit the published space with this project's code and with a plain loop, on synthetic files.

Writes metrics/bench-space.json: milliseconds per step with evaluation, for the plain loop with four loading processes
and with none, and for this project's code ("ours"); their ratios; retrieval quality of both after some numbers of
steps; and the quality on networks held out of training.

    python benchmarks/space.py [--rounds 3] [--out metrics/bench-space.json]
    python benchmarks/space.py --quick            # seconds; writes nothing unless --out is given
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from published_synth import write_published
from space_plain import PlainSpace, PlainTasks, PlainTraining, collate, plain_loss
from torch import Tensor

from tans_core.io import write_json
from tans_core.published.fit import PUBLISHED_RECIPE, PublishedData, fit_tans, hold_out_at_random
from tans_core.published.paper import PaperRecipe, PaperSpace, fit_paper, measure_paper, model_inputs, paper_loss, pool
from tans_core.runtime import cores

WORKERS = 4
WANTED = {f"{WORKERS}_workers": 50.0, "no_workers": 20.0}
WANTED_APART = 0.01
# Limits for `tans` on held-out networks. The last is how much lower its R@1 may be than the published objective's.
WANTED_SPEARMAN, WANTED_REGRET, WANTED_RECALL_LOST = 0.55, 0.065, 0.01
KEPT = ("recall_at_1", "recall_at_5", "recall_at_10", "mean_rank", "median_rank", "mse")


class Files:
    """Both files, and their data in this project's form."""

    def __init__(self, zoo: dict[str, Any], queries: dict[str, Any]) -> None:
        self.zoo, self.queries = zoo, queries
        names = tuple(queries)
        number = {name: index for index, name in enumerate(names)}
        self.data = PublishedData(
            tasks=names,
            sources=names,
            topology=torch.tensor(zoo["topol"], dtype=torch.float32),
            functional=torch.stack(zoo["f_emb"]),
            accuracy=torch.tensor(zoo["acc"], dtype=torch.float32),
            params_m=torch.tensor(zoo["n_params"], dtype=torch.float32),
            home=torch.tensor([number[name] for name in zoo["dataset"]]),
            **{f"{ours}_features": self._stacked(theirs) for ours, theirs in (("train", "train"), ("val", "test"))},
        )
        self.none = torch.zeros(len(zoo["acc"]), dtype=torch.bool)

    def _stacked(self, split: str) -> tuple[Tensor, ...]:
        return tuple(torch.stack(one[f"x_query_{split}"]) for one in self.queries.values())

    def fit(self, recipe: PaperRecipe, heldout: Tensor | None = None) -> PaperSpace:
        return fit_paper(self.data, self.none if heldout is None else heldout, recipe, seed=0, device="cpu")[0]

    def measure(self, space: PaperSpace, heldout: Tensor | None = None) -> dict[str, dict[str, float]]:
        return measure_paper(space, self.data, self.none if heldout is None else heldout)

    def seconds(self, recipe: PaperRecipe) -> float:
        """Time a fit, including the preparation of the image features."""
        start = time.perf_counter()
        self.data = replace(self.data, train_features=self._stacked("train"), val_features=self._stacked("test"))
        self.fit(recipe)
        return time.perf_counter() - start


def as_ours(plain: PlainSpace, files: Files) -> PaperSpace:
    """Return the plain loop's space as a `PaperSpace`, so that both are measured in the same way."""
    features, zoo = files.data.train_features[0], files.data
    space = PaperSpace(features.shape[1], zoo.topology.shape[1], zoo.functional.shape[1])
    space.load_state_dict(plain.state_dict())
    return space.eval()


def losses_apart(files: Files) -> float:
    """Return the relative difference of the two losses at equal weights and networks."""
    first = [files.zoo["dataset"].index(name) for name in files.queries]
    tasks = PlainTasks(files.zoo, files.queries, "train", first)
    ours, zoo = (
        files.fit(PaperRecipe(steps=20)),
        files.data,
    )  # few steps: before training, all pairs have about the same loss
    plain = PlainSpace(zoo.train_features[0].shape[1], zoo.topology.shape[1] + zoo.functional.shape[1])
    plain.load_state_dict(ours.state_dict())
    with torch.no_grad():
        wanted = float(plain_loss(plain(collate([tasks[task] for task in range(len(tasks))]))))
        queries = ours.encode_query(pool(zoo.train_features))
        models = ours.encode_models(model_inputs(zoo.topology[first], zoo.functional[first]))
        got = float(paper_loss(queries, models, ours.predict(queries, models), zoo.accuracy[first]))
    apart = abs(got - wanted) / wanted
    assert apart < 1e-4, f"the losses differ at equal weights and networks: {got} and {wanted}"
    return apart


def time_both(files: Files, rounds: int, epochs: int, steps: int) -> dict[str, list[float]]:
    """Return milliseconds per step, by name and round; in turns, so that a change of the machine's load affects all."""
    plain = {f"plain_{WORKERS}_workers": WORKERS, "plain_no_workers": 0}
    training = {name: PlainTraining(files.zoo, files.queries, workers) for name, workers in plain.items()}
    with_evaluation = PaperRecipe(steps=steps, eval_every=1)
    ours = {"ours": with_evaluation, "ours_training_alone": replace(with_evaluation, eval_every=0)}
    times: dict[str, list[float]] = {name: [] for name in (*plain, *ours)}
    for one in training.values():
        one.epochs(1)
    files.fit(replace(with_evaluation, steps=5))
    for number in range(rounds):
        for name, one in training.items():
            times[name].append(1000 * one.epochs(epochs) / epochs)
        for name, recipe in ours.items():
            times[name].append(1000 * files.seconds(recipe) / steps)
        line = ", ".join(f"{name} {values[-1]:.2f} ms" for name, values in times.items())
        print(f"round {number + 1} of {rounds}: {line}", file=sys.stderr, flush=True)
    return times


def qualities(files: Files, after: list[int]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the quality of both after some numbers of steps, over all networks, with test images as queries."""
    training = PlainTraining(files.zoo, files.queries, workers=0)
    quality: dict[str, dict[str, dict[str, float]]] = {"plain": {}, "ours": {}}
    done = 0
    for steps in sorted(after):
        training.epochs(steps - done)
        done = steps
        spaces = {"plain": as_ours(training.space, files), "ours": files.fit(PaperRecipe(steps=steps))}
        for name, space in spaces.items():
            measured = files.measure(space)["insample"]
            quality[name][str(steps)] = {key: round(measured[key], 4) for key in KEPT}
        line = ", ".join(f"{name} R@1 {quality[name][str(steps)]['recall_at_1']:.3f}" for name in quality)
        print(f"after {steps} steps: {line}", file=sys.stderr, flush=True)
    return quality


def on_heldout(files: Files, steps: int, tans_steps: int) -> dict[str, dict[str, float]]:
    """Return the quality on a held-out quarter of each task's networks: of the paper's objective at two weights of its
    prediction error, and of `tans`."""
    heldout = hold_out_at_random(files.data.home, 0.25, seed=0)
    measured = {}
    for weight in (1, 100):
        space = files.fit(PaperRecipe(steps=steps, prediction_weight=weight), heldout)
        measured[f"weight_{weight}"] = files.measure(space, heldout)["heldout"]
    measured["tans"] = fit_tans(files.data, heldout, replace(PUBLISHED_RECIPE, steps=tans_steps), seed=0)[1]["heldout"]
    return {name: {key: round(value, 4) for key, value in figures.items()} for name, figures in measured.items()}


def summary(
    times: dict[str, list[float]],
    quality: dict[str, dict[str, dict[str, float]]],
    heldout: dict[str, dict[str, float]],
    first: str,
) -> dict[str, Any]:
    """Return medians over the rounds, ratios of time within a round, and whether all limits are met."""
    ratios = {
        kind: statistics.median(plain / ours for plain, ours in zip(times[f"plain_{kind}"], times["ours"], strict=True))
        for kind in WANTED
    }
    apart = abs(quality["plain"][first]["recall_at_1"] - quality["ours"][first]["recall_at_1"])
    ours, published = heldout["tans"], heldout["weight_1"]
    fast = all(ratios[kind] >= wanted for kind, wanted in WANTED.items())
    predicts = ours["spearman"] >= WANTED_SPEARMAN and ours["regret"] <= WANTED_REGRET
    finds = ours["recall_at_1"] >= published["recall_at_1"] - WANTED_RECALL_LOST
    return {
        "step_ms": {name: round(statistics.median(values), 3) for name, values in times.items()},
        "times_as_fast_as": {f"plain_{kind}": round(value, 1) for kind, value in ratios.items()},
        "recall_at_1_apart": round(apart, 4),
        "met": fast and apart <= WANTED_APART and predicts and finds,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fit the published space: this project's code against a plain loop.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of timing, in turns")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of the plain loop per round")
    parser.add_argument("--steps", type=int, default=1000, help="steps of this project's code per round")
    parser.add_argument("--after", type=int, nargs="+", default=[400, 1000], help="steps after which both are measured")
    parser.add_argument(
        "--tans-steps", type=int, default=PUBLISHED_RECIPE.steps, help="steps of `tans` on held-out networks"
    )
    parser.add_argument("--tasks", type=int, default=140)
    parser.add_argument("--networks", type=int, default=100, help="networks of each task")
    parser.add_argument("--quick", action="store_true", help="one short round, to check that it runs")
    parser.add_argument("--out", type=Path, help="metrics/bench-space.json by default, nothing with --quick")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.epochs, chosen.steps, chosen.after = 1, 1, 30, [20]
        chosen.tans_steps = 200
        chosen.tasks, chosen.networks = min(chosen.tasks, 30), min(chosen.networks, 20)
    elif chosen.out is None:
        chosen.out = Path("metrics/bench-space.json")
    if min(chosen.rounds, chosen.epochs, chosen.steps, chosen.networks - 1, chosen.tasks - 1, *chosen.after) < 1:
        parser.error("counts must be positive; --tasks and --networks at least 2")
    return chosen


def main() -> None:
    """Run the comparison."""
    chosen = parse()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_published(Path(folder), chosen.tasks, chosen.networks)
        files = Files(*(torch.load(path, weights_only=True) for path in paths))
    apart = losses_apart(files)
    times = time_both(files, chosen.rounds, chosen.epochs, chosen.steps)
    quality, heldout = qualities(files, chosen.after), on_heldout(files, max(chosen.after), chosen.tans_steps)
    result = {
        "tasks": chosen.tasks,
        "networks": len(files.data.home),
        "images": sum(len(one["x_query_train"]) + len(one["x_query_test"]) for one in files.queries.values()),
        "rounds": chosen.rounds,
        "epochs_a_round": chosen.epochs,
        "steps_a_round": chosen.steps,
        "loss_apart": float(f"{apart:.1e}"),
        **{f"{name}_ms": [round(value, 3) for value in values] for name, values in times.items()},
        **summary(times, quality, heldout, str(min(chosen.after))),
        "quality": quality,
        "heldout": heldout,
        "machine": {
            "cores": cores(),
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "load_at_end": round(os.getloadavg()[0], 1),
        },
    }
    if chosen.out:
        write_json(result, chosen.out)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
