"""A model that was retrieved, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

LOW_TRUST = 0.5
"""Trust below which a reader is told that the data set lies far from all that the space learned from."""

REFINED = 8
"""Networks that are run on a data set before one of them is fine-tuned, where nothing else is asked for."""


@dataclass(frozen=True)
class Candidate:
    """A model that was retrieved, and why.

    Attributes:
        rank: from 1.
        model: its id.
        home_task, source, licence: where its weights come from.
        similarity: cosine between task and model in the space, -1..1.
        capacity: what its size and topology are worth on any task.
        start: what its weights are worth as a start on any task.
        fit: what they are worth on this task beyond that, as far as the space can be trusted here.
        trust: 0..1, how near the task is to those that the space learned from; far from all of them, the fit counts little.
        predicted_score: the three added up, in deviations around a task's mean model.
        plus_minus: half the width of the interval around it that held the truth four times in five on sources left out.
        score: what the ranking goes by: the predicted score, or, once some were probed, what `refined_scores` makes of all.
        home_accuracy: measured on the home task's validation split, 0..1; None for features of no single task.
        params_m, macs_m: costs in millions.
        probe: share of the labels' variance that its features explain on the user's images; None where it was not probed.
    """

    rank: int
    model: str
    home_task: str
    source: str
    licence: str
    similarity: float
    capacity: float
    start: float
    fit: float
    trust: float
    predicted_score: float
    plus_minus: float
    score: float
    home_accuracy: float | None
    params_m: float
    macs_m: float
    probe: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
