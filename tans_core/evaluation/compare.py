"""Fine-tune several networks on one task under one budget.

A strategy is a way of choosing where to start; it may choose several networks (its draws). A network chosen by several
strategies is trained once for each of their seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tans_core.finetuning.fits import Budget, Contender, Fit, fit_once
from tans_core.runtime import progress
from tans_core.tasks.task import Task

__all__ = ["Budget", "Contender", "Fit", "FitRow", "compare"]


@dataclass(frozen=True)
class FitRow:
    """One fit as one strategy's draw. Several rows may share a fit."""

    task: str
    strategy: str
    draw: int
    seed: int
    label: str
    fit: Fit


def compare(
    task: Task,
    strategies: Mapping[str, Sequence[Contender]],
    *,
    seeds: Sequence[int],
    budget: Budget,
    resume: Path | None = None,
) -> list[FitRow]:
    """Fine-tune a network of every strategy on the task for each seed.

    All networks of one seed see the same batches in the same order. The draws of a strategy take turns at the seeds.

    Args:
        task: unseen by all of them.
        strategies: networks by strategy, one for each draw.
        seeds: of classifiers, fresh weights and batches.
        budget: the same for all.
        resume: folder where finished fits are kept; None keeps none.

    Returns:
        Rows ordered by strategy as given, draw, seed.
    """
    draws = [
        (strategy, draw, seed, contender)
        for strategy, contenders in strategies.items()
        for draw, contender in enumerate(contenders)
        # A strategy's draws take the seeds in turns, so that many draws cost no more than one.
        for turn, seed in enumerate(seeds)
        if draw % len(seeds) == turn % len(contenders)
    ]
    distinct = {
        (network.label, seed): network
        for _, _, seed, contender in draws
        for network in (contender._replace(or_else=()), *contender.or_else)
    }
    fits = {
        (label, seed): fit_once(contender, task, seed, budget, resume)
        for (label, seed), contender in progress(distinct.items(), f"{task.info.name}: fine-tuning", len(distinct))
    }
    rows = []
    for strategy, draw, seed, contender in draws:
        labels = [contender.label, *(network.label for network in contender.or_else)]
        best = max(labels, key=lambda label, seed=seed: fits[label, seed].best_val_accuracy)  # type: ignore[misc]
        rows.append(FitRow(task.info.name, strategy, draw, seed, best, fits[best, seed]))
    return rows
