"""Fits the variants of an ablation in processes, and measures them on sources that they never saw."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from tans_core.evaluation.ablation import METRICS, Ranking, SeedMetrics, Study
from tans_core.io import read_json, sha256_bytes, write_json
from tans_core.runtime import begin_worker, derive_seed, progress
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.fit import fit_on, source_folds
from tans_core.space.measure import Order, measure, measure_elsewhere, orders_elsewhere
from tans_core.space.objective import SpaceRecipe
from tans_core.space.training import code_digest

_VERSION = 1


@dataclass(frozen=True)
class _Fit:
    """Inputs of fitting one seed of a variant; variants that differ in their ranking only share it."""

    recipe: SpaceRecipe
    data: bytes
    folds: int
    seed: int
    done: Path


def measure_variants(
    studies: Sequence[Study], folds: int, seeds: int, seed: int, jobs: int, done: Path
) -> dict[str, list[SeedMetrics]]:
    """Fit each variant once for each seed and fold of whole sources, and measure it on the sources left out.

    Args:
        studies: variants.
        folds: number of folds, of whole sources.
        seeds: how many; the n-th of each variant starts from the same random numbers.
        seed: from which they are derived.
        jobs: fits at a time, each in a process with one thread; the result does not depend on it.
        done: a folder for results, for the caller to remove when its outputs are written.

    Returns:
        By variant, one row a seed: `weighted_tau`, `regret_at_1`, `regret_at_3` (in points) of the order of networks of
        other sources, means over the tasks of all folds; `recall_at_1` of held-out networks of training tasks, mean
        over the folds.
    """
    fits: dict[tuple[str, int], _Fit] = {}
    keys: dict[str, str] = {}
    for study in studies:
        made_from = [_VERSION, code_digest(), asdict(study.recipe), study.data.digest(), folds, seed]
        keys[study.variant.name] = key = sha256_bytes(json.dumps(made_from).encode())[:32]
        if (key, 0) not in fits:
            # Pickled here, since tensors would be sent in shared memory, of which containers have little.
            packed = pickle.dumps(study.data)
            for number in range(seeds):
                path = done / f"{key}.{number}.json"
                fits[key, number] = _Fit(study.recipe, packed, folds, derive_seed(seed, "ablation", number), path)
    measured = dict(zip(fits, _measure_all(list(fits.values()), jobs), strict=True))
    return {
        study.variant.name: [
            measured[keys[study.variant.name], number][study.variant.ranking] for number in range(seeds)
        ]
        for study in studies
    }


def _measure_all(fits: Sequence[_Fit], jobs: int) -> list[dict[str, SeedMetrics]]:
    if jobs == 1:
        return [_measure_fit(fit) for fit in progress(fits, "fitting variants")]
    # Spawned, since threads of torch and Lance do not survive a fork.
    with ProcessPoolExecutor(min(jobs, len(fits)), get_context("spawn"), begin_worker) as pool:
        return list(progress(pool.map(_measure_fit, fits), "fitting variants", len(fits)))


def _measure_fit(fit: _Fit) -> dict[str, SeedMetrics]:
    """Return a row for every ranking; ranking is cheap compared with fitting."""
    if fit.done.is_file():
        stored: dict[str, SeedMetrics] = read_json(fit.done)
        return stored
    data = pickle.loads(fit.data)  # noqa: S301 (what this program packed)
    orders: dict[Ranking, list[Order]] = {ranking: [] for ranking in Ranking}
    recalls = []
    for number, unseen in enumerate(source_folds(data.sources, fit.folds)):
        seen = [task for task in range(len(data.tasks)) if task not in unseen]
        space, _ = fit_on(data, seen, fit.recipe, 0, derive_seed(fit.seed, "fold", number))
        recalls.append(measure(space, data, seen, seen, heldout=True)["recall_at_1"])
        for ranking in Ranking:
            orders[ranking] += orders_elsewhere(rank_by(space, ranking), data, unseen)
    recall = float(np.mean(recalls))
    measured = {str(ranking): measure_elsewhere(orders[ranking]) | {"recall_at_1": recall} for ranking in Ranking}
    rows = {ranking: {metric: row[metric] for metric in METRICS} for ranking, row in measured.items()}
    write_json(rows, fit.done)
    return rows


@torch.no_grad()
def rank_by(space: CrossModalSpace, ranking: Ranking) -> CrossModalSpace:
    """Return a copy of a space that predicts by similarity only, without trust, or as fitted."""
    changed = copy.deepcopy(space)
    if ranking is not Ranking.PREDICTED:
        # No task is far: trust is 1.
        changed.apart.fill_(float("inf"))
    if ranking is Ranking.SIMILARITY:
        for values in (*changed.prior.parameters(), changed.tried.weights):
            values.zero_()
        changed.fit_scale.fill_(1.0)
    return changed
