"""Measure rankings of networks on sources that they were not fitted on, against real fine-tunings there.

    make bench-transfer               # on a built project; over an hour; writes metrics/bench-transfer.json and a table
    python benchmarks/transfer.py --root PROJECT --judged 8

Each meta-train source in turn is left out, with its tasks, networks and anchors. `--meta-test` also judges a space of
all meta-train tasks on the meta-test tasks. On each judged task the planned networks of other sources are fine-tuned
with several seeds: that is the truth. All rankings order these networks. Fine-tunings and embeddings are kept in
.resume/bench-transfer, so that an interrupted run can continue.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transfer_anchors import embedded_by_noise, embedded_without
from transfer_rankings import Asked, Floats, judge_rankings, paper_on, rankings

from tans_core.embeddings.query import load_backbone, query_features
from tans_core.embeddings.store import ModelRows
from tans_core.finetuning.fits import Budget
from tans_core.finetuning.transfer import TransferBudget, transfer_scores
from tans_core.io import read_json, write_json
from tans_core.networks.trace import COSTS
from tans_core.params import Params, load_params
from tans_core.runtime import begin_worker, cores, derive_seed, progress
from tans_core.space.data import SpaceData
from tans_core.space.data import read_data as read_tables
from tans_core.space.fit import fit_on, source_folds
from tans_core.space.measure import Order, orders_elsewhere, refine_weights
from tans_core.space.objective import SpaceRecipe
from tans_core.space.queries import query_statistics
from tans_core.tasks.task import read_info, read_task
from tans_core.zoo.build import read_all_cards

LEAST = 8
"""A task with fewer networks of other sources is not judged."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(), help="a project that is built, `transfer` included")
    parser.add_argument("--judged", type=int, default=12, help="how many meta-train tasks are judged")
    parser.add_argument("--meta-test", action="store_true", help="judge the meta-test tasks, too")
    parser.add_argument("--networks", type=int, default=16, help="networks that are fine-tuned on a judged task")
    parser.add_argument("--truth-seeds", type=int, default=3, help="fine-tunings of each network")
    parser.add_argument("--space-seeds", type=int, default=5, help="spaces that are trained for each source left out")
    parser.add_argument("--paper-steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("metrics/bench-transfer.json"))
    options = parser.parse_args()
    if min(options.truth_seeds, options.space_seeds) < 2:
        parser.error("--truth-seeds and --space-seeds must be at least 2, to measure their spread")
    torch.set_num_threads(1)
    params = load_params(options.root)
    data = read_data(options.root, params)
    asked = read_truth(options, params, data)
    results = compare(asked, data, params, options)
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    record = {
        "machine": machine,
        "options": {k: v for k, v in vars(options).items() if k not in ("root", "out")},
        **results,
    }
    write_json(record, options.out)
    show(record)


def read_data(root: Path, params: Params) -> SpaceData:
    """Read the training data of the spaces. No network is held out, since whole sources are."""
    space = params.space
    data = read_tables(
        root / "data/store",
        list(params.tasks.meta_train),
        heldout_share=space.heldout_share,
        samples=space.samples,
        images_per_sample=space.images_per_sample,
        seed=params.seed,
    )
    return replace(data, heldout=torch.zeros_like(data.heldout))


def read_truth(options: argparse.Namespace, params: Params, data: SpaceData) -> list[Asked]:
    """Fine-tune and probe the planned networks on the judged tasks."""
    root = options.root
    chosen = spread_over_sources(data, options.judged, params.seed)
    tasks = [*chosen, *(params.tasks.meta_test if options.meta_test else ())]
    cards = read_all_cards(root / "data", list(params.tasks.meta_train))
    precision = read_json(root / "data/base/base.json")["precision"]
    budget = TransferBudget(
        networks_per_task=options.networks,
        probes_per_home=params.transfer.probes_per_home,
        seeds=tuple(params.seed + index for index in range(options.truth_seeds)),
        fit=Budget(params.evaluate.steps, params.finetune.batch_size, eval_points=1, precision=precision),
        recipes=params.finetune.model_dump(),
        probe_images=params.transfer.probe_images,
        probe_images_per_class=params.transfer.probe_images_per_class,
        cover=False,
    )
    done = root / ".resume/bench-transfer"
    rows = transfer_scores(root / "data", cards, tasks, budget, params.seed, cores(), done)
    models = ModelRows.read(root / "data/store")
    number = {card.id: index for index, card in enumerate(models.cards)}
    backbone = load_backbone(params.embed.backbone, root / "data/base")
    asked = []
    for task in tasks:
        values: dict[str, dict[int, dict[int, float]]] = {"finetune": {}, "probe": {}}
        for name, model, kind, seed, value in zip(
            rows.tasks, rows.models, rows.kinds, rows.seeds, rows.values, strict=True
        ):
            if name == task:
                values[kind].setdefault(number[str(model)], {})[int(seed)] = float(value)
        source = read_info(root / "data/tasks" / task).source
        of_source = {index for index, name in enumerate(data.sources) if name == source}
        models = [m for m in sorted(values["finetune"]) if int(data.home[m]) not in of_source]
        if len(models) < LEAST:
            continue
        features, labels = query_features(
            read_task(root / "data/tasks" / task), backbone, params.embed.images_per_class
        )
        asked.append(
            Asked(
                task,
                source,
                task in params.tasks.meta_test,
                np.array(models),
                np.array([[values["finetune"][m][s] for s in budget.seeds] for m in models]),
                np.array([values["probe"][m][0] for m in models]),
                torch.from_numpy(query_statistics(features, labels)),
            )
        )
    return asked


def spread_over_sources(data: SpaceData, count: int, seed: int) -> list[str]:
    """Choose meta-train tasks to judge, from as many sources as possible."""
    by_source: dict[str, list[str]] = {}
    for task in sorted(data.tasks, key=lambda name: derive_seed(seed, "judged", name)):
        by_source.setdefault(data.sources[data.tasks.index(task)], []).append(task)
    turns = max(len(tasks) for tasks in by_source.values())
    order = [tasks[turn] for turn in range(turns) for _, tasks in sorted(by_source.items()) if turn < len(tasks)]
    return order[:count]


def compare(asked: Sequence[Asked], data: SpaceData, params: Params, options: argparse.Namespace) -> dict[str, Any]:
    """Rank the networks of each judged task in all ways, and judge the orders by the mean of the truth's seeds."""
    settings = params.space.model_dump()
    recipe = SpaceRecipe(**{field.name: settings[field.name] for field in fields(SpaceRecipe)})
    left_out: list[str | None] = [*sorted({one.source for one in asked if not one.unseen})]
    left_out += [None] if options.meta_test else []
    jobs = [(source, seed) for source in left_out for seed in range(options.space_seeds)]
    known: dict[str | None, SpaceData] = {None: data}
    noise = embedded_by_noise(options.root, params, data)
    with ProcessPoolExecutor(cores(), get_context("spawn"), begin_worker) as pool:
        sources = [source for source in left_out if source is not None]
        embed = partial(embedded_without, options.root, params, data)
        for source, functional in zip(
            sources, progress(pool.map(embed, sources), "anchors", len(sources)), strict=True
        ):
            known[source] = replace(data, functional=functional)
        weigh = partial(inner_weights, known, recipe)
        weights = dict(zip(left_out, progress(pool.map(weigh, left_out), "weights", len(left_out)), strict=True))
        work = partial(score_source, asked, known, noise, recipe, options.paper_steps, weights)
        results = list(progress(pool.map(work, jobs), "spaces", len(jobs)))
    taught = {data.sources[data.tasks.index(name)] for name in params.base.tasks if name in data.tasks}
    left = [one for one in asked if not one.unseen]
    # All networks descend from the base, and it embeds the queries. It is not trained again without a source.
    groups = {"left out": left, "of these, unknown to the base": [one for one in left if one.source not in taught]}
    groups["meta-test"] = [one for one in asked if one.unseen]
    groups = {name: members for name, members in groups.items() if members}
    scores: list[dict[str, dict[str, Floats]]] = [{} for _ in range(options.space_seeds)]
    for (_, seed), part in zip(jobs, results, strict=True):
        scores[seed] |= part
    tasks = {o.name: {"source": o.source, "networks": len(o.models), "unseen": o.unseen} for o in asked}
    spread = {group: float(np.mean([o.truth.mean(axis=1).std() for o in m])) * 100 for group, m in groups.items()}
    seeds_apart = {
        group: float(np.mean([o.truth.std(axis=1, ddof=1).mean() for o in m])) * 100 for group, m in groups.items()
    }
    return {
        **judge_rankings(scores, groups),
        "tasks": tasks,
        "points": {"between_networks": spread, "between_seeds": seeds_apart},
    }


def asked_names(asked: Sequence[Asked], source: str | None) -> list[str]:
    return [one.name for one in asked if (one.unseen if source is None else not one.unseen and one.source == source)]


def score_source(
    asked: Sequence[Asked],
    known: Mapping[str | None, SpaceData],
    noise: torch.Tensor,
    recipe: SpaceRecipe,
    paper_steps: int,
    weights: Mapping[str | None, dict[str, float]],
    job: tuple[str | None, int],
) -> dict[str, dict[str, Floats]]:
    """Train spaces without one source (None: on all), and score the networks of the tasks that were left out."""
    source, seed = job
    data = known[source]
    seen = [index for index, name in enumerate(data.sources) if name != source]
    names = asked_names(asked, source)
    space, _ = fit_on(data, seen, recipe, 0, derive_seed(seed, "bench", str(source)))
    # The published topology code has no costs; this project's ends with them.
    published = replace(data, functional=noise, topology=data.topology[:, :-COSTS])
    papers = {
        name: (paper_on(own, seen, paper_steps, derive_seed(seed, "bench paper", str(source))), own)
        for name, own in (("paper", data), ("paper on noise", published))
    }
    return {
        one.name: rankings(one, data, seen, space, papers, weights[source], seed) for one in asked if one.name in names
    }


def inner_weights(known: Mapping[str | None, SpaceData], recipe: SpaceRecipe, source: str | None) -> dict[str, float]:
    """Weigh predicted score and probe by leaving out sources in turn, within all but one source (None: all)."""
    data = known[source]
    seen = [index for index, name in enumerate(data.sources) if name != source]
    # The networks of the source that is left out are left out, too.
    homes = data.home[data.tuned.model]
    own = torch.isin(homes, torch.tensor(seen)) | (homes < 0)
    tried = replace(data, tuned=data.tuned.where(own))
    orders: list[Order] = []
    for number, fold in enumerate(source_folds([data.sources[task] for task in seen], 3)):
        unseen = [seen[index] for index in fold]
        rest = [task for task in seen if task not in unseen]
        fitted, _ = fit_on(data, rest, recipe, 0, derive_seed(0, "bench inner", number))
        orders += orders_elsewhere(fitted, tried, unseen)
    return refine_weights(orders)


def show(record: dict[str, Any]) -> None:
    """Print the table."""
    groups = list(next(iter(record["table"].values())))
    print(f"{'ranking by':40s}" + "".join(f"{group + ': tau, regret@1, @3':>42s}" for group in groups))

    def cell(value: dict[str, float], digits: int) -> str:
        return f"{value['mean']:.{digits}f} ({value['std']:.{digits}f})"

    for name, row in record["table"].items():
        parts = [
            ", ".join(cell(row[g][k], d) for k, d in (("weighted_tau", 2), ("regret_at_1", 1), ("regret_at_3", 1)))
            for g in groups
        ]
        print(f"{name:40s}" + "".join(f"{part:>42s}" for part in parts))


if __name__ == "__main__":
    main()
