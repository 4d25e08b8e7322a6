"""Transfer scores: tries a planned sample of networks on tasks other than their home task.

Accuracy on the home task does not show how a network performs elsewhere. Two kinds of trial do: a short fine-tuning,
which is what a user will do, and a probe of the frozen features, which costs one forward pass.
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
    """How many trials to run, and how long each is.

    Attributes:
        networks_per_task: networks fine-tuned on each task, from as many other home tasks as possible.
        probes_per_home: networks of each home task that are probed on each task, besides the fine-tuned ones.
        seeds: of the fine-tuning; each pair is trained once per seed.
        fit: of one fine-tuning; its `eval_points` is ignored, since only the final weights are measured.
        recipes: the section `finetune` of params.yaml, for networks without a recipe on their card.
        probe_images: maximum number of images of a probe.
        probe_images_per_class: maximum number of images per class.
        cover: whether a network not chosen for any task is tried on one.
        general_per_task: general networks, of no single task, that are also fine-tuned on each task.
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

    Pairs are chosen by a hash of their names, so that adding or removing a task or a network does not reshuffle the
    others. A task goes through the other home tasks in the order of their hashes, in turns, and takes each one's next
    network by hash. With `cover`, a network not chosen for any task is tried on one. General networks, which are
    candidates on every task, are drawn separately.

    Args:
        cards: of the zoo.
        tasks: the tasks to try them on.
        networks_per_task: number for each task.
        seed: of the hashes.
        cover: whether every network is tried.
        general_per_task: number of general networks for each task.

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
                f"transfer: all networks have the home task {task!r}, so none can be tried on it. Add another task to "
                "tasks.meta_train in params.yaml."
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
    """Try the planned networks on each task; finished trials of earlier runs are read from `done`.

    Args:
        data: the folder with tasks, base and weights.
        cards: of the zoo, arrivals included.
        tasks: names of the meta-train tasks.
        budget: of the trials.
        seed: of the plan and of the fine-tuning.
        jobs: number of parallel processes, a task and a thread each; does not affect the scores.
        done: a folder with finished trials, keyed by all that determines them: networks, images, budget, code.

    Raises:
        WeightsError: weights are missing or damaged.
        TooFewImagesError: a task has too few images.
    """
    plan = _plan(cards, tasks, budget, seed)
    work = partial(_try_task, data, budget, done)
    items = [(task, plan[task]) for task in tasks]
    if jobs == 1:
        scores = [work(item) for item in progress(items, "trying networks on tasks")]
    else:
        # Spawned: neither torch's threads nor Lance's survive a fork.
        with ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), begin_worker) as pool:
            scores = list(progress(pool.map(work, items), "trying networks on tasks", len(items)))
    rows = [
        (task, trial.card.id, trial.kind, trial.seed, value)
        for (task, trials), values in zip(items, scores, strict=True)
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
            # The same networks on every task, for comparison, from the cheaper half of each home task.
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
    log_path = done / f"{name}.{sha256_bytes(key.encode())[:32]}.jsonl"
    scores = _read_log(log_path)
    values: list[float] = []
    task: Task | None = None
    sample: ProbeSample | None = None
    for trial in trials:
        identity = _identity(data, trial, budget.recipes)
        if identity not in scores:
            task = task or read_task(folder)
            network = load_model(trial.card, data / trial.card.weights).to(device())
            if trial.kind == "probe":
                sample = sample or probe_sample(task, budget.probe_images_per_class, budget.probe_images)
                scores[identity] = probe(network, trial.card.preprocess, sample, budget.fit.precision).fit
            else:
                own_seed = derive_seed(trial.seed, "transfer", name)
                network = fresh_classifier(network, task.info.num_classes, own_seed)
                recipe = trial.card.recipe_by(budget.recipes)
                scores[identity] = _tune(network, task, trial.card.preprocess, recipe, budget.fit, own_seed)
            _append(log_path, identity, scores[identity])
        values.append(scores[identity])
    return values


def _tune(network: Network, task: Task, preprocess: Preprocess, recipe: Recipe, fit: Budget, seed: int) -> float:
    # The only validation, at the end, selects nothing. So both held-out splits measure the result.
    try:
        result = finetune(network, task, preprocess, recipe, seed=seed, **{**asdict(fit), "eval_points": 1})
    except DivergedError as error:
        # One bad recipe of a newcomer must not stop the build: it scores chance level.
        logger.warning("%s", error)
        return 1 / task.info.num_classes
    counts = {split: int((task.splits == split).sum()) for split in ("val", "test")}
    correct = result.best_val_accuracy * counts["val"] + result.test_accuracy * counts["test"]
    return correct / sum(counts.values())


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
    scores: dict[str, float] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                identity, value = json.loads(line)
                scores[str(identity)] = float(value)
            except (ValueError, TypeError):
                continue  # a line cut short when the run was killed
    return scores


def _append(path: Path, identity: str, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        # Always starts a new line, even after one that was cut short.
        file.write(("\n" if path.stat().st_size else "") + json.dumps([identity, value]))
