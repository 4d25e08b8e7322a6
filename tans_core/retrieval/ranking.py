"""In which order models answer, and how many of one home task.

Axes: N candidates, d space dimension.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tans_core.index.search import Index, Rows
from tans_core.retrieval.candidate import Candidate, Prefer
from tans_core.retrieval.encoding import QueryPlace
from tans_core.retrieval.limits import Fitting, by_row

Floats = npt.NDArray[np.floating]


def _cost(prefer: Prefer, timed: bool) -> str:
    """Return what networks cost: a number of the index and of candidates."""
    if prefer == "fast":
        return "latency_ms" if timed else "macs_m"
    return "params_m"


@dataclass(frozen=True)
class Search:
    """What is searched for, and among which models.

    Attributes:
        place: of the data set in the space.
        fitting: the models that satisfy the limits.
    """

    place: QueryPlace
    fitting: Fitting


@dataclass(frozen=True)
class Answer:
    """The models for a data set, best first, and what they were found by.

    Attributes:
        candidates: the chosen.
        search: that found them.
        pool: the best of all that were ranked, from which the candidates were chosen, and their places (N, d).
    """

    candidates: list[Candidate]
    search: Search
    pool: tuple[list[Candidate], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Choice:
    """How answers are chosen among candidates in the order of their scores.

    Attributes:
        top_k: candidates at most; None for all.
        prefer: `accurate` keeps the order; `small` and `fast` take the order of `frugal`.
        per_task: candidates of one home task at most; None for all.
    """

    top_k: int | None = None
    prefer: Prefer = "accurate"
    per_task: int | None = None

    @property
    def keeps_order(self) -> bool:
        """Whether the chosen are the first ones."""
        return self.prefer == "accurate" and self.per_task is None

    def of(self, scores: Floats, costs: Floats, homes: Sequence[str], tolerance: float) -> Rows:
        """Return the positions of the chosen, of N candidates, best first; scores, costs, homes are (N,)."""
        order = np.arange(len(scores)) if self.prefer == "accurate" else frugal(scores, costs, tolerance)
        return order[few_of_each([homes[position] for position in order], self.per_task)][: self.top_k]


@dataclass(frozen=True)
class Ranked:
    """Models that satisfy the constraints, best first, those of equal score by id.

    Attributes:
        index: all models.
        rows: (N,) of the index.
        predicted: (N,) predicted scores.
        latencies: by id.
    """

    index: Index
    rows: Rows
    predicted: npt.NDArray[np.float32]
    latencies: Mapping[str, float]

    def __getitem__(self, chosen: Rows | slice) -> Ranked:
        return replace(self, rows=self.rows[chosen], predicted=self.predicted[chosen])

    def chosen(self, choice: Choice, tolerance: float) -> Ranked:
        numbers, names = self.index.names("home_task")
        homes = [names[number] for number in numbers[self.rows]]
        return self[choice.of(self.predicted, self._costs(choice.prefer), homes, tolerance)]

    def _costs(self, prefer: Prefer) -> Floats:
        cost = _cost(prefer, bool(self.latencies))
        values = by_row(self.index, self.latencies) if cost == "latency_ms" else self.index.numbers(cost)
        return values[self.rows]

    def candidates(self, place: QueryPlace, plus_minus: float) -> list[Candidate]:
        """Return Python objects, in the same order, with the parts of their scores for a data set at a place."""
        capacity, start = self.index.capacity[self.rows], self.index.start[self.rows]
        numbers = {
            "similarity": self.index.vectors.numpy()[self.rows] @ place.vector,
            "capacity": capacity,
            "start": start,
            "fit": self.predicted - capacity - start,
            "predicted_score": self.predicted,
            "score": self.predicted,
        }
        columns = [values.astype(np.float64).tolist() for values in numbers.values()]
        found = self.index.rows(self.rows)
        return [
            Candidate(
                rank=rank,
                model=row["id"],
                home_task=row["home_task"],
                source=row["source"],
                licence=row["licence"],
                trust=place.trust,
                plus_minus=plus_minus,
                home_accuracy=row["val_accuracy"],
                params_m=row["params_m"],
                macs_m=row["macs_m"],
                latency_ms=self.latencies.get(row["id"]),
                **dict(zip(numbers, values, strict=True)),
            )
            for rank, (row, *values) in enumerate(zip(found, *columns, strict=True), start=1)
        ]


def chosen_again(candidates: Sequence[Candidate], choice: Choice) -> list[Candidate]:
    """Return the chosen of some candidates, which are in the order of their scores, with new ranks."""
    cost = _cost(choice.prefer, any(one.latency_ms is not None for one in candidates))
    scores, costs = (np.array([getattr(one, name) for one in candidates], np.float64) for name in ("score", cost))
    tolerance = max((one.plus_minus for one in candidates), default=0.0)
    order = choice.of(scores, costs, [one.home_task for one in candidates], tolerance)
    return [replace(candidates[position], rank=rank) for rank, position in enumerate(order, start=1)]


def frugal(scores: Floats, costs: Floats, tolerance: float) -> Rows:
    """Return the Pareto front of score against cost: the candidates that no other one equals or beats in both.

    Args:
        scores: (N,).
        costs: (N,), lower is better; candidates with NaN are left out.
        tolerance: candidates whose score is at most so much below the best count as equally good.

    Returns:
        Positions: those that count as equally good, cheapest first; then the others, best first.
    """
    order = np.lexsort((-scores, costs))
    order = order[~np.isnan(costs[order])]
    ordered = scores[order]
    reached = np.concatenate([[-np.inf], np.maximum.accumulate(ordered)[:-1]]) if len(ordered) else ordered
    # From cheap to dear, which is from a low score to a high one.
    front = order[ordered > reached]
    near = scores[front] >= scores[front].max(initial=-np.inf) - tolerance
    return np.concatenate([front[near], front[~near][::-1]])


def few_of_each(homes: Sequence[str], most: int | None) -> list[int]:
    """Return the positions of the first `most` candidates of each home task, in their order; None for all."""
    seen: Counter[str] = Counter()
    kept = []
    for position, home in enumerate(homes):
        seen[home] += 1
        if most is None or seen[home] <= most:
            kept.append(position)
    return kept
