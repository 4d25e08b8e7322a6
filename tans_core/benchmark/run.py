"""Runs the benchmark on a built project, and writes its record, its page and its raw figures."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tans_core.benchmark.judge import judge
from tans_core.benchmark.orders import Judged, judge_pool, judge_trials, trial_pairs
from tans_core.benchmark.page import draw_curves, render_page
from tans_core.benchmark.pool import Scored, Setting, Trial, choose_pool, fine_tune, score_networks
from tans_core.embeddings.store import FeatureRows
from tans_core.errors import ParamsError, StoreError
from tans_core.evaluation.plots import to_png
from tans_core.evaluation.strategies import as_published
from tans_core.finetuning.fits import Fit
from tans_core.index.releases import open_pipeline
from tans_core.io import atomic_path, write_csv, write_json, write_text
from tans_core.retrieval.retriever import Retriever
from tans_core.space.data import SpaceData
from tans_core.tasks.task import read_task
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import Base

LEAST_POOL = 4


@dataclass(frozen=True)
class Benchmark:
    """What came of a run: the record, and what it was computed from."""

    record: dict[str, Any]
    pool: list[Judged]
    trials: list[Judged]
    fits: Mapping[Trial, Fit]


def run_benchmark(
    setting: Setting, data: SpaceData, tasks: Sequence[str], networks: int, seeds: Sequence[int], jobs: int
) -> Benchmark:
    """Judge all rankings on unseen tasks by fine-tuning a pool of networks, and on other tasks by the build's trials.

    Args:
        setting: of all work.
        data: what the space was trained on.
        tasks: names of unseen tasks; may be empty, and then only the build's trials judge.
        networks: size of the pool.
        seeds: of the fine-tunings; the first one also of the pool.
        jobs: processes.

    Raises:
        ParamsError: too few networks were fine-tuned on each task before the time was over.
        StoreError: no unseen task is asked for, and the build has too few trials.
    """
    retriever = Retriever.open(open_pipeline(setting.data.parent))
    cards, seed = retriever.cards, seeds[0]
    base = Base.open(retriever.release.base_dir)
    published = as_published(base, cards.values())
    pool = choose_pool(cards.values(), networks, seed)
    trials = [Trial(task, card.id, number) for number in seeds for card in pool for task in tasks]
    fits = fine_tune(setting, trials, cards, jobs)
    names = list(dict.fromkeys((trial.task, trial.model) for trial in fits))
    of_trials = [pair for pair in trial_pairs(retriever.release.space_dir) if pair[1] in cards]
    scored: dict[tuple[str, str], Scored] = score_networks(setting, [*names, *of_trials], cards, jobs)
    # The time may be over before all networks are fine-tuned and scored: a task is judged on those that are.
    used = {trial: fit for trial, fit in fits.items() if (trial.task, trial.model) in scored}
    by_task: dict[str, dict[str, list[Fit]]] = {}
    for trial, fit in used.items():
        by_task.setdefault(trial.task, {}).setdefault(trial.model, []).append(fit)
    by_task = {task: by_model for task, by_model in by_task.items() if len(by_model) >= LEAST_POOL}
    if tasks and not by_task:
        raise ParamsError(
            f"fewer than {LEAST_POOL} networks were fine-tuned on each task before the time was over. "
            "Run `tans benchmark` again with more --minutes: it goes on where it ended."
        )
    read = [read_task(setting.data / "tasks" / task) for task in by_task]
    judged = judge_pool(retriever, data, read, by_task, scored, published) if by_task else []
    features = FeatureRows.read(retriever.release.store_dir)
    by_trials = judge_trials(retriever.release.space_dir, data, cards, features, scored, published)
    if not judged and not by_trials:
        raise StoreError(
            f"{retriever.release.space_dir}: no task has {LEAST_POOL} trials that were scored. "
            "Give --networks, or more --minutes, or raise transfer.networks_per_task in params.yaml."
        )
    used = {trial: fit for trial, fit in used.items() if trial.task in by_task}
    record: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        },
        "images": setting.images,
        "zoo": len(cards),
    }
    if judged:
        record["unseen"] = {
            **_count(judged, cards),
            "tasks": len(judged),
            "seeds": len(seeds),
            "steps": setting.budget.steps,
            "fits": len(used),
            "fit_seconds": float(sum(fit.seconds for fit in used.values())),
            "between_seeds": _between_seeds(used),
            **judge(judged),
        }
    if by_trials:
        counts = [len(one.models) for one in by_trials]
        rows = {"tasks": len(by_trials), "networks": float(np.mean(counts)), "trials": sum(counts)}
        record["trials"] = {**rows, **judge(by_trials)}
        del record["trials"]["speed"]
    return Benchmark(record, judged, by_trials, used)


def write_benchmark(result: Benchmark, root: Path) -> list[Path]:
    """Write the record, the page, and raw figures: each fine-tuning, each network's score by each ranking."""
    record, page, picture = (
        root / name for name in ("metrics/benchmark.json", "reports/benchmark.html", "plots/benchmark.png")
    )
    fits_file, scores_file = root / "reports/benchmark-fits.csv", root / "reports/benchmark-scores.csv"
    write_json(result.record, record)
    write_text(render_page(result.record, result.pool), page)
    fits = [
        {**trial._asdict(), "step": point["step"], "val_accuracy": point["val_accuracy"], "test_accuracy": test}
        for trial, fit in result.fits.items()
        for point, test in zip(fit.curve, [*[None] * (len(fit.curve) - 1), fit.test_accuracy], strict=True)
    ]
    write_csv(fits, fits_file)
    rows = [
        {"judged_by": kind, "task": one.task, "model": model, "truth": one.truth[index]}
        | {name: scores[index] for name, scores in one.orders.items()}
        for kind, judged in (("fine-tuned pool", result.pool), ("trials of the zoo", result.trials))
        for one in judged
        for index, model in enumerate(one.models)
    ]
    write_csv(rows, scores_file)
    files = [record, page, fits_file, scores_file]
    if result.pool:
        with atomic_path(picture) as temporary:
            temporary.write_bytes(to_png(draw_curves(result.pool)))
        files.append(picture)
    return files


def _count(judged: Sequence[Judged], cards: Mapping[str, ModelCard]) -> dict[str, Any]:
    every = [cards[model] for one in judged for model in one.models]
    return {
        "networks": len(every) / len(judged),
        "families": len({card.family for card in every}),
        "without_classifier": sum(card.general for card in every) / len(judged),
    }


def _between_seeds(fits: Mapping[Trial, Fit]) -> float | None:
    groups: dict[tuple[str, str], list[float]] = {}
    for trial, fit in fits.items():
        groups.setdefault((trial.task, trial.model), []).append(fit.test_accuracy)
    spreads = [abs(one - other) for group in groups.values() for i, one in enumerate(group) for other in group[:i]]
    return float(np.mean(spreads)) if spreads else None
