"""The meta-test: on each unseen task, the network that TANS picks against other ways to start."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tans_core.embeddings.store import FeatureRows
from tans_core.evaluation.compare import Budget, FitRow, compare
from tans_core.evaluation.strategies import Choice, line_up
from tans_core.index.release import Release
from tans_core.retrieval.retriever import Candidate, Retriever
from tans_core.runtime import begin_worker, progress
from tans_core.tasks.task import Task


@dataclass(frozen=True)
class Story:
    """Data of the report on one task.

    Attributes:
        task: with its images.
        candidates: retrieved models, best first; the first is the picked one.
        choices: start of each strategy, in the report's order.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Evaluation:
    """All results of the meta-test.

    Attributes:
        rows: of all tasks.
        stories: one for each task, in the rows' order.
        budget: of every fit.
        seeds: how many.
        models: size of the zoo.
        home_tasks: number of home tasks of its models.
    """

    rows: tuple[FitRow, ...]
    stories: tuple[Story, ...]
    budget: Budget
    seeds: int
    models: int
    home_tasks: int


def meta_test(
    release: Release,
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    budget: Budget,
    seeds: Sequence[int],
    random_draws: int,
    longer: int,
    top_k: int,
    seed: int,
    resume: Path | None = None,
) -> Evaluation:
    """Compare the strategies on every task.

    Args:
        release: whose zoo and space are evaluated.
        tasks: unseen by them.
        jobs: tasks at a time, each in a process with one thread; the results do not depend on it.
        budget: of every fit.
        seeds: of the fits.
        random_draws: models drawn by `random` on each task.
        longer: factor on the steps of `imagenet-long`; 0 leaves it out.
        top_k: candidates in the report.
        seed: of the random draws.
        resume: folder where finished fits are kept; None keeps none.

    Raises:
        StoreError, WeightsError: the release is incomplete or damaged.
        TooFewImagesError: a task's split is empty.
    """
    work = partial(
        _one_task,
        release,
        budget=budget,
        seeds=tuple(seeds),
        random_draws=random_draws,
        longer=longer,
        top_k=top_k,
        seed=seed,
        resume=resume,
    )
    if jobs == 1:
        results = [work(task) for task in tasks]
    else:
        # Spawned, since threads of torch and Lance do not survive a fork.
        with ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), begin_worker) as pool:
            results = list(progress(pool.map(work, tasks), "meta-test tasks", len(tasks)))
    cards = Retriever.open(release).cards
    homes = {card.home_task for card in cards.values() if not card.general}
    rows = tuple(row for task_rows, _ in results for row in task_rows)
    stories = tuple(story for _, story in results)
    return Evaluation(rows, stories, budget, len(seeds), len(cards), len(homes))


def _one_task(
    release: Release,
    task: Task,
    *,
    budget: Budget,
    seeds: Sequence[int],
    random_draws: int,
    longer: int,
    top_k: int,
    seed: int,
    resume: Path | None,
) -> tuple[list[FitRow], Story]:
    retriever, features = Retriever.open(release), FeatureRows.read(release.store_dir)
    line = line_up(retriever, features, task, random_draws=random_draws, longer=longer, top_k=top_k, seed=seed)
    rows = compare(task, line.contenders, seeds=seeds, budget=budget, resume=resume)
    return rows, Story(task, line.candidates, line.choices)
