"""What explains an answer: the data set among tasks and networks, and a page with the reasons.

Axes: M networks, d space dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tans_core.errors import DataError, StoreError
from tans_core.evaluation.space_map import QUERY, Kind, Place, SpaceMap, map_answer
from tans_core.evaluation.space_points import read_tasks
from tans_core.retrieval.candidate import POOL
from tans_core.retrieval.constraints import Constraints
from tans_core.retrieval.query import Query
from tans_core.retrieval.ranking import Search
from tans_core.tasks.task import Task, read_task
from tans_core.views.answer_page import NearTask, write_answer_page

if TYPE_CHECKING:
    from tans_core.results import Retrieval
    from tans_core.retrieval.candidate import Candidate
    from tans_core.retrieval.retriever import Retriever

logger = logging.getLogger(__name__)

_TASKS = 4
_IMAGES = 8

Floats = npt.NDArray[np.float32]


class Explainer:
    """Explains the answers of one release.

    Attributes:
        retriever: of the release.
        data: the project's data, which the release was built from; releases have no tasks.
    """

    def __init__(self, retriever: Retriever, data: Path) -> None:
        self.retriever, self.data = retriever, data
        self._tasks: Mapping[str, Floats] | None = None

    @property
    def tasks(self) -> Mapping[str, Floats]:
        """The vector (d,) of each task of the space; none if the data are not here, or are those of another build."""
        if self._tasks is None:
            try:
                self._tasks = read_tasks(self.retriever.release, self.data / "store", self.retriever.space)
            except StoreError as error:
                logger.warning("a map without tasks: %s", error)
                self._tasks = {}
        return self._tasks

    def map_of(self, query: Query) -> SpaceMap:
        """Return the map of a query and the best networks for it.

        Raises:
            NoModelFitsError, DataError: as `Retriever.search`.
        """
        search = self.retriever.search(query)
        return self._map(search, *self.retriever.rank(search, POOL))

    def write_page(self, path: Path, found: Retrieval, limits: Constraints, task: Task | None) -> None:
        """Write the page of an answer. Nothing is computed from the images again.

        Args:
            path: of the page.
            found: the answer, with a pool, by `Service.retrieve`.
            limits: of the search.
            task: the data set, whose images are shown; None for a query.
        """
        answer = found.answer
        assert answer is not None
        pool, vectors = answer.pool
        mapped = self._map(answer.search, pool, vectors)
        write_answer_page(
            path,
            title="query" if task is None else task.info.name,
            found=found,
            limits=limits.in_words(),
            images=answer.search.place.images,
            own=[] if task is None else _samples(task),
            pool=pool,
            fitting=len(answer.search.fitting),
            mapped=mapped,
            nearest=[self._near(name, cosine, pool) for name, cosine in mapped.nearest[QUERY][:_TASKS]],
        )

    def _map(self, search: Search, candidates: Sequence[Candidate], vectors: Floats) -> SpaceMap:
        places = [Place(Kind.MODEL, one.model, one.home_task, one.source) for one in candidates]
        return map_answer(places, vectors, self.tasks, search.place.vector)

    def _near(self, name: str, cosine: float, pool: Sequence[Candidate]) -> NearTask:
        try:
            task = read_task(self.data / "tasks" / name)
        except (OSError, DataError):
            task = None
        homes = [one for one in pool if one.home_task == name]
        classes = () if task is None else task.info.class_names
        best = homes[0].model if homes else None
        return NearTask(name, cosine, classes, [] if task is None else _samples(task), best)


def _samples(task: Task) -> list[npt.NDArray[np.uint8]]:
    """Return some training images of a task, (3, s, s) each, of as many classes as possible."""
    members = task.where("train")
    labels = task.labels[members]
    first = {label: np.flatnonzero(labels == label) for label in dict.fromkeys(labels.tolist())}
    turns = [rows[turn] for turn in range(_IMAGES) for rows in first.values() if turn < len(rows)]
    return [task.images[int(members[row])] for row in turns[:_IMAGES]]
