"""How good a space is on networks and tasks that its training never saw. Axes: Q queries, D tasks, M models, R rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import nnls
from sklearn.neighbors import KNeighborsRegressor

from tans_core.space.data import SpaceData
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.metrics import deviations, order_quality, prediction_quality
from tans_core.space.quality import ranks_of_own, recall, rounds_of_one

Floats = npt.NDArray[np.float64]
_LEAST = 4
_ALIKE, _APART = 10, 1e6
_HOLDS, _UNKNOWN = 0.8, 1.28


@torch.no_grad()
def measure(
    space: CrossModalSpace, data: SpaceData, queries: Sequence[int], candidates: Sequence[int], heldout: bool
) -> dict[str, float]:
    """Rank own networks among one network of each candidate task, and judge predictions inside each task.

    Queries are encoded from images that training does not see.

    Args:
        space: to be measured.
        data: all tasks and models.
        queries: tasks that ask.
        candidates: tasks whose models are ranked; holds the queries.
        heldout: whether the models are those that training never sees.

    Returns:
        `recall_at_1`, `recall_at_5`, `recall_at_10`, `mean_rank`, `median_rank`, `spearman`, `mae`.
    """
    device = space.fit_scale.device
    everyone = list(candidates)
    encoded_queries = space.encode_query(data.val_queries[everyone].to(device))  # (D, d)
    topology, functional = data.topology.to(device), data.functional.to(device)
    encoded = space.encode_models(topology, functional)  # (M, d)
    capacity, start = space.parts(topology, functional)  # (M,) each
    trust = space.trust(data.val_queries[everyone].to(device))  # (D,)
    column = torch.full((len(data.tasks),), -1)
    column[everyone] = torch.arange(len(everyone))
    # -1 for models of other tasks, and for those of none.
    home = torch.where(data.home >= 0, column[data.home], -1)  # (M,)
    rounds = rounds_of_one(home, (home >= 0) & (data.heldout == heldout), len(everyone)).to(device)
    similarity = (encoded_queries @ encoded.T)[:, rounds].permute(1, 0, 2)  # (R, D, D)
    asked = column[list(queries)]
    found = recall(ranks_of_own(similarity)[:, asked.to(device)])
    predicted, actual = [], []
    asked = asked.to(device)
    for task, query, trusted in zip(queries, encoded_queries[asked], trust[asked], strict=True):
        members = data.members(task, heldout)
        chosen = members.to(device)
        guess = space.predict(query.expand(len(chosen), -1), encoded[chosen], capacity[chosen], start[chosen], trusted)
        predicted.append(guess.double().cpu().numpy())
        actual.append(data.score[members].double().numpy())
    return found | prediction_quality(predicted, actual)


@dataclass(frozen=True)
class Order:
    """One task's networks of other sources: what was predicted of them, and what came out.

    Attributes:
        predicted: (n,) float64 scores.
        tuned: (n,) float64, accuracies after a short fine-tuning, 0..1.
        probed: (n,) float64, probes of the same networks.
        other_tasks: (n,) float64, how networks that are built alike did on other tasks: a list that is blind to the data.
        prior: (n,) float64, what was predicted whatever the task: capacity and start; the rest is fit.
    """

    predicted: Floats
    tuned: Floats
    probed: Floats
    other_tasks: Floats = field(default_factory=lambda: np.zeros(0))
    prior: Floats = field(default_factory=lambda: np.zeros(0))

    def with_fit(self, worth: float) -> Order:
        """Return the order as it is where the fit counts so much."""
        return replace(self, predicted=self.prior + worth * (self.predicted - self.prior))


@torch.no_grad()
def orders_elsewhere(space: CrossModalSpace, data: SpaceData, queries: Sequence[int]) -> list[Order]:
    """Predict the order of networks on tasks that are not their home.

    What a space never saw is a whole source: networks of the query's own source take no part.

    Args:
        space: to be measured.
        data: with trials on the queries; a task with fewer than four that were both tuned and probed counts for nothing.
        queries: tasks that ask.

    Returns:
        One a task that counts.
    """
    device = space.fit_scale.device
    probes = {(task, model): value for task, model, value in data.probed.rows()}
    orders = []
    for task in queries:
        tried = [
            (model, value, probes[task, model])
            for asked, model, value in data.tuned.rows()
            if asked == task and (task, model) in probes
            if not data.comes_from(model, task)
        ]
        if len(tried) < _LEAST:
            continue
        models, tuned, probed = zip(*tried, strict=True)
        topology, functional = data.topology[list(models)].to(device), data.functional[list(models)].to(device)
        statistics = data.queries[task][None].to(device)
        query = space.encode_query(statistics).expand(len(models), -1)
        places, parts = space.encode_models(topology, functional), space.parts(topology, functional)
        predicted = space.predict(query, places, *parts, space.trust(statistics))
        blind = scores_on_other_tasks(data, queries, models)
        prior = (parts[0] + parts[1]).double().cpu().numpy()
        orders.append(Order(predicted.double().cpu().numpy(), np.array(tuned), np.array(probed), blind, prior))
    return orders


def worth_of_fit(orders: Sequence[Order]) -> float:
    """Return what the fit is worth on sources that a space never saw, 0..1: on those it did see, it knows some by heart.

    Least squares of what came out beside the prior on the fit, in deviations inside each task; 1 where nothing tells.
    """
    fits = [order.predicted - order.prior for order in orders]
    told = [fit - fit.mean() for fit in fits]
    left = [deviations(one.tuned) - (one.prior - one.prior.mean()) for one in orders]
    size = sum(float(fit @ fit) for fit in told)
    if size < 1e-9:
        return 1.0
    return float(np.clip(sum(float(fit @ rest) for fit, rest in zip(told, left, strict=True)) / size, 0, 1))


def scores_on_other_tasks(data: SpaceData, queries: Sequence[int], models: Sequence[int]) -> Floats:
    """Return what one would rank networks by without a look at the data: how those that are built alike did on the other tasks.

    The mean of trials, in deviations inside their task, of the nearest topology codes; a network's own and those of its very
    architecture come first. Networks of no task, of whose weights there is one set, count for themselves alone.

    Args:
        data: with trials on other tasks than the queries.
        queries: tasks that must not tell.
        models: (n,) networks.

    Returns:
        (n,) float64.
    """
    trials = data.tuned.where(~torch.isin(data.tuned.task, torch.tensor(list(queries))))
    if len(trials.task) == 0:
        return np.zeros(len(models))
    codes = (data.topology - data.topology.mean(dim=0)) / data.topology.std(dim=0).clamp_min(1e-6)
    alone = torch.where(data.home < 0, torch.arange(1, len(data.home) + 1), 0)[:, None] * _APART
    places = torch.cat([codes, alone], dim=1).double().numpy()
    rule = KNeighborsRegressor(min(_ALIKE, len(trials.task)), weights="distance")
    rule.fit(places[trials.model.numpy()], trials.scores().double().numpy())
    found: Floats = rule.predict(places[list(models)])
    return found


def measure_elsewhere(orders: Sequence[Order]) -> dict[str, float]:
    """Judge predicted orders.

    Returns:
        `weighted_tau`, `regret_at_1`, `regret_at_3`: means over the tasks (`order_quality`); the same with `other_tasks_` before:
        those of the list that is blind to the data; `spearman`: the mean over the tasks of the rank correlation inside a task;
        `spearman_across`: that of all tasks' scores together with what came out, in
        deviations inside its task, as scores are. All 0 where there is no order.
    """
    names = ("weighted_tau", "regret_at_1", "regret_at_3")
    if not orders:
        return dict.fromkeys((*names, *(f"other_tasks_{name}" for name in names), "spearman", "spearman_across"), 0.0)
    rows = [order_quality(order.predicted, order.tuned) for order in orders]
    blind = [order_quality(order.other_tasks, order.tuned) for order in orders if len(order.other_tasks)]
    predicted, found = [order.predicted for order in orders], [deviations(order.tuned) for order in orders]
    inside = prediction_quality(predicted, found)["spearman"]
    across = prediction_quality([np.concatenate(predicted)], [np.concatenate(found)])["spearman"]
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    means |= {
        f"other_tasks_{name}": float(np.mean([row[name] for row in blind or [dict.fromkeys(names, 0.0)]]))
        for name in names
    }
    return {**means, "spearman": inside, "spearman_across": across}


def measure_refined(folds: Sequence[Sequence[Order]]) -> dict[str, float]:
    """Judge the orders by predicted score and probe together, each fold with the weights that the others give.

    Args:
        folds: of whole sources, each judged by a space that never saw it.

    Returns:
        `refined_weighted_tau`, `refined_regret_at_1`, `refined_regret_at_3`: means over the tasks; 0 where fewer than two folds
        tell.
    """
    rows = []
    for index, fold in enumerate(folds):
        others = [order for rest in (*folds[:index], *folds[index + 1 :]) for order in rest]
        if others:
            worth = refine_weights(others)
            rows += [order_quality(refined_order(order, worth), order.tuned) for order in fold]
    names = ("weighted_tau", "regret_at_1", "regret_at_3")
    return {f"refined_{name}": float(np.mean([row[name] for row in rows])) if rows else 0.0 for name in names}


def refined_order(order: Order, worth: Mapping[str, float]) -> Floats:
    """Return scores of networks that were all probed, (n,) float64, with weights from `refine_weights`."""
    refined: Floats = worth["predicted"] * deviations(order.predicted) + worth["probe"] * deviations(order.probed)
    return refined


def calibration(folds: Sequence[Sequence[Order]]) -> dict[str, float]:
    """Hold predicted scores against what came out on unseen sources, in deviations inside a task.

    Args:
        folds: of whole sources, each judged by a space that never saw it.

    Returns:
        `slope`: of the truth on the prediction, both around their mean, 1 where a deviation predicted is a deviation found;
        `half_width`: of the interval around a prediction, as it is shown, that holds the truth four times in five; `coverage`:
        the share of each fold that an interval made so from the other folds holds, which ought to be .8. `slope` 1, `half_width`
        1.28 (a prediction that says nothing) and `coverage` 0.8 where fewer than two folds tell.
    """
    folds = [fold for fold in folds if fold]
    if len(folds) < 2:
        return {"slope": 1.0, "half_width": _UNKNOWN, "coverage": _HOLDS}
    orders = [order for fold in folds for order in fold]
    errors = [np.concatenate([np.abs(deviations(one.tuned) - one.predicted) for one in fold]) for fold in folds]
    others = [np.concatenate([*errors[:index], *errors[index + 1 :]]) for index in range(len(folds))]
    held = [own <= np.quantile(rest, _HOLDS) for own, rest in zip(errors, others, strict=True)]
    told = np.concatenate([order.predicted - order.predicted.mean() for order in orders])
    found = np.concatenate([deviations(order.tuned) for order in orders])
    return {
        "slope": float(told @ found / max(float(told @ told), 1e-12)),
        "half_width": float(np.quantile(np.concatenate(errors), _HOLDS)),
        "coverage": float(np.mean(np.concatenate(held))),
    }


def refine_weights(orders: Sequence[Order]) -> dict[str, float]:
    """Return what predicted scores and probes are worth together, and what a probe may be expected to be, on unseen sources.

    Non-negative least squares of the tuned accuracies on predicted score and probe, and of the probes on predicted scores; all in
    deviations inside their task (in the last, the predicted scores as they are). Each task counts the same.

    Returns:
        `predicted`, `probe` and `expected` (by how much the probe rises where the predicted score rises by one); all 1 where
        there is no trial to tell by.
    """
    columns = [np.stack([deviations(o.predicted), deviations(o.probed)], axis=1) / len(o.tuned) ** 0.5 for o in orders]
    targets = [deviations(order.tuned) / len(order.tuned) ** 0.5 for order in orders]
    if not columns:
        return {"predicted": 1.0, "probe": 1.0, "expected": 1.0}
    found, _ = nnls(np.concatenate(columns), np.concatenate(targets))
    told = np.concatenate([(o.predicted - o.predicted.mean()) / len(o.tuned) ** 0.5 for o in orders])
    expected, _ = nnls(told[:, None], np.concatenate(columns)[:, 1])
    return {"predicted": float(found[0]), "probe": float(found[1]), "expected": float(expected[0])}
