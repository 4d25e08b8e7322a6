"""Meta-training of the space, and its measurement on networks and sources that training never saw.

Axes: D tasks, M models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GroupKFold

from tans_core.io import sha256_bytes
from tans_core.runtime import derive_seed, progress
from tans_core.space.data import SpaceData
from tans_core.space.elsewhere import Prediction
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.measure import (
    Order,
    calibration,
    measure,
    measure_elsewhere,
    measure_refined,
    orders_elsewhere,
    refine_weights,
    worth_of_fit,
)
from tans_core.space.objective import SpaceRecipe, TansObjective
from tans_core.space.training import Curve, train_steps


@dataclass(frozen=True)
class SpaceReport:
    """Metrics of the final space, its curve at each logged step, and the weights of a refined score (`refine_weights`).

    The metrics include `calibration`: predicted scores against results on sources left out. `predictions` are these
    scores and results.
    """

    metrics: dict[str, Any]
    curve: Curve
    refine: dict[str, float]
    predictions: tuple[Prediction, ...]


def fit_space(
    data: SpaceData, recipe: SpaceRecipe, folds: int, log_every: int, seed: int, resume_folder: Path | None = None
) -> tuple[CrossModalSpace, SpaceReport]:
    """Train the space on all tasks, and one space for each fold of sources, to measure it on unseen ones.

    Args:
        data: from `assemble`.
        recipe: of the training.
        folds: number of folds, of whole sources.
        log_every: steps between two measurements.
        seed: of everything random.
        resume_folder: where checkpoints are kept while it runs.

    Returns:
        The space of all tasks in eval mode; and the report: `heldout` (networks that training never saw, all tasks),
        `heldout_tasks` (whole sources that training never saw, mean over their tasks), `elsewhere` (predicted order of
        networks of other sources that were tried on these), `insample`.
    """
    everything = tuple(range(len(data.tasks)))
    space, curve = fit_on(data, everything, recipe, log_every, derive_seed(seed, "space"), (), resume_folder)
    fold_curves: list[Curve] = []
    orders: list[list[Order]] = []
    splits = source_folds(data.sources, folds)
    for number, unseen in enumerate(progress(splits, "folds of sources")):
        seen = tuple(task for task in everything if task not in unseen)
        fold_resume = resume_folder / f"fold-{number}" if resume_folder else None
        fold_seed = derive_seed(seed, "fold", number)
        fitted, fold_curve = fit_on(data, seen, recipe, log_every, fold_seed, unseen, fold_resume)
        fold_curves.append(fold_curve)
        orders.append(orders_elsewhere(fitted, data, unseen))
    # Means over tasks: a fold is weighted by the number of its tasks that were measured.
    weights = {"heldout_tasks": [len(fold) for fold in splits], "elsewhere": [len(fold) for fold in orders]}
    for index, row in enumerate(curve):
        for key in fold_curves[0][index] if fold_curves else ():
            counts = weights.get(key.partition(".")[0], ())
            if any(counts):
                row[key] = float(np.average([fold[index][key] for fold in fold_curves], weights=counts))
            elif counts:
                row[key] = 0.0
    metrics: dict[str, Any] = {"heldout": {}, "heldout_tasks": {}, "insample": {}, "elsewhere": {}}
    for key, value in curve[-1].items():
        group, _, name = key.partition(".")
        if name:
            metrics[group][name] = value
    # Each fold is measured with the weight of the fit that the other folds give.
    others = [[order for other in orders if other is not fold for order in other] for fold in orders]
    weighed = [
        [order.with_fit(worth_of_fit(rest)) for order in fold] for fold, rest in zip(orders, others, strict=True)
    ]
    all_weighed = [order for fold in weighed for order in fold]
    worth = worth_of_fit([order for fold in orders for order in fold])
    space.weigh_fit(worth)
    metrics["elsewhere"] |= measure_elsewhere(all_weighed) | measure_refined(weighed)
    metrics["worth_of_fit"] = worth
    metrics["heldout"]["chance"] = metrics["heldout_tasks"]["chance"] = 1 / len(data.tasks)
    metrics["tasks"], metrics["models"] = len(data.tasks), len(data.home)
    metrics["heldout_models"], metrics["folds"] = int(data.heldout.sum()), len(splits)
    metrics["tuned"], metrics["probed"] = len(data.tuned.task), len(data.probed.task)
    metrics["calibration"] = calibration(weighed)
    predictions = tuple(row for fold, of_fold in enumerate(weighed) for row in _predictions(data, fold, of_fold))
    return space, SpaceReport(metrics, curve, refine_weights(all_weighed), predictions)


def _predictions(data: SpaceData, fold: int, orders: Sequence[Order]) -> list[Prediction]:
    return [
        Prediction(data.tasks[order.task], data.models[model], fold, float(predicted), float(tuned))
        for order in orders
        for model, predicted, tuned in zip(order.models, order.predicted, order.tuned, strict=True)
    ]


def source_folds(sources: Sequence[str], folds: int) -> list[tuple[int, ...]]:
    """Split tasks into at most `folds` folds of whole sources. A fold that leaves fewer than two tasks is dropped."""
    count = min(folds, len(set(sources)))
    if count < 2:
        return []
    tasks = np.arange(len(sources))
    split = GroupKFold(count).split(tasks, groups=list(sources))
    return [tuple(int(task) for task in unseen) for seen, unseen in split if len(seen) >= 2]


def fit_on(
    data: SpaceData,
    seen: Sequence[int],
    recipe: SpaceRecipe,
    log_every: int,
    seed: int,
    unseen: Sequence[int] = (),
    resume_folder: Path | None = None,
) -> tuple[CrossModalSpace, Curve]:
    """Train a space on some of the tasks, and measure it on the others.

    Args:
        data: from `assemble`.
        seen: tasks to train on, at least two.
        recipe: of the training.
        log_every: steps between two measurements; 0 measures nothing.
        seed: of everything random.
        unseen: tasks to measure it on.
        resume_folder: where its checkpoint is kept; None keeps none.
    """
    objective = TansObjective(data, seen, recipe, seed)

    def on_step(step: int) -> dict[str, float]:
        space = objective.space
        if unseen:
            heldout_tasks = measure(space, data, unseen, (*seen, *unseen), heldout=True)
            elsewhere = measure_elsewhere(orders_elsewhere(space, data, unseen))
            return {f"heldout_tasks.{key}": value for key, value in heldout_tasks.items()} | {
                f"elsewhere.{key}": value for key, value in elsewhere.items()
            }
        groups = {"insample": measure(space, data, seen, seen, heldout=False)}
        groups["heldout"] = measure(space, data, seen, seen, heldout=True)
        return {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}

    made_from = json.dumps([asdict(recipe), list(seen), seed, data.digest()])
    curve = train_steps(
        objective,
        objective.loss,
        lambda weights: torch.optim.AdamW(weights, lr=recipe.lr, weight_decay=recipe.weight_decay),
        recipe.steps,
        schedule="cosine",
        every=log_every,
        on_step=on_step if log_every else None,
        resume_folder=resume_folder,
        fingerprint=sha256_bytes(made_from.encode()),
        precision=recipe.precision,
        description="training the space",
    )
    return objective.space.cpu().eval(), curve
