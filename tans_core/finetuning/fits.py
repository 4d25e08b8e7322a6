"""Fine-tunes one network on one task under a budget. Finished fits are stored, and not computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from tans_core import io
from tans_core import recipe as recipe_module
from tans_core.finetuning import batches as batches_module
from tans_core.finetuning import finetune as finetune_module
from tans_core.finetuning import measure as measure_module
from tans_core.finetuning.finetune import finetune
from tans_core.finetuning.measure import Precision
from tans_core.io import read_json, sha256_bytes, write_json
from tans_core.networks.family import Network
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import network_files
from tans_core.recipe import Recipe
from tans_core.runtime import derive_seed
from tans_core.tasks import pixels as pixels_module
from tans_core.tasks.task import Task


class Contender(NamedTuple):
    """A network to start from.

    Attributes:
        label: its name; equal labels mean the same network.
        factory: takes the number of classes and a seed, returns the network with a fresh classifier.
        preprocess: how its input images are prepared.
        recipe: of its fine-tuning.
        or_else: other ways to start that count as this contender; the best on the validation split is used.
        longer: factor of the budget's steps; the label mentions it unless it is 1.
    """

    label: str
    factory: Callable[[int, int], Network]
    preprocess: Preprocess
    recipe: Recipe
    or_else: tuple[Contender, ...] = ()
    longer: int = 1


@dataclass(frozen=True)
class Budget:
    """The fine-tuning budget of every network; `Contender.longer` multiplies the steps."""

    steps: int
    batch_size: int
    eval_points: int
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Fit:
    """The result of one fine-tuning; see `FinetuneResult`."""

    curve: list[dict[str, float]]
    best_step: int
    best_val_accuracy: float
    test_accuracy: float
    seconds: float
    params_m: float
    macs_m: float


def fit_once(contender: Contender, task: Task, seed: int, budget: Budget, resume: Path | None) -> Fit:
    """Fine-tune a contender on a task, or read the stored fit from the folder `resume`; None stores nothing."""
    own_seed = derive_seed(seed, "evaluate", task.info.name)
    budget = replace(budget, steps=contender.longer * budget.steps)
    model = contender.factory(task.info.num_classes, own_seed)
    fit_path = resume / f"{fingerprint(contender, model, task, own_seed, budget)}.json" if resume else None
    if fit_path and fit_path.is_file():
        return Fit(**read_json(fit_path))
    result = finetune(model, task, contender.preprocess, contender.recipe, seed=own_seed, **asdict(budget))
    fit = Fit(**{name: getattr(result, name) for name in Fit.__dataclass_fields__})
    if fit_path:
        write_json(asdict(fit), fit_path)
    return fit


def fingerprint(contender: Contender, model: nn.Module, task: Task, seed: int, budget: Budget) -> str:
    """Return a hash of all that determines a fit: initial network, images, splits, seed, budget and code."""
    settings = {"label": contender.label, "seed": seed, "budget": asdict(budget)}
    return fit_key(model, task, contender.preprocess, contender.recipe, settings)


def fit_key(model: nn.Module, task: Task, preprocess: Preprocess, recipe: Recipe, settings: Mapping[str, Any]) -> str:
    """Return a hash of a fine-tuning: of its arguments, of the initial weights and images, and of the code."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    parts: dict[str, Any] = {
        **settings,
        "preprocess": preprocess.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json"),
        "model": digest.hexdigest(),
        "task": _task_digest(task),
        "code": code_digest(),
    }
    return sha256_bytes(json.dumps(parts, sort_keys=True).encode())[:32]


def _task_digest(task: Task) -> str:
    normalisation = json.dumps([task.info.mean, task.info.std, task.info.num_classes, task.splits.tolist()])
    return sha256_bytes(
        task.images.data.tobytes() + task.images.sides.tobytes() + task.labels.tobytes() + normalisation.encode()
    )


def code_digest(*more: ModuleType) -> str:
    """Return a hash of the code that computes a fit, and of the modules `more`."""
    modules = (batches_module, finetune_module, measure_module, pixels_module, recipe_module, *more)
    return _digest_of((*(module.__file__ or "" for module in modules), *network_files()))


@cache
def _digest_of(files: tuple[str, ...]) -> str:
    # Read once: a process computes with the code that it began with.
    return io.code_digest(files)
