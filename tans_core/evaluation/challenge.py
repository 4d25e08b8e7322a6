"""Champion and challenger: may a new space replace the one in production?

Both are compared on tasks whose sources they never saw: each kept its predicted scores there, and the accuracies of the
networks after a short fine-tuning (`tans_core.space.elsewhere`). On networks that both know, both orders are measured
by the challenger's results. If too few networks are the same, each order is measured on its own networks, and regret
counts from the best network of either, so that a zoo of worse networks does not pass for a better order.

The rule, in this order:

1. Refused as worse: mean weighted tau fell by more than `margin`, mean regret@1 rose by more than `regret_margin`, or
   recall@1 of networks held out fell by more than `recall_margin`.
2. Published as better: mean weighted tau rose by more than `margin`, or mean regret@1 fell by more than
   `regret_margin`; and a one-sided Wilcoxon signed-rank test over the tasks gives p < 1 - `confidence`.
3. Published as larger: it knows more networks or tasks than the champion.
4. Refused: no better, and no larger.

If either has no predictions of this kind, only recall can be worse; what is not worse is published. Recall is compared
where the numbers of tasks differ by at most a quarter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from tans_core.errors import StoreError
from tans_core.io import read_json
from tans_core.space.elsewhere import ELSEWHERE_FILE, LEAST_NETWORKS, Prediction, read_predictions
from tans_core.space.metrics import order_quality

logger = logging.getLogger(__name__)
TAU, REGRET, REGRET_3, RECALL = "weighted_tau", "regret_at_1", "regret_at_3", "heldout_recall_at_1"
LABELS = {
    TAU: "weighted tau",
    REGRET: "regret@1, points",
    REGRET_3: "regret@3, points",
    RECALL: "recall@1, networks held out",
}
_DIGITS = {TAU: 3, RECALL: 2, REGRET: 1, REGRET_3: 1}


def shown(name: str, value: float) -> str:
    """Return the value of a measure as text."""
    return f"{value:.{_DIGITS[name]}f}"


@dataclass(frozen=True)
class Rule:
    """What counts as better or worse.

    Attributes:
        margin: of mean weighted tau.
        regret_margin: of mean regret@1, in points.
        recall_margin: of recall@1 of networks held out, 0..1.
        confidence: that the test over tasks must reach, below 1.
    """

    margin: float
    regret_margin: float
    recall_margin: float
    confidence: float

    def allows(self, name: str) -> float:
        """Return by how much a measure may be worse; infinite for one that is only shown."""
        return {TAU: self.margin, REGRET: self.regret_margin, RECALL: self.recall_margin}.get(name, float("inf"))


@dataclass(frozen=True)
class Contender:
    """One side of the comparison.

    Attributes:
        space: the folder of its space.
        networks: for each network that it serves, by id, a fingerprint that is equal for equal weights.
    """

    space: Path
    networks: Mapping[str, str]


@dataclass(frozen=True)
class Measure:
    """One figure of both sides. `p`: of the test that the challenger is better; None where nothing is tested."""

    name: str
    champion: float
    challenger: float
    p: float | None = None

    @property
    def difference(self) -> float:
        return self.challenger - self.champion

    @property
    def gain(self) -> float:
        """How much better the challenger is: less regret, or more of anything else."""
        return -self.difference if self.name in (REGRET, REGRET_3) else self.difference

    def in_words(self) -> str:
        """Return the change, such as `weighted tau fell from 0.690 to 0.310`."""
        what, _, unit = LABELS[self.name].partition(", ")
        before, after = (shown(self.name, value) for value in (self.champion, self.challenger))
        change = f"{'rose' if self.difference > 0 else 'fell'} from {before} to {after}"
        tail = {"points": " points", "": ""}.get(unit, f" ({unit})")
        return f"{what} {change if before != after else f'stayed at {after}'}{tail}"


@dataclass(frozen=True)
class TaskResult:
    """Both orders on one task.

    Attributes:
        task: its name.
        networks: how many the challenger ordered.
        champion, challenger: `weighted_tau`, `regret_at_1`, `regret_at_3`.
    """

    task: str
    networks: int
    champion: Mapping[str, float]
    challenger: Mapping[str, float]


@dataclass(frozen=True)
class Decision:
    """What came of a comparison.

    Attributes:
        publish: whether the challenger may replace the champion.
        reason: why, in one sentence.
        basis: what was compared.
        measures: means over the tasks, and recall; empty where nothing could be compared.
        tasks: one row for each task.
    """

    publish: bool
    reason: str
    basis: str
    measures: tuple[Measure, ...]
    tasks: tuple[TaskResult, ...]


def judge_challenger(champion: Contender, challenger: Contender, rule: Rule) -> Decision:
    """Compare two spaces, and decide by the rule in this module's docstring.

    Raises:
        StoreError: `elsewhere.json` of the challenger is damaged.
    """
    tasks, basis = _compare(champion, challenger)
    measures = [_measure(name, tasks) for name in (TAU, REGRET, REGRET_3) if tasks]
    before, after = _metrics(champion.space), _metrics(challenger.space)
    recalls = [metrics.get("heldout", {}).get("recall_at_1") for metrics in (before, after)]
    if None not in recalls and _as_many_tasks(before, after):
        measures.append(Measure(RECALL, *recalls))
    larger = _larger(before, after, len(champion.networks), len(challenger.networks))
    publish, reason = _decide(measures, tasks, basis, larger, rule)
    return Decision(publish, reason, basis, tuple(measures), tasks)


def _decide(
    measures: Sequence[Measure], tasks: Sequence[TaskResult], basis: str, larger: str, rule: Rule
) -> tuple[bool, str]:
    over = f"mean over {_tasks(tasks)}" if len(tasks) > 1 else _tasks(tasks)
    worse = [one for one in measures if one.gain < -rule.allows(one.name)]
    if worse:
        changes = [f"{one.in_words()}, the margin is {rule.allows(one.name):g}" for one in worse]
        of_tasks = f" ({over})" if any(one.name != RECALL for one in worse) else ""
        return False, f"Worse: {'; '.join(changes)}{of_tasks}."
    if not tasks:
        return True, f"Nothing to judge by: {basis}."
    alpha = 1 - rule.confidence
    better = [one for one in measures if one.p is not None and one.gain > rule.allows(one.name) and one.p < alpha]
    if better:
        changes = [f"{one.in_words()}, p = {one.p:.2g}" for one in better]
        return True, f"Better: {'; '.join(changes)} ({over})."
    if larger:
        return True, f"Not worse, and larger: {larger}."
    shown = "; ".join(one.in_words() for one in measures if one.name in (TAU, REGRET))
    return False, f"No better, and no more networks or tasks: {shown} ({over})."


def _measure(name: str, tasks: Sequence[TaskResult]) -> Measure:
    champion, challenger = (
        np.array([getattr(row, side)[name] for row in tasks]) for side in ("champion", "challenger")
    )
    plain = Measure(name, float(champion.mean()), float(challenger.mean()))
    gains = (challenger - champion) * (1 if plain.gain == plain.difference else -1)
    # The test ranks the differences and leaves out zeros; without any other there is nothing to rank.
    p = float(wilcoxon(gains, alternative="greater").pvalue) if gains.any() else 1.0
    return Measure(name, plain.champion, plain.challenger, p)


def _compare(champion: Contender, challenger: Contender) -> tuple[tuple[TaskResult, ...], str]:
    """Return a row for each task that can be compared, and in words what is compared."""
    predictions = {"the release in production": _served(champion), "the built one": read_predictions(challenger.space)}
    if missing := [name for name, rows in predictions.items() if rows is None]:
        return (), f"{missing[0]} has no {ELSEWHERE_FILE}; an earlier version of TANS made it"
    old, new = (_by_task(rows or ()) for rows in predictions.values())
    common = sorted(old.keys() & new.keys())
    same = {name for name, print_ in champion.networks.items() if challenger.networks.get(name) == print_}
    shared = {task: sorted(old[task].keys() & new[task].keys() & same) for task in common}
    shared = {task: models for task, models in shared.items() if len(models) >= LEAST_NETWORKS}
    if shared and 2 * len(shared) >= len(common):
        rows = tuple(_on_the_same(task, models, old[task], new[task]) for task, models in shared.items())
        return rows, f"{sum(map(len, shared.values()))} trials of networks that both know, on {_tasks(rows)}"
    rows = tuple(_on_its_own(task, old[task], new[task]) for task in common)
    if not rows:
        return (), "they have no task in common on which enough networks were tried"
    return rows, f"{_tasks(rows)}, each order on its own networks, since few are the same"


def _tasks(rows: Sequence[TaskResult]) -> str:
    return "1 task" if len(rows) == 1 else f"{len(rows)} tasks"


def _as_many_tasks(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether recall can be compared: it ranks one network of each task, so it falls as tasks are added."""
    counts = sorted(metrics.get("tasks", 0) for metrics in (before, after))
    return bool(counts[1] <= 1.25 * counts[0])


def _served(champion: Contender) -> list[Prediction] | None:
    try:
        return read_predictions(champion.space)
    except StoreError as error:
        # Publishing repairs this.
        logger.warning("the release in production is not compared: %s", error)
        return None


def _by_task(rows: Sequence[Prediction]) -> dict[str, dict[str, Prediction]]:
    tasks: dict[str, dict[str, Prediction]] = {}
    for row in rows:
        tasks.setdefault(row.task, {})[row.model] = row
    return tasks


def _on_the_same(
    task: str, models: Sequence[str], old: Mapping[str, Prediction], new: Mapping[str, Prediction]
) -> TaskResult:
    results = [new[model].tuned for model in models]
    orders = ([side[model].predicted for model in models] for side in (old, new))
    return TaskResult(task, len(models), *(order_quality(np.array(order), np.array(results)) for order in orders))


def _on_its_own(task: str, old: Mapping[str, Prediction], new: Mapping[str, Prediction]) -> TaskResult:
    best = max(row.tuned for row in (*old.values(), *new.values()))
    return TaskResult(task, len(new), *(_quality(list(side.values()), best) for side in (old, new)))


def _quality(rows: Sequence[Prediction], best: float) -> dict[str, float]:
    """Return `order_quality` with regret counted from a given best accuracy."""
    results = np.array([row.tuned for row in rows])
    quality = order_quality(np.array([row.predicted for row in rows]), results)
    behind = 100 * (best - float(results.max()))
    return {name: value + behind * name.startswith("regret") for name, value in quality.items()}


def _metrics(space: Path) -> dict[str, Any]:
    path = space / "space.json"
    metrics: dict[str, Any] = read_json(path).get("metrics", {}) if path.is_file() else {}
    return metrics


def _larger(before: Mapping[str, Any], after: Mapping[str, Any], served_before: int, served: int) -> str:
    """Return in words what the challenger has more of; empty if nothing."""
    counts = {
        "networks trained on": (before.get("models"), after.get("models")),
        "tasks": (before.get("tasks"), after.get("tasks")),
        "networks served": (served_before, served),
    }
    grown = [
        f"{after} {name}, not {before}"
        for name, (before, after) in counts.items()
        if before is not None and after is not None and after > before
    ]
    return "; ".join(grown)
