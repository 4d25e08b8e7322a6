"""The pool of networks that is judged, and the work on it: fine-tunings and scores, each done once and kept.

Every result is one file, keyed by all that determines it: network, images, seed, budget, code. So a killed run goes on,
and a larger pool or more seeds only add what is new.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from tans_core import io, scores
from tans_core.embeddings import probe as probe_module
from tans_core.embeddings.probe import ProbeSample, probe_sample
from tans_core.errors import TooFewImagesError
from tans_core.finetuning.fits import Budget, Contender, Fit, code_digest, fit_once
from tans_core.io import read_json, sha256_bytes, sha256_file, write_json
from tans_core.networks.family import Network
from tans_core.networks.head import features_of
from tans_core.networks.registry import network_files
from tans_core.runtime import begin_worker, clock, derive_seed, device, progress
from tans_core.scores import gbc, h_score, knn_probe, leep, logme, n_leep, nce, ridge_probe
from tans_core.tasks.task import Task, read_task
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import calibration_file, fresh_classifier, load_model

_VERSION = 1
_T = TypeVar("_T")
_R = TypeVar("_R")
SCORES = ("LogME", "LEEP", "N-LEEP", "NCE", "H-score", "GBC", "ridge probe", "k-NN probe")


@dataclass(frozen=True)
class Setting:
    """What all work of a run shares.

    Attributes:
        data: the folder of tasks, base and weights.
        done: folder of finished results; they stay there for later runs.
        budget: of a fine-tuning.
        recipes: the section `finetune` of params.yaml, for networks without a recipe on their card.
        images, images_per_class: most images that a network is scored on, in total and of a class.
        until: time (`time.time`) after which no work begins; None sets no limit.
    """

    data: Path
    done: Path
    budget: Budget
    recipes: Mapping[str, Any]
    images: int
    images_per_class: int
    until: float | None = None


class Trial(NamedTuple):
    """A network to be fine-tuned on a task with a seed."""

    task: str
    model: str
    seed: int


class Scored(NamedTuple):
    """Scores of a network on a task by name, None where undefined, and the seconds of each and of the `features`."""

    scores: dict[str, float | None]
    seconds: dict[str, float]


def choose_pool(cards: Iterable[ModelCard], count: int, seed: int) -> list[ModelCard]:
    """Choose networks by hashes of their ids: all of no single task, then families and home tasks in turns.

    A larger count adds networks, and replaces none. The order of the result is by hash, too, so that ties of a ranking
    favour no kind of network.
    """
    every = sorted(cards, key=lambda card: derive_seed(seed, "pool", card.id))
    general = [card for card in every if card.general]
    tuned = [card for card in every if not card.general]
    by_family = [
        _in_turns(_grouped([card for card in tuned if card.family == family], lambda card: card.home_task))
        for family in dict.fromkeys(card.family for card in tuned)
    ]
    chosen = {card.id for card in [*general, *_in_turns(by_family)][:count]}
    return [card for card in every if card.id in chosen]


def fine_tune(setting: Setting, trials: Sequence[Trial], cards: Mapping[str, ModelCard], jobs: int) -> dict[Trial, Fit]:
    """Fine-tune networks, or read what was kept; trials that the time limit left out are missing.

    Raises:
        WeightsError, TooFewImagesError, DivergedError: as `finetune`.
    """
    items = [(trial, cards[trial.model]) for trial in trials]
    fits = _work(partial(_fit, setting), items, jobs, "fine-tuning")
    return {trial: fit for trial, fit in zip(trials, fits, strict=True) if fit is not None}


def score_networks(
    setting: Setting, pairs: Sequence[tuple[str, str]], cards: Mapping[str, ModelCard], jobs: int
) -> dict[tuple[str, str], Scored]:
    """Score networks on tasks, given as pairs of task and model, or read what was kept; as `fine_tune`.

    Raises:
        WeightsError, TooFewImagesError: as `probe_sample` and `features_of`.
    """
    items = [(task, cards[model]) for task, model in pairs]
    found = _work(partial(_score, setting), items, jobs, "scoring networks")
    return {pair: scored for pair, scored in zip(pairs, found, strict=True) if scored is not None}


def _fit(setting: Setting, item: tuple[Trial, ModelCard]) -> Fit | None:
    trial, card = item
    recipe = card.recipe_by(setting.recipes)
    parts = [trial.seed, asdict(setting.budget), recipe.model_dump(mode="json"), code_digest()]
    path = setting.done / "fits" / f"{_key(setting.data, trial.task, card, parts)}.json"
    if path.is_file():
        return Fit(**read_json(path)["fit"])
    if setting.until is not None and time.time() > setting.until:
        return None
    contender = Contender(card.id, partial(_start, setting.data, card), card.preprocess, recipe)
    fit = fit_once(contender, _task(setting.data, trial.task), trial.seed, setting.budget, None)
    write_json({**trial._asdict(), "fit": asdict(fit)}, path)
    return fit


def _start(data: Path, card: ModelCard, num_classes: int, seed: int) -> Network:
    return fresh_classifier(load_model(card, data / card.weights), num_classes, seed)


@torch.no_grad()
def _score(setting: Setting, item: tuple[str, ModelCard]) -> Scored | None:
    name, card = item
    code = io.code_digest([*_score_files(), *network_files()])
    parts = ["scores", setting.images, setting.images_per_class, setting.budget.precision, code]
    path = setting.done / "scores" / f"{_key(setting.data, name, card, parts)}.json"
    if path.is_file():
        kept = read_json(path)
        return Scored(kept["scores"], kept["seconds"])
    if setting.until is not None and time.time() > setting.until:
        return None
    sample = _sample(setting.data, name, setting.images_per_class, setting.images)
    images, labels = sample.images(card.preprocess), sample.labels
    elapsed = clock()
    network = load_model(card, setting.data / card.weights).to(device())
    features = features_of(network, images, setting.budget.precision)
    seconds = {"features": elapsed()}
    probabilities = None
    if not card.general:
        logits = network.cpu().classifier(torch.from_numpy(features).float())
        probabilities = torch.softmax(logits.double(), dim=1).numpy()
    functions: dict[str, Callable[[], float | None]] = {
        "LogME": lambda: logme(features, labels),
        "LEEP": lambda: None if probabilities is None else leep(probabilities, labels),
        "N-LEEP": lambda: n_leep(features, labels),
        "NCE": lambda: None if probabilities is None else nce(probabilities.argmax(axis=1), labels),
        "H-score": lambda: h_score(features, labels),
        "GBC": lambda: gbc(features, labels),
        "ridge probe": lambda: ridge_probe(features, labels).fit,
        "k-NN probe": lambda: knn_probe(features, labels),
    }
    values: dict[str, float | None] = {}
    for score in SCORES:
        elapsed = clock()
        try:
            values[score] = functions[score]()
        except TooFewImagesError:
            values[score] = None
        seconds[score] = elapsed()
    write_json({"task": name, "model": card.id, "scores": values, "seconds": seconds}, path)
    return Scored(values, seconds)


def _work(function: Callable[[_T], _R], items: Sequence[_T], jobs: int, what: str) -> list[_R]:
    if jobs == 1 or len(items) < 2:
        return [function(item) for item in progress(items, what)]
    # Spawned: neither torch's threads nor Lance's survive a fork.
    with ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), begin_worker) as pool:
        return list(progress(pool.map(function, items), what, len(items)))


def _key(data: Path, task: str, card: ModelCard, parts: list[Any]) -> str:
    folder, weights = data / "tasks" / task, data / card.weights
    files = [folder / "images.parquet", folder / "task.json", weights, calibration_file(weights)]
    everything = [_VERSION, task, card.to_json(), *map(_file_digest, files), *parts]
    return sha256_bytes(json.dumps(everything).encode())[:32]


def _in_turns(queues: Sequence[Sequence[_T]]) -> list[_T]:
    turns = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)]


def _grouped(cards: Sequence[ModelCard], key: Callable[[ModelCard], str]) -> list[list[ModelCard]]:
    groups: dict[str, list[ModelCard]] = {}
    for card in cards:
        groups.setdefault(key(card), []).append(card)
    return list(groups.values())


def _score_files() -> list[str]:
    folder = Path(scores.__file__ or "").parent
    return [*sorted(str(path) for path in folder.glob("*.py")), probe_module.__file__ or ""]


@cache
def _file_digest(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""


@lru_cache(8)
def _task(data: Path, name: str) -> Task:
    return read_task(data / "tasks" / name)


@lru_cache(4)
def _sample(data: Path, name: str, images_per_class: int, images: int) -> ProbeSample:
    return probe_sample(_task(data, name), images_per_class, images)
