"""The rankings that `transfer.py` compares, and the tasks on which they are judged.

Axes: n networks of other sources, R seeds, S statistics of a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tans_core.published.fit import PublishedData
from tans_core.published.paper import PaperRecipe, PaperSpace, fit_paper, model_inputs
from tans_core.retrieval.candidate import REFINED
from tans_core.retrieval.refine import RefineWeights, refined_scores
from tans_core.runtime import derive_seed
from tans_core.space.data import SpaceData
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.measure import Order, calibration
from tans_core.space.metrics import deviations, order_quality

Floats = npt.NDArray[np.float64]
OURS = "tans"
REFINED_BY = f"tans, refined by {REFINED} probes"
Scores = Sequence[Mapping[str, Mapping[str, Floats]]]
"""Scores (n,) by seed of the spaces, then by task, then by ranking."""


@dataclass(frozen=True)
class Asked:
    """One judged task. Axes: n networks of other sources, R seeds.

    Attributes:
        name, source: of the task.
        unseen: whether it is a meta-test task.
        models: (n,) indices.
        truth: (n, R) accuracies, one column per seed.
        probed: (n,) probes.
        statistics: (S,) of its images.
    """

    name: str
    source: str
    unseen: bool
    models: npt.NDArray[np.int64]
    truth: Floats
    probed: Floats
    statistics: torch.Tensor


def paper_on(data: SpaceData, seen: Sequence[int], steps: int, seed: int) -> PaperSpace:
    """Train the published space on the tasks seen. Its input of a query is only the mean of the features."""
    width = (data.queries.shape[1] - 1) // 3
    new_index = {task: index for index, task in enumerate(seen)}
    models = torch.tensor([index for index, home in enumerate(data.home.tolist()) if home in new_index])
    home = torch.tensor([new_index[int(data.home[index])] for index in models])
    pooled = [
        [data.queries[task, None, :width] for task in seen],
        [data.val_queries[task, None, :width] for task in seen],
    ]
    names, sources = zip(*((data.tasks[task], data.sources[task]) for task in seen), strict=True)
    networks = (values[models] for values in (data.topology, data.functional, data.accuracy, data.params_m))
    zoo = PublishedData(names, sources, *networks, home, *map(tuple, pooled))
    return fit_paper(zoo, torch.zeros(len(home), dtype=torch.bool), PaperRecipe(steps=steps), seed)[0]


@torch.no_grad()
def rankings(
    one: Asked,
    data: SpaceData,
    seen: Sequence[int],
    space: CrossModalSpace,
    papers: Mapping[str, tuple[PaperSpace, SpaceData]],
    weights: dict[str, float],
    seed: int,
) -> dict[str, Floats]:
    """Score the networks of one task by every ranking; higher is better. Each of `papers` has its training data."""
    models = torch.from_numpy(one.models)
    topology, functional, home = data.topology[models], data.functional[models], data.home[models]
    statistics, width = one.statistics[None], (len(one.statistics) - 1) // 3
    query = space.encode_query(statistics)
    places, parts = space.encode_models(topology, functional), space.parts(topology, functional)
    ours = space.predict(query.expand_as(places), places, *parts, space.trust(statistics)).double().numpy()
    first = np.argsort(-ours, kind="stable")[:REFINED]
    refined = refined_scores(ours, places.numpy(), first, one.probed[first], RefineWeights(**weights))
    published: dict[str, Floats] = {}
    for name, (paper, known) in papers.items():
        encoded = paper.encode_query(statistics[:, :width])
        points = paper.encode_models(model_inputs(known.topology[models], known.functional[models]))
        published[f"{name}, similarity"] = (points @ encoded[0]).double().numpy()
        published[f"{name}, predictor"] = paper.predict(encoded.expand_as(points), points).double().numpy()
    params_m = deviations(data.params_m[models].double().log().numpy())
    pooled = data.queries[list(seen), :width]
    centred = torch.nn.functional.normalize(data.queries[:, :width] - pooled.mean(dim=0), dim=1)
    own = torch.nn.functional.normalize(statistics[:, :width] - pooled.mean(dim=0), dim=1)
    near = torch.where(home >= 0, centred[home] @ own[0], 0.0).double().numpy()
    return {
        "chance": np.random.default_rng(derive_seed(seed, "chance", one.name)).normal(size=len(models)),
        "accuracy at home": data.accuracy[models].double().numpy(),
        **published,
        "nearest task": near,
        "transfer mean": transfer_mean(data, seen, home),
        "most parameters": params_m,
        "nearest + transfer + parameters": deviations(near) + deviations(transfer_mean(data, seen, home)) + params_m,
        OURS: ours,
        "tans, capacity alone": parts[0].double().numpy(),
        REFINED_BY: refined,
        "probe of every network": one.probed,
        "probe of every network + parameters": deviations(one.probed) + params_m,
        "tans + probe of every network": weights["predicted"] * deviations(ours)
        + weights["probe"] * deviations(one.probed),
    }


def transfer_mean(data: SpaceData, seen: Sequence[int], home: torch.Tensor) -> Floats:
    """Return the mean score on the other tasks seen of the networks of each home, or of none, in deviations, (n,)."""
    usable = torch.isin(data.tuned.task, torch.tensor(list(seen)))
    homes = data.home[data.tuned.model]
    usable &= torch.isin(homes, torch.tensor(list(seen))) | (homes < 0)
    trials = data.tuned.where(usable)
    homes, scores = data.home[trials.model], trials.scores()
    means = [float(scores[homes == h].mean()) if bool((homes == h).any()) else 0.0 for h in home]
    return np.array(means)


def qualities(scores: Scores, members: Sequence[Asked]) -> dict[str, dict[str, Floats]]:
    """Judge every ranking on each task by the mean of the truth's seeds: (seeds, tasks) by ranking and figure."""
    found = {}
    for name in scores[0][members[0].name]:
        rows = [[order_quality(seed[o.name][name], o.truth.mean(axis=1)) for o in members] for seed in scores]
        found[name] = {key: np.array([[row[key] for row in seed] for seed in rows]) for key in rows[0][0]}
    return found


def judge_rankings(scores: Scores, groups: Mapping[str, Sequence[Asked]]) -> dict[str, Any]:
    """Judge every ranking on groups of tasks.

    Returns:
        `table`: for each ranking, group and figure, mean and standard deviation over the seeds of the mean over tasks.
        `margins`: how far `tans`, refined and not, is ahead of each other ranking in weighted tau. It is the mean over
        the sources of the mean over their tasks, with its standard error over the sources.
        `calibration`: of the scores of `tans`, by group of at least two sources. Mean and standard deviation over the
        seeds of what `tans_core.space.measure.calibration` returns; each source is a fold.
    """
    table: dict[str, Any] = {}
    margins: dict[str, Any] = {OURS: {}, REFINED_BY: {}}
    calibrated: dict[str, Any] = {}
    for group, members in groups.items():
        found = qualities(scores, members)
        for name, figures in found.items():
            means = {key: values.mean(axis=1) for key, values in figures.items()}
            table.setdefault(name, {})[group] = {
                key: {"mean": float(of.mean()), "std": float(of.std(ddof=1))} for key, of in means.items()
            }
        table.setdefault("another seed of the truth", {})[group] = ceiling(members)
        taus = {name: figures["weighted_tau"].mean(axis=0) for name, figures in found.items()}
        # Tasks of one source share the space, and much else.
        sources = [
            [i for i, o in enumerate(members) if o.source == name] for name in sorted({o.source for o in members})
        ]
        if len(sources) > 1:
            calibrated[group] = calibration_by_source(scores, members, sources)
        for ours, rows in margins.items():
            for name in (other for other in taus if other != ours):
                ahead = np.array([(taus[ours] - taus[name])[tasks].mean() for tasks in sources])
                error = float(ahead.std(ddof=1)) / len(ahead) ** 0.5 if len(ahead) > 1 else None
                rows.setdefault(name, {})[group] = {"mean": float(ahead.mean()), "error": error}
    return {"table": table, "margins": margins, "calibration": calibrated}


def calibration_by_source(
    scores: Scores, members: Sequence[Asked], sources: Sequence[Sequence[int]]
) -> dict[str, dict[str, float]]:
    """Calibrate the scores of `tans`, once per seed: the interval for a source comes from the other sources."""
    found = []
    for seed in scores:
        orders = [Order(seed[o.name][OURS], o.truth.mean(axis=1), o.probed) for o in members]
        found.append(calibration([[orders[task] for task in tasks] for tasks in sources]))
    values = {key: np.array([row[key] for row in found]) for key in found[0]}
    return {key: {"mean": float(of.mean()), "std": float(of.std(ddof=1))} for key, of in values.items()}


def ceiling(members: Sequence[Asked]) -> dict[str, Any]:
    """Judge one seed's order by the mean of the others: a perfect prediction of a single fine-tuning reaches this."""
    rows = [
        order_quality(one.truth[:, seed], np.delete(one.truth, seed, axis=1).mean(axis=1))
        for one in members
        for seed in range(one.truth.shape[1])
    ]
    return {key: {"mean": float(np.mean([row[key] for row in rows])), "std": 0.0} for key in rows[0]}
