"""A retrieved model with its scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

LOW_TRUST = 0.5
"""Trust below which a warning says that the data set is far from all training tasks of the space."""

Prefer = Literal["accurate", "small", "fast"]

POOL = 500
"""Networks that explain an answer on a map and in a plot: the best ones."""

REFINED = 8
"""Default number of networks that are run on a data set before one of them is fine-tuned."""


@dataclass(frozen=True)
class Candidate:
    """A retrieved model with its scores.

    Attributes:
        rank: from 1.
        model: its id.
        home_task, source, licence: where its weights come from.
        similarity: cosine between task and model in the space, -1..1.
        capacity: score of its size and topology on any task.
        start: score of its weights as a start on any task.
        fit: additional score of its weights on this task, weighted by trust.
        trust: 0..1, how near the task is to the training tasks of the space; a low trust reduces the fit.
        predicted_score: sum of capacity, start and fit, in standard deviations around a task's mean model.
        plus_minus: half the width of an interval around it that contained 80% of the results on sources left out.
        score: the ranking's score: the predicted score, or `refined_scores` once some models were probed.
        home_accuracy: on the home task's validation split, 0..1; None for general features.
        params_m, macs_m: parameters and multiply-accumulates of one image, in millions.
        latency_ms: median time for a batch under the profile of the limits, in milliseconds; None without such a limit.
        probe: share of the labels' variance that its features explain on the user's images; None if not probed.
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
    latency_ms: float | None = None
    probe: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
