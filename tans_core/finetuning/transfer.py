"""Transfer scores: a planned sample of networks, tried on tasks that are not their home.

Home accuracy says how a network does where it was trained; nothing in it teaches how it does elsewhere. Two kinds of trial do: a
short fine-tuning, which is what a user will do, and a probe of the features as they are, which costs a forward pass.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tans_core.embeddings import probe as probe_module
from tans_core.embeddings.probe import ProbeSample, probe, probe_sample
from tans_core.embeddings.scores import Kind, ScoreRows
from tans_core.errors import DivergedError, ParamsError
from tans_core.finetuning.finetune import finetune
from tans_core.finetuning.fits import Budget, code_digest
from tans_core.io import sha256_bytes, sha256_file
from tans_core.networks.family import Network
from tans_core.networks.preprocess import Preprocess
from tans_core.recipe import Recipe
from tans_core.runtime import begin_worker, derive_seed, device, progress
from tans_core.tasks.task import Task, read_task
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import calibration_file, fresh_classifier, load_model

logger = logging.getLogger(__name__)

_VERSION = 3
"""Raise it when the scores of the same networks, tasks and budget change."""


@dataclass(frozen=True)
class TransferBudget:
    """What the trials may cost.

    Attributes:
        networks_per_task: networks that are fine-tuned on each task, from as many other homes as there are.
        probes_per_home: networks of each other home that are probed on each task, besides those fine-tuned.
        seeds: of the fine-tuning; each pair is trained once a seed.
        fit: of one fine-tuning; its `eval_points` is of no account, since the last weights are judged.
        recipes: the section `finetune` of params.yaml, of networks whose cards do not say their own.
        probe_images: images of a probe, at most.
        probe_images_per_class: images of each class, at most.
        cover: whether a network that no task took is tried on one more task.
        general_per_task: networks of no single task that are fine-tuned on each task beside the others.
    """

    networks_per_task: int
    probes_per_home: int
    seeds: tuple[int, ...]
    fit: Budget
    recipes: Mapping[str, Any]
    probe_images: int
    probe_images_per_class: int
    cover: bool = True
    general_per_task: int = 0


@dataclass(frozen=True)
class _Trial:
    kind: Kind
    card: ModelCard
    seed: int


def plan_pairs(
    cards: Sequence[ModelCard],
    tasks: Sequence[str],
    networks_per_task: int,
    seed: int,
    cover: bool = True,
    general_per_task: int = 0,
) -> dict[str, list[ModelCard]]:
    """Choose the networks to fine-tune on each task.

    A pair is chosen by a hash of its own names, so that a task or a network that comes or goes changes no other pair: a task
    takes the homes with the smallest hashes, in turns, and of each the next network by hash. A network that no task took is tried
    on one more task, so that all are covered. Networks of no single task, which are rivals on every one, are drawn beside these.

    Args:
        cards: of the zoo.
        tasks: to try them on.
        networks_per_task: how many a task takes.
        seed: of the hashes.
        cover: whether all networks are to be tried.
        general_per_task: how many of those of no single task a task takes.

    Raises:
        ParamsError: a task has no network of another home to try.
    """
    homes: dict[str, list[ModelCard]] = defaultdict(list)
    for card in cards:
        if not card.general:
            homes[card.home_task].append(card)
    general = [card for card in cards if card.general]
    pairs: dict[str, list[ModelCard]] = {}
    for task in tasks:
        others = sorted((home for home in homes if home != task), key=lambda h, t=task: derive_seed(seed, "home", t, h))  # type: ignore[misc]
        if not others:
            raise ParamsError(
                f"transfer: no network of another home than {task!r} to try on it. Add tasks to params.yaml."
            )
        queues = [sorted(homes[h], key=lambda c, t=task: derive_seed(seed, "pair", t, c.id)) for h in others]  # type: ignore[misc]
        turns = max(len(queue) for queue in queues)
        order = [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)]
        rivals = [card for card in general if card.home_task != task]
        drawn = sorted(rivals, key=lambda c, t=task: derive_seed(seed, "pair", t, c.id))  # type: ignore[misc]
        pairs[task] = order[:networks_per_task] + drawn[:general_per_task]
    taken = {card.id for chosen in pairs.values() for card in chosen}
    for card in cards:
        elsewhere = [task for task in tasks if task != card.home_task]
        if cover and card.id not in taken and elsewhere:
            pairs[min(elsewhere, key=lambda t, c=card: derive_seed(seed, "cover", t, c.id))].append(card)  # type: ignore[misc]
    return pairs


def transfer_scores(
    data: Path,
    cards: Sequence[ModelCard],
    tasks: Sequence[str],
    budget: TransferBudget,
    seed: int,
    jobs: int,
    done: Path,
) -> ScoreRows:
    """Try the planned networks on each task; what was tried before is read back.

    Args:
        data: the folder that tasks, base and weights lie in.
        cards: of the zoo, arrivals included.
        tasks: names of the meta-train tasks.
        budget: of the trials.
        seed: of the plan and of the fine-tuning.
        jobs: tasks at a time, each in a process and on a thread of its own; the scores do not depend on it.
        done: a folder that keeps finished trials by what determines them: networks, images, budget, code.

    Raises:
        WeightsError: weights are missing or damaged.
        TooFewImagesError: a task has too few images.
    """
    plan = _plan(cards, tasks, budget, seed)
    work = partial(_try_task, data, budget, done)
    items = [(task, plan[task]) for task in tasks]
    if jobs == 1:
        found = [work(item) for item in progress(items, "trying networks on tasks")]
    else:
        # Spawned: neither torch's threads nor Lance's survive a fork.
        with ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), begin_worker) as pool:
            found = list(progress(pool.map(work, items), "trying networks on tasks", len(items)))
    rows = [
        (task, trial.card.id, trial.kind, trial.seed, value)
        for (task, trials), values in zip(items, found, strict=True)
        for trial, value in zip(trials, values, strict=True)
    ]
    names, models, kinds, seeds, values = zip(*sorted(rows), strict=True)
    return ScoreRows(
        tasks=np.array(names, dtype=np.str_),
        models=np.array(models, dtype=np.str_),
        kinds=np.array(kinds, dtype=np.str_),
        seeds=np.array(seeds, dtype=np.int64),
        values=np.array(values, dtype=np.float64),
    )


def _plan(
    cards: Sequence[ModelCard], tasks: Sequence[str], budget: TransferBudget, seed: int
) -> Mapping[str, list[_Trial]]:
    tuned = plan_pairs(cards, tasks, budget.networks_per_task, seed, budget.cover, budget.general_per_task)
    homes: dict[str, list[ModelCard]] = defaultdict(list)
    for card in cards:
        homes[card.id if card.general else card.home_task].append(card)
    plan = {}
    for task in tasks:
        probed = {card.id: card for card in tuned[task]}
        for members in homes.values():
            # The same of a home on every task, and of those that cost less: what is probed everywhere can be compared.
            cheaper = sorted(members, key=lambda c: (c.macs_m, c.id))[
                : max(budget.probes_per_home, -(-len(members) // 2))
            ]
            chosen = sorted(cheaper, key=lambda c: derive_seed(seed, "probe", c.id))[: budget.probes_per_home]
            probed |= {card.id: card for card in chosen}
        trials = [_Trial("finetune", card, number) for card in tuned[task] for number in budget.seeds]
        plan[task] = trials + [_Trial("probe", card, 0) for card in probed.values()]
    return plan


def _try_task(data: Path, budget: TransferBudget, done: Path, item: tuple[str, Sequence[_Trial]]) -> list[float]:
    name, trials = item
    folder = data / "tasks" / name
    images = [sha256_file(folder / part) for part in ("images.parquet", "task.json")]
    key = json.dumps(
        [
            _VERSION,
            images,
            asdict(budget.fit),
            budget.probe_images,
            budget.probe_images_per_class,
            code_digest(probe_module),
        ]
    )
    log = done / f"{name}.{sha256_bytes(key.encode())[:32]}.jsonl"
    kept = _read_log(log)
    values: list[float] = []
    task: Task | None = None
    sample: ProbeSample | None = None
    for trial in trials:
        identity = _identity(data, trial, budget.recipes)
        if identity not in kept:
            task = task or read_task(folder)
            network = load_model(trial.card, data / trial.card.weights).to(device())
            if trial.kind == "probe":
                sample = sample or probe_sample(task, budget.probe_images_per_class, budget.probe_images)
                kept[identity] = probe(network, trial.card.preprocess, sample, budget.fit.precision).fit
            else:
                own_seed = derive_seed(trial.seed, "transfer", name)
                network = fresh_classifier(network, task.info.num_classes, own_seed)
                recipe = trial.card.recipe_by(budget.recipes)
                kept[identity] = _tune(network, task, trial.card.preprocess, recipe, budget.fit, own_seed)
            _append(log, identity, kept[identity])
        values.append(kept[identity])
    return values


def _tune(network: Network, task: Task, preprocess: Preprocess, recipe: Recipe, fit: Budget, seed: int) -> float:
    # One validation, at the end: nothing is chosen by it, so both splits that were held back judge the result.
    try:
        result = finetune(network, task, preprocess, recipe, seed=seed, **{**asdict(fit), "eval_points": 1})
    except DivergedError as error:
        # One newcomer's recipe ends no build: it is worth what chance is.
        logger.warning("%s", error)
        return 1 / task.info.num_classes
    counts = {split: int((task.splits == split).sum()) for split in ("val", "test")}
    right = result.best_val_accuracy * counts["val"] + result.test_accuracy * counts["test"]
    return right / sum(counts.values())


def _identity(data: Path, trial: _Trial, recipes: Mapping[str, Any]) -> str:
    weights = data / trial.card.weights
    recipe = trial.card.recipe_by(recipes).model_dump(mode="json") if trial.kind == "finetune" else None
    parts = [
        trial.kind,
        trial.seed,
        trial.card.to_json(),
        recipe,
        _file_digest(weights),
        _file_digest(calibration_file(weights)),
    ]
    return sha256_bytes(json.dumps(parts).encode())[:32]


@cache
def _file_digest(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""


def _read_log(path: Path) -> dict[str, float]:
    kept: dict[str, float] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                identity, value = json.loads(line)
                kept[str(identity)] = float(value)
            except (ValueError, TypeError):
                continue  # the line that a kill cut short
    return kept


def _append(path: Path, identity: str, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        # On a line of its own even where a kill cut the last one short.
        file.write(("\n" if path.stat().st_size else "") + json.dumps([identity, value]))
