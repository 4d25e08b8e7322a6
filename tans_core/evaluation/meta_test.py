"""The whole meta-test: on each unseen task, what TANS picks beside what else one could start from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tans_core.embeddings.store import FeatureRows
from tans_core.evaluation.compare import Budget, Row, compare
from tans_core.evaluation.strategies import Choice, line_up
from tans_core.index.releases import Release
from tans_core.retrieval.retriever import Candidate, Retriever
from tans_core.tasks.task import Task


@dataclass(frozen=True)
class Story:
    """What the report tells of one task.

    Attributes:
        task: with its images.
        candidates: what was retrieved, best first; the first is the picked one.
        choices: what each strategy started from, in the report's order.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Evaluation:
    """Everything that the meta-test found.

    Attributes:
        rows: of all tasks.
        stories: one a task, in the rows' order.
        budget: of every fit.
        seeds: how many.
        models: size of the zoo.
        home_tasks: how many tasks its models come from.
    """

    rows: tuple[Row, ...]
    stories: tuple[Story, ...]
    budget: Budget
    seeds: int
    models: int
    home_tasks: int


def meta_test(
    release: Release,
    tasks: Iterable[Task],
    *,
    budget: Budget,
    seeds: Sequence[int],
    random_draws: int,
    top_k: int,
    seed: int,
    resume: Path | None = None,
) -> Evaluation:
    """Compare the strategies on every task.

    Args:
        release: whose zoo and space are judged.
        tasks: unseen by them; read one at a time.
        budget: of every fit.
        seeds: of the fits.
        random_draws: models drawn by `random` on each task.
        top_k: candidates that the report shows.
        seed: of the random draws.
        resume: folder where finished fits are kept; None keeps none.

    Raises:
        StoreError, WeightsError: the release is not whole.
        TooFewImagesError: a task's split is empty.
    """
    retriever = Retriever.open(release)
    features = FeatureRows.read(release.store_dir)
    rows: list[Row] = []
    stories = []
    for task in tasks:
        line = line_up(retriever, features, task, random_draws=random_draws, top_k=top_k, seed=seed)
        rows += compare(task, line.contenders, seeds=seeds, budget=budget, resume=resume)
        stories.append(Story(task, line.candidates, line.choices))
    homes = {card.home_task for card in retriever.cards.values()}
    return Evaluation(tuple(rows), tuple(stories), budget, len(seeds), len(retriever.cards), len(homes))
