"""Every ranking of the networks of one task: TANS, scores, and rules that look at less.

Axes: n networks, P points of a curve, F feature width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tans_core.benchmark.pool import SCORES, Scored
from tans_core.embeddings.query import query_features
from tans_core.embeddings.store import FeatureRows
from tans_core.finetuning.fits import Fit
from tans_core.retrieval.candidate import REFINED
from tans_core.retrieval.refine import refined_scores
from tans_core.retrieval.retriever import Retriever
from tans_core.runtime import clock
from tans_core.space.data import SpaceData
from tans_core.space.elsewhere import LEAST_NETWORKS, read_predictions
from tans_core.space.measure import Order, refine_weights, refined_order, scores_on_other_tasks
from tans_core.space.metrics import deviations
from tans_core.tasks.task import Task
from tans_core.zoo.card import ModelCard

Floats = npt.NDArray[np.float64]
OURS, REFINED_OURS, IMAGENET = "TANS", "TANS, refined", "ImageNet as it is"
BLIND, BLIND_BUILD = "mean over other tasks", "mean over the zoo's trials"


@dataclass(frozen=True)
class Judged:
    """The networks of one task with their results and every ranking of them.

    Attributes:
        task: its name.
        models: n ids.
        truth: (n,) accuracies after fine-tuning, 0..1, mean over the seeds.
        orders: (n,) scores by ranking, higher is better; NaN where a score is undefined.
        passes: by ranking, how many of the networks are run on the images.
        seconds: by ranking, the time to rank.
        imagenet: indices of the published networks.
        validation: (n,) accuracies on the validation split; empty where there is none.
        curves: steps (P,) and validation accuracies (n, P); None where only final results were kept.
    """

    task: str
    models: tuple[str, ...]
    truth: Floats
    orders: dict[str, Floats]
    passes: dict[str, int]
    seconds: dict[str, float]
    imagenet: tuple[int, ...] = ()
    validation: Floats = field(default_factory=lambda: np.zeros(0))
    curves: tuple[Floats, Floats] | None = None


def judge_pool(
    retriever: Retriever,
    data: SpaceData,
    tasks: Sequence[Task],
    fits: Mapping[str, Mapping[str, Sequence[Fit]]],
    scored: Mapping[tuple[str, str], Scored],
    published: Sequence[str],
) -> list[Judged]:
    """Rank the networks that were fine-tuned on each unseen task.

    Args:
        retriever: of the build.
        data: what its space was trained on.
        tasks: unseen by the zoo.
        fits: by task and model, one a seed, at least one.
        scored: by task and model, of all that were fine-tuned.
        published: ids of published networks as they are.
    """
    features = FeatureRows.read(retriever.release.store_dir)
    truths = {
        task: {model: float(np.mean([fit.test_accuracy for fit in of])) for model, of in by_model.items()}
        for task, by_model in fits.items()
    }
    judged = []
    for task in tasks:
        name, ids = task.info.name, list(fits[task.info.name])
        elapsed = clock()
        candidates, vectors = retriever.rank(task)
        seconds = elapsed()
        row = {candidate.model: index for index, candidate in enumerate(candidates)}
        rows = [row[model] for model in ids]
        predicted = np.array([candidates[index].predicted_score for index in rows])
        of_task = [scored[name, model] for model in ids]
        orders, passes, times = score_orders(of_task)
        first = np.argsort(-predicted, kind="stable")[:REFINED]
        probes = np.array([float(of_task[index].scores["ridge probe"] or 0) for index in first])
        orders[OURS] = predicted
        orders[REFINED_OURS] = refined_scores(predicted, vectors[rows], first, probes, retriever.refine_weights)
        probing = sum(of_task[index].seconds["features"] + of_task[index].seconds["ridge probe"] for index in first)
        passes |= {OURS: 0, REFINED_OURS: len(first)}
        times |= {OURS: seconds, REFINED_OURS: seconds + probing}
        orders |= blind_orders(name, ids, truths)
        orders[BLIND_BUILD] = scores_on_other_tasks(data, [], [data.models.index(model) for model in ids])
        query = query_features(task, retriever.backbone, retriever.release.params["embed"]["images_per_class"])[0]
        cards = [retriever.card(model) for model in ids]
        orders |= plain_orders(cards, closeness(query.mean(axis=0, dtype=np.float64), features))
        runs = [fits[name][model] for model in ids]
        steps = np.array([point["step"] for point in runs[0][0].curve], dtype=np.float64)
        curves = np.array([np.mean([[p["val_accuracy"] for p in fit.curve] for fit in of], axis=0) for of in runs])
        judged.append(
            Judged(
                name,
                tuple(ids),
                np.array(list(truths[name].values())),
                orders,
                {key: passes.get(key, 0) for key in orders},
                {key: times.get(key, 0.0) for key in orders},
                tuple(index for index, model in enumerate(ids) if model in published),
                np.array([np.mean([fit.best_val_accuracy for fit in of]) for of in runs]),
                (steps, curves),
            )
        )
    return judged


def blind_orders(task: str, ids: Sequence[str], truths: Mapping[str, Mapping[str, float]]) -> dict[str, Floats]:
    """Rank networks by their mean result on the other tasks, in deviations; empty where there is only one task."""
    others: dict[str, list[float]] = {model: [] for model in ids}
    for other, results in truths.items():
        relative = deviations(list(results.values()))
        for model, value in zip(results, relative.tolist(), strict=True):
            if other != task and model in others:
                others[model].append(value)
    means = np.array([np.mean(values) if values else np.nan for values in others.values()])
    return {BLIND: means} if np.isfinite(means).sum() > 1 else {}


def judge_trials(
    space: Path,
    data: SpaceData,
    cards: Mapping[str, ModelCard],
    features: FeatureRows,
    scored: Mapping[tuple[str, str], Scored],
    published: Sequence[str],
) -> list[Judged]:
    """Rank the networks of the build's own trials, on tasks whose sources the spaces of the folds never saw."""
    rows = sorted(read_predictions(space) or (), key=lambda row: row.task)
    groups = [(task, list(own)) for task, own in groupby(rows, lambda row: row.task)]
    groups = [(task, [row for row in own if (task, row.model) in scored]) for task, own in groups]
    groups = [(task, own) for task, own in groups if len(own) >= LEAST_NETWORKS]
    orders_of: list[tuple[int, Order]] = []
    for task, own in groups:
        probes = np.array([float(scored[task, row.model].scores["ridge probe"] or 0) for row in own])
        order = Order(np.array([row.predicted for row in own]), np.array([row.tuned for row in own]), probes)
        orders_of.append((own[0].fold, order))
    judged = []
    for (task, own), (fold, order) in zip(groups, orders_of, strict=True):
        of_task = [scored[task, row.model] for row in own]
        orders, passes, seconds = score_orders(of_task)
        weights = refine_weights([other for number, other in orders_of if number != fold])
        orders |= {OURS: order.predicted, REFINED_OURS: refined_order(order, weights)}
        passes |= {OURS: 0, REFINED_OURS: len(own)}
        seconds[REFINED_OURS] = seconds["ridge probe"]
        source = data.sources[data.tasks.index(task)]
        same_source = [number for number, name in enumerate(data.sources) if name == source]
        orders[BLIND_BUILD] = scores_on_other_tasks(data, same_source, [data.models.index(row.model) for row in own])
        mean = features.of(task).mean(axis=0, dtype=np.float64)
        orders |= plain_orders([cards[row.model] for row in own], closeness(mean, features))
        models = tuple(row.model for row in own)
        judged.append(
            Judged(
                task,
                models,
                order.tuned,
                orders,
                {key: passes.get(key, 0) for key in orders},
                {key: seconds.get(key, 0.0) for key in orders},
                tuple(index for index, model in enumerate(models) if model in published),
            )
        )
    return judged


def trial_pairs(space: Path) -> list[tuple[str, str]]:
    """Return task and model of each trial that `judge_trials` ranks."""
    rows = read_predictions(space) or []
    counts = {task: sum(row.task == task for row in rows) for task in {row.task for row in rows}}
    return [(row.task, row.model) for row in rows if counts[row.task] >= LEAST_NETWORKS]


def score_orders(scored: Sequence[Scored]) -> tuple[dict[str, Floats], dict[str, int], dict[str, float]]:
    """Return scores (n,), networks run and seconds, by name of the score."""
    orders = {
        name: np.array([np.nan if one.scores[name] is None else one.scores[name] for one in scored], dtype=np.float64)
        for name in SCORES
    }
    seconds = {name: sum(one.seconds["features"] + one.seconds[name] for one in scored) for name in SCORES}
    return orders, dict.fromkeys(SCORES, len(scored)), seconds


def closeness(query: Floats, features: FeatureRows) -> dict[str, float]:
    """Return the cosine of a query's mean feature (F,) with that of each home task's training images."""
    cosines = {}
    for home in np.unique(features.tasks).tolist():
        mean = features.features[(features.tasks == home) & (features.splits == "train")].mean(axis=0, dtype=np.float64)
        cosines[home] = float(query @ mean / max(float(np.linalg.norm(query) * np.linalg.norm(mean)), 1e-12))
    return cosines


def plain_orders(cards: Sequence[ModelCard], cosines: Mapping[str, float]) -> dict[str, Floats]:
    """Rank networks by their cards: nearest home task, accuracy at home, size."""
    at_home = np.array([np.nan if card.val_accuracy is None else card.val_accuracy for card in cards])
    near = np.array([cosines.get(card.home_task, -1.0) for card in cards])
    # Nearest home first, among its networks the best at home.
    order = np.lexsort((np.nan_to_num(at_home), near))
    nearest = np.empty(len(cards))
    nearest[order] = np.arange(len(cards))
    params = np.array([card.params_m for card in cards])
    largest = np.empty(len(cards))
    largest[np.lexsort((np.array([card.macs_m for card in cards]), params))] = np.arange(len(cards))
    return {"nearest task": nearest, "best at home": at_home, "largest": largest}
