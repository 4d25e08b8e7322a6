"""Quality of a space on networks and tasks that its training never saw.

Axes: Q queries, D tasks, M models, R rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import nnls
from sklearn.neighbors import KNeighborsRegressor

from tans_core.space.data import SpaceData
from tans_core.space.elsewhere import LEAST_NETWORKS
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.metrics import deviations, order_quality, prediction_quality
from tans_core.space.quality import ranks_of_own, recall, rounds_of_one

Floats = npt.NDArray[np.float64]
_NEIGHBOURS, _APART = 10, 1e6
_COVERAGE, _DEFAULT_HALF_WIDTH = 0.8, 1.28


@torch.no_grad()
def measure(
    space: CrossModalSpace, data: SpaceData, queries: Sequence[int], candidates: Sequence[int], heldout: bool
) -> dict[str, float]:
    """Rank own networks among one network of each candidate task, and compare predictions with results in each task.

    Queries are encoded from images that training does not see.

    Args:
        space: to be measured.
        data: all tasks and models.
        queries: tasks to retrieve for.
        candidates: tasks whose models are ranked; includes the queries.
        heldout: whether to use the held-out models, or those that training sees.

    Returns:
        `recall_at_1`, `recall_at_5`, `recall_at_10`, `mean_rank`, `median_rank`, `spearman`, `mae`.
    """
    device = space.fit_scale.device
    tasks = list(candidates)
    encoded_queries = space.encode_query(data.val_queries[tasks].to(device))  # (D, d)
    topology, functional = data.topology.to(device), data.functional.to(device)
    encoded = space.encode_models(topology, functional)  # (M, d)
    capacity, start = space.parts(topology, functional)  # (M,) each
    trust = space.trust(data.val_queries[tasks].to(device))  # (D,)
    column = torch.full((len(data.tasks),), -1)
    column[tasks] = torch.arange(len(tasks))
    # -1 for models of other tasks, and for those without a home.
    home = torch.where(data.home >= 0, column[data.home], -1)  # (M,)
    rounds = rounds_of_one(home, (home >= 0) & (data.heldout == heldout), len(tasks)).to(device)
    similarity = (encoded_queries @ encoded.T)[:, rounds].permute(1, 0, 2)  # (R, D, D)
    columns = column[list(queries)].to(device)
    retrieval = recall(ranks_of_own(similarity)[:, columns])
    predicted, actual = [], []
    for task, query, trusted in zip(queries, encoded_queries[columns], trust[columns], strict=True):
        members = data.members(task, heldout)
        own = members.to(device)
        scores = space.predict(query.expand(len(own), -1), encoded[own], capacity[own], start[own], trusted)
        predicted.append(scores.double().cpu().numpy())
        actual.append(data.score[members].double().numpy())
    return retrieval | prediction_quality(predicted, actual)


@dataclass(frozen=True)
class Order:
    """One task's networks of other sources: their predicted scores and their results.

    Attributes:
        predicted: (n,) float64 scores.
        tuned: (n,) float64, accuracies after a short fine-tuning, 0..1.
        probed: (n,) float64, probes of the same networks.
        other_tasks: (n,) float64, scores of similar architectures on other tasks: a baseline that ignores the data.
        prior: (n,) float64, the task-independent part of the prediction, capacity plus start; the rest is fit.
        task: number of the task.
        models: (n,) numbers of the networks.
    """

    predicted: Floats
    tuned: Floats
    probed: Floats
    other_tasks: Floats = field(default_factory=lambda: np.zeros(0))
    prior: Floats = field(default_factory=lambda: np.zeros(0))
    task: int = -1
    models: tuple[int, ...] = ()

    def with_fit(self, worth: float) -> Order:
        """Return the order with the fit multiplied by `worth`."""
        return replace(self, predicted=self.prior + worth * (self.predicted - self.prior))


@torch.no_grad()
def orders_elsewhere(space: CrossModalSpace, data: SpaceData, queries: Sequence[int]) -> list[Order]:
    """Predict the order of networks on tasks that are not their home.

    Networks of the query's own source are left out, as a fold leaves out whole sources.

    Args:
        space: to be measured.
        data: with trials on the queries; a task with fewer than four networks both tuned and probed is skipped.
        queries: tasks to predict for.

    Returns:
        One order for each task that is not skipped.
    """
    device = space.fit_scale.device
    probes = {(task, model): value for task, model, value in data.probed.rows()}
    orders = []
    for task in queries:
        tried = [
            (model, value, probes[task, model])
            for trial_task, model, value in data.tuned.rows()
            if trial_task == task and (task, model) in probes
            if not data.comes_from(model, task)
        ]
        if len(tried) < LEAST_NETWORKS:
            continue
        models, tuned, probed = zip(*tried, strict=True)
        topology, functional = data.topology[list(models)].to(device), data.functional[list(models)].to(device)
        statistics = data.queries[task][None].to(device)
        query = space.encode_query(statistics).expand(len(models), -1)
        encoded, parts = space.encode_models(topology, functional), space.parts(topology, functional)
        predicted = space.predict(query, encoded, *parts, space.trust(statistics))
        baseline = scores_on_other_tasks(data, queries, models)
        prior = (parts[0] + parts[1]).double().cpu().numpy()
        scores = predicted.double().cpu().numpy()
        orders.append(Order(scores, np.array(tuned), np.array(probed), baseline, prior, task, models))
    return orders


def worth_of_fit(orders: Sequence[Order]) -> float:
    """Return the best factor on the fit, 0..1, for sources that a space never saw: it overfits those that it saw.

    Least squares of the results less the prior on the fit, in deviations inside each task; 1 where no fit varies.
    """
    fits = [order.predicted - order.prior for order in orders]
    centred = [fit - fit.mean() for fit in fits]
    residuals = [deviations(order.tuned) - (order.prior - order.prior.mean()) for order in orders]
    size = sum(float(fit @ fit) for fit in centred)
    if size < 1e-9:
        return 1.0
    return float(np.clip(sum(float(fit @ rest) for fit, rest in zip(centred, residuals, strict=True)) / size, 0, 1))


def scores_on_other_tasks(data: SpaceData, queries: Sequence[int], models: Sequence[int]) -> Floats:
    """Return a baseline score that ignores the query's images: how similar architectures did on the other tasks.

    The mean of the trials of the nearest topology codes, in deviations inside their task; trials of the same
    architecture come first. A network without a home task has one set of weights only, and uses its own trials alone.

    Args:
        data: with trials on other tasks than the queries.
        queries: tasks whose trials are not used.
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
    regressor = KNeighborsRegressor(min(_NEIGHBOURS, len(trials.task)), weights="distance")
    regressor.fit(places[trials.model.numpy()], trials.scores().double().numpy())
    scores: Floats = regressor.predict(places[list(models)])
    return scores


def measure_elsewhere(orders: Sequence[Order]) -> dict[str, float]:
    """Compare predicted orders with results.

    Returns:
        `weighted_tau`, `regret_at_1`, `regret_at_3`: means over the tasks (`order_quality`); `other_tasks_` and the
        same names: of the baseline that ignores the data; `spearman`: mean over the tasks of the rank correlation
        inside a task; `spearman_across`: rank correlation over all tasks together, with results in deviations inside
        their task, as predicted scores are. All 0 where there is no order.
    """
    names = ("weighted_tau", "regret_at_1", "regret_at_3")
    if not orders:
        return dict.fromkeys((*names, *(f"other_tasks_{name}" for name in names), "spearman", "spearman_across"), 0.0)
    rows = [order_quality(order.predicted, order.tuned) for order in orders]
    baseline = [order_quality(order.other_tasks, order.tuned) for order in orders if len(order.other_tasks)]
    predicted, actual = [order.predicted for order in orders], [deviations(order.tuned) for order in orders]
    inside = prediction_quality(predicted, actual)["spearman"]
    across = prediction_quality([np.concatenate(predicted)], [np.concatenate(actual)])["spearman"]
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    means |= {
        f"other_tasks_{name}": float(np.mean([row[name] for row in baseline or [dict.fromkeys(names, 0.0)]]))
        for name in names
    }
    return {**means, "spearman": inside, "spearman_across": across}


def measure_refined(folds: Sequence[Sequence[Order]]) -> dict[str, float]:
    """Measure the orders by predicted score and probe together, each fold with weights from the other folds.

    Args:
        folds: of whole sources, each predicted by a space that never saw it.

    Returns:
        `refined_weighted_tau`, `refined_regret_at_1`, `refined_regret_at_3`: means over the tasks; 0 with fewer than
        two folds.
    """
    rows = []
    for index, fold in enumerate(folds):
        others = [order for rest in (*folds[:index], *folds[index + 1 :]) for order in rest]
        if others:
            weights = refine_weights(others)
            rows += [order_quality(refined_order(order, weights), order.tuned) for order in fold]
    names = ("weighted_tau", "regret_at_1", "regret_at_3")
    return {f"refined_{name}": float(np.mean([row[name] for row in rows])) if rows else 0.0 for name in names}


def refined_order(order: Order, weights: Mapping[str, float]) -> Floats:
    """Return scores of networks that were all probed, (n,) float64, with weights from `refine_weights`."""
    refined: Floats = weights["predicted"] * deviations(order.predicted) + weights["probe"] * deviations(order.probed)
    return refined


def calibration(folds: Sequence[Sequence[Order]]) -> dict[str, float]:
    """Compare predicted scores with results on unseen sources, in deviations inside a task.

    Args:
        folds: of whole sources, each predicted by a space that never saw it.

    Returns:
        `slope`: of results on predictions, both around their mean; 1 is ideal. `half_width`: of the interval around a
        prediction that contains 80% of the results. `coverage`: share of each fold's results inside an interval made in
        this way from the other folds; 0.8 is ideal. With fewer than two folds: `slope` 1, `half_width` 1.28 (that of a
        prediction without information), `coverage` 0.8.
    """
    folds = [fold for fold in folds if fold]
    if len(folds) < 2:
        return {"slope": 1.0, "half_width": _DEFAULT_HALF_WIDTH, "coverage": _COVERAGE}
    orders = [order for fold in folds for order in fold]
    errors = [np.concatenate([np.abs(deviations(one.tuned) - one.predicted) for one in fold]) for fold in folds]
    others = [np.concatenate([*errors[:index], *errors[index + 1 :]]) for index in range(len(folds))]
    inside = [own <= np.quantile(rest, _COVERAGE) for own, rest in zip(errors, others, strict=True)]
    predicted = np.concatenate([order.predicted - order.predicted.mean() for order in orders])
    actual = np.concatenate([deviations(order.tuned) for order in orders])
    return {
        "slope": float(predicted @ actual / max(float(predicted @ predicted), 1e-12)),
        "half_width": float(np.quantile(np.concatenate(errors), _COVERAGE)),
        "coverage": float(np.mean(np.concatenate(inside))),
    }


def refine_weights(orders: Sequence[Order]) -> dict[str, float]:
    """Fit on unseen sources the weights of predicted scores and probes, and the probe that a predicted score implies.

    Non-negative least squares of the tuned accuracies on predicted scores and probes, and of the probes on predicted
    scores. All are in deviations inside their task, but in the second fit predicted scores are only centred. Each task
    has the same weight.

    Returns:
        `predicted`, `probe` and `expected` (rise of the probe per unit of predicted score); all 1 without trials.
    """
    columns = [np.stack([deviations(o.predicted), deviations(o.probed)], axis=1) / len(o.tuned) ** 0.5 for o in orders]
    targets = [deviations(order.tuned) / len(order.tuned) ** 0.5 for order in orders]
    if not columns:
        return {"predicted": 1.0, "probe": 1.0, "expected": 1.0}
    weights, _ = nnls(np.concatenate(columns), np.concatenate(targets))
    centred = np.concatenate([(o.predicted - o.predicted.mean()) / len(o.tuned) ** 0.5 for o in orders])
    expected, _ = nnls(centred[:, None], np.concatenate(columns)[:, 1])
    return {"predicted": float(weights[0]), "probe": float(weights[1]), "expected": float(expected[0])}
