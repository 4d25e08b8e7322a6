"""Judges rankings by real fine-tunings. Accuracies are 0..1, regrets in points. Axes: n networks, T tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from tans_core.benchmark.orders import IMAGENET, OURS, REFINED_OURS, Floats, Judged
from tans_core.space.metrics import order_quality

RANDOM = "random"
_TIE = 1e-9
_EARLY = 0.2


def judge(tasks: Sequence[Judged]) -> dict[str, Any]:
    """Judge every ranking.

    Args:
        tasks: T, each with the same networks or its own.

    Returns:
        - `rankings.<ranking>`: means over the tasks: `accuracy` of the first, `regret_at_1`, `regret_at_3`,
          `weighted_tau` (None where there is no order), `forward_passes` of networks to be ranked and `seconds`, a
          task; `defined`, the share of networks that have a score; `tasks`, those where the ranking is possible.
        - `by_task.<task>.<ranking>`: the same of one task.
        - `against.<ours>.<ranking>`: regret@1 of the other less ours: `mean`, tasks `won`, `lost` and `tied`, and `p`
          of a two-sided Wilcoxon signed-rank test over the tasks (1 where no task differs).
        - `speed.<ranking>`: where curves are known, see `_speed`.
    """
    by_task = {one.task: figures(one) for one in tasks}
    names = list(dict.fromkeys(name for rows in by_task.values() for name in rows))
    complete = [name for name in names if all(name in rows for rows in by_task.values())]
    against = {
        ours: {other: _paired(by_task, ours, other) for other in complete if other != ours}
        for ours in (OURS, REFINED_OURS)
    }
    return {
        "rankings": {name: _mean([rows[name] for rows in by_task.values() if name in rows]) for name in names},
        "by_task": by_task,
        "against": against,
        "speed": _speed(tasks, complete),
    }


def figures(one: Judged) -> dict[str, dict[str, float | None]]:
    """Judge every ranking of one task, the random order and the ImageNet network among them."""
    rows: dict[str, dict[str, float | None]] = {}
    for name, scores in one.orders.items():
        defined = np.isfinite(scores)
        cost = {"forward_passes": float(one.passes[name]), "seconds": float(one.seconds[name])}
        if defined.sum() < 2:
            continue
        # A user picks from all networks, so those without a score come last; the order of the others is judged.
        filled = np.where(defined, scores, np.min(scores[defined]) - 1)
        quality = order_quality(filled, one.truth)
        quality["weighted_tau"] = order_quality(scores[defined], one.truth[defined])["weighted_tau"]
        rows[name] = {"accuracy": _first(filled, one.truth), **quality, **cost, "defined": float(defined.mean())}
    free: dict[str, float | None] = {"forward_passes": 0.0, "seconds": 0.0, "defined": 1.0}
    rows[RANDOM] = {"accuracy": float(one.truth.mean()), **random_quality(one.truth), **free}
    if one.imagenet:
        pick = pick_of(one, IMAGENET)
        regret = 100 * float(one.truth.max() - one.truth[pick])
        missing: dict[str, float | None] = {"regret_at_3": None, "weighted_tau": None}
        rows[IMAGENET] = {"accuracy": float(one.truth[pick]), "regret_at_1": regret, **missing, **free}
    return rows


def random_quality(truth: Floats) -> dict[str, float]:
    """Return the expected `order_quality` of a random order of networks with these accuracies (n,)."""
    worst_first, regrets = np.sort(truth), {}
    for k in (1, 3):
        first = min(k, len(truth))
        # The best of the first k is the one with j worse ones, if the others are among these.
        chances = [math.comb(j, first - 1) / math.comb(len(truth), first) for j in range(len(truth))]
        regrets[f"regret_at_{k}"] = 100 * float(worst_first[-1] - worst_first @ np.array(chances))
    return {"weighted_tau": 0.0, **regrets}


def pick_of(one: Judged, ranking: str) -> int:
    """Return the network that a ranking takes; of several published ones, the best on validation."""
    if ranking == IMAGENET:
        by = one.validation if len(one.validation) else one.truth
        return max(one.imagenet, key=lambda index: float(by[index]))
    scores = one.orders[ranking]
    return int(np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")[0])


def _first(scores: Floats, truth: Floats) -> float:
    return float(truth[np.argsort(-scores, kind="stable")[0]])


def _mean(rows: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {"tasks": len(rows)}
    for key in rows[0]:
        values = [row[key] for row in rows]
        means[key] = None if None in values else float(np.mean(np.array(values, dtype=np.float64)))
    return means


def _paired(by_task: dict[str, dict[str, dict[str, Any]]], ours: str, other: str) -> dict[str, float]:
    gains = np.array([rows[other]["regret_at_1"] - rows[ours]["regret_at_1"] for rows in by_task.values()])
    gains[np.abs(gains) < _TIE] = 0.0
    return {
        "mean": float(gains.mean()),
        "won": int((gains > 0).sum()),
        "lost": int((gains < 0).sum()),
        "tied": int((gains == 0).sum()),
        "p": float(wilcoxon(gains).pvalue) if gains.any() else 1.0,
    }


def _speed(tasks: Sequence[Judged], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Measure how soon each pick is as good as the ImageNet network at the end, on validation.

    Returns:
        By ranking: `share`, of the steps until then, mean over the tasks (1 where it never is); `reached`, on how many
        tasks it is; `early`, on how many it is after a fifth of the steps.
    """
    judged = [one for one in tasks if one.curves is not None and one.imagenet]
    speeds = {}
    for name in names if judged else ():
        if name == RANDOM:
            continue
        shares = []
        for one in judged:
            assert one.curves is not None
            steps, curves = one.curves
            target = curves[pick_of(one, IMAGENET)][-1]
            reached = np.flatnonzero(curves[pick_of(one, name)] >= target - _TIE)
            shares.append(steps[reached[0]] / steps[-1] if len(reached) else np.inf)
        found = np.array(shares)
        speeds[name] = {
            "share": float(np.minimum(found, 1.0).mean()),
            "reached": int(np.isfinite(found).sum()),
            "early": int((found <= _EARLY + _TIE).sum()),
        }
    return speeds
