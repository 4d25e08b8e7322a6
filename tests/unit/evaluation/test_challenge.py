"""The rule by which a challenger replaces the release in production."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tans_core.errors import StoreError
from tans_core.evaluation.challenge import (
    RECALL,
    REGRET,
    REGRET_3,
    TAU,
    Contender,
    Decision,
    Rule,
    judge_challenger,
)
from tans_core.io import read_json, write_json
from tans_core.space.elsewhere import Prediction, write_predictions

RULE = Rule(margin=0.05, regret_margin=1.0, recall_margin=0.1, confidence=0.95)
TRUTH = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
RIGHT, SWAPPED, REVERSED = [5.0, 4, 3, 2, 1], [4.0, 5, 3, 2, 1], [1.0, 2, 3, 4, 5]

Side = Callable[..., Contender]


@pytest.fixture
def side(tmp_path: Path) -> Side:
    """Write a space: the predicted scores of five networks on each task."""

    def write(
        name: str,
        orders: Sequence[Sequence[float]] | None,
        *,
        truth: np.ndarray = TRUTH,  # type: ignore[type-arg]
        recall: float | None = 0.9,
        models: int | None = 10,
        weights: str = "w",
        served: int = 5,
    ) -> Contender:
        folder = tmp_path / name
        folder.mkdir()
        if orders is not None:
            rows = [
                Prediction(f"task-{task}", f"m{model}", 0, float(score), float(truth[model]))
                for task, order in enumerate(orders)
                for model, score in enumerate(order)
            ]
            write_predictions(rows, folder)
        heldout = {} if recall is None else {"heldout": {"recall_at_1": recall}}
        counts = {} if models is None else {"models": models, "tasks": 7}
        write_json({"metrics": {**heldout, **counts}}, folder / "space.json")
        return Contender(folder, {f"m{model}": weights for model in range(served)})

    return write


def measure(decision: Decision, name: str) -> tuple[float, float, float | None]:
    one = next(one for one in decision.measures if one.name == name)
    return one.champion, one.challenger, one.p


def slow_tau(predicted: Sequence[float], truth: Sequence[float]) -> float:
    """Weighted tau as its definition: each pair counts by the sum of 1 / rank of both in the true order."""
    rank = {index: place for place, index in enumerate(sorted(range(len(truth)), key=lambda index: -truth[index]), 1)}
    agree = total = 0.0
    for one in range(len(truth)):
        for other in range(one):
            weight = 1 / rank[one] + 1 / rank[other]
            agree += weight * np.sign((predicted[one] - predicted[other]) * (truth[one] - truth[other]))
            total += weight
    return agree / total


def slow_p(gains: Sequence[float]) -> float:
    """One-sided Wilcoxon signed-rank test: the share of all signs whose sum of positive ranks is at least as large."""
    kept = [gain for gain in gains if gain]
    ranks = [1 + sum(abs(other) < abs(gain) for other in kept) for gain in kept]
    found = sum(rank for rank, gain in zip(ranks, kept, strict=True) if gain > 0)
    sums = [
        sum(rank for rank, up in zip(ranks, signs, strict=True) if up) for signs in product((0, 1), repeat=len(kept))
    ]
    return float(np.mean([value >= found for value in sums]))


def test_measures_are_those_of_a_slow_reference(side: Side) -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(2, 8, 5)).tolist()
    truth = rng.permutation(TRUTH)
    decision = judge_challenger(side("old", old, truth=truth), side("new", new, truth=truth), RULE)
    taus = [[slow_tau(order, truth.tolist()) for order in orders] for orders in (old, new)]
    regrets = [[100 * (0.9 - truth[int(np.argmax(order))]) for order in orders] for orders in (old, new)]
    thirds = [[100 * (0.9 - max(truth[np.argsort(order)[-3:]])) for order in orders] for orders in (old, new)]
    gains = [new - old for old, new in zip(*taus, strict=True)]
    assert len({abs(gain) for gain in gains}) == 8  # no ties, so that ranks are plain
    assert measure(decision, TAU) == pytest.approx((np.mean(taus[0]), np.mean(taus[1]), slow_p(gains)))
    assert measure(decision, REGRET)[:2] == pytest.approx((np.mean(regrets[0]), np.mean(regrets[1])))
    assert measure(decision, REGRET_3)[:2] == pytest.approx((np.mean(thirds[0]), np.mean(thirds[1])))
    assert measure(decision, RECALL) == (0.9, 0.9, None)
    assert [row.champion[TAU] for row in decision.tasks] == pytest.approx(taus[0])
    assert [row.challenger[TAU] for row in decision.tasks] == pytest.approx(taus[1])


def test_better_order_on_enough_tasks_is_published(side: Side) -> None:
    decision = judge_challenger(side("old", [SWAPPED] * 8), side("new", [RIGHT] * 8), RULE)
    assert decision.publish
    assert measure(decision, REGRET) == pytest.approx((10, 0, 1 / 2**8), abs=0.01)
    assert decision.reason.startswith("Better: weighted tau rose from 0.")
    assert "regret@1 fell from 10.0 to 0.0 points, p = 0.00" in decision.reason
    assert decision.reason.endswith("(mean over 8 tasks).")


def test_better_order_on_too_few_tasks_may_be_chance(side: Side) -> None:
    decision = judge_challenger(side("old", [SWAPPED] * 3), side("new", [RIGHT] * 3), RULE)
    assert not decision.publish
    assert measure(decision, REGRET)[2] == pytest.approx(1 / 8)
    assert decision.reason.startswith("No better, and no more networks or tasks: weighted tau rose from")


@pytest.mark.parametrize("changes", [{"models": 11}, {"served": 6}], ids=["trained on more", "serves more"])
def test_as_good_and_larger_is_published(side: Side, changes: dict[str, int]) -> None:
    decision = judge_challenger(side("old", [RIGHT] * 4), side("new", [RIGHT] * 4, **changes), RULE)
    assert decision.publish
    assert decision.reason.startswith("Not worse, and larger: ")
    assert measure(decision, TAU) == pytest.approx((1, 1, 1))


def test_as_good_and_no_larger_is_refused(side: Side) -> None:
    decision = judge_challenger(side("old", [SWAPPED] * 4), side("new", [SWAPPED] * 4), RULE)
    assert not decision.publish
    assert "regret@1 stayed at 10.0 points" in decision.reason


def test_worse_order_is_refused_although_it_is_larger(side: Side) -> None:
    decision = judge_challenger(side("old", [RIGHT] * 4), side("new", [REVERSED] * 4, models=99), RULE)
    assert not decision.publish
    assert decision.reason == (
        "Worse: weighted tau fell from 1.000 to -1.000, the margin is 0.05; "
        "regret@1 rose from 0.0 to 40.0 points, the margin is 1 (mean over 4 tasks)."
    )


def test_what_lies_inside_the_margins_is_not_worse(side: Side) -> None:
    loose = Rule(margin=2, regret_margin=100, recall_margin=1, confidence=0.95)
    old, new = side("old", [RIGHT] * 4), side("new", [REVERSED] * 4, models=99, recall=0)
    assert judge_challenger(old, new, loose).publish


def test_one_worse_measure_outweighs_a_better_one(side: Side) -> None:
    """The first network is better, the rest of the order is turned around."""
    decision = judge_challenger(side("old", [SWAPPED] * 8), side("new", [[5.0, 1, 2, 3, 4]] * 8), RULE)
    assert measure(decision, REGRET)[:2] == pytest.approx((10, 0))
    assert measure(decision, TAU)[1] < measure(decision, TAU)[0] - 0.05
    assert not decision.publish


def test_lost_recall_is_refused_even_where_nothing_else_is_known(side: Side) -> None:
    decision = judge_challenger(side("old", None, recall=0.92), side("new", [RIGHT] * 4, recall=0.12), RULE)
    assert not decision.publish
    assert decision.reason == "Worse: recall@1 fell from 0.92 to 0.12 (networks held out), the margin is 0.1."


def test_recall_among_many_more_tasks_is_another_figure_and_not_compared(side: Side) -> None:
    old, new = side("old", [RIGHT] * 4, recall=0.9), side("new", [RIGHT] * 4, recall=0.5, models=20)
    described = read_json(new.space / "space.json")
    described["metrics"]["tasks"] = 12
    write_json(described, new.space / "space.json")
    decision = judge_challenger(old, new, RULE)
    assert decision.publish and RECALL not in {one.name for one in decision.measures}


@pytest.mark.parametrize("recall", [0.9, None])
def test_release_of_an_earlier_version_is_replaced_and_the_reason_given(side: Side, recall: float | None) -> None:
    decision = judge_challenger(side("old", None, recall=recall, models=None), side("new", [RIGHT] * 4), RULE)
    assert decision.publish
    assert decision.reason == (
        "Nothing to judge by: the release in production has no elsewhere.json; an earlier version of TANS made it."
    )
    assert decision.tasks == ()


def test_damaged_predictions_of_the_champion_do_not_stop_its_replacement(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = side("old", [RIGHT] * 4), side("new", [RIGHT] * 4)
    (old.space / "elsewhere.json").write_text("[{")
    assert judge_challenger(old, new, RULE).publish
    assert "is not compared" in caplog.text
    (new.space / "elsewhere.json").write_text("[{")
    with pytest.raises(StoreError, match=r"elsewhere\.json: cannot be read"):
        judge_challenger(old, new, RULE)


def test_results_are_the_challengers_and_only_networks_that_both_know_count(side: Side) -> None:
    old = side("old", [REVERSED] * 4, truth=TRUTH[::-1])
    new = side("new", [RIGHT] * 4)
    decision = judge_challenger(old, new, RULE)
    assert measure(decision, TAU)[:2] == pytest.approx((-1, 1))
    assert decision.basis == "20 trials of networks that both know, on 4 tasks"
    # A network of other weights under the same id takes no part: the first one, which the champion got wrong.
    changed = Contender(new.space, {**new.networks, "m0": "other weights"})
    decision = judge_challenger(old, changed, RULE)
    assert decision.basis == "16 trials of networks that both know, on 4 tasks"
    assert {row.networks for row in decision.tasks} == {4}


def test_zoo_of_other_networks_is_measured_on_its_own_and_regret_by_the_best_of_both(side: Side) -> None:
    old, new = side("old", [RIGHT] * 4), side("new", [RIGHT] * 4, truth=TRUTH - 0.2, weights="retrained", models=99)
    decision = judge_challenger(old, new, RULE)
    assert measure(decision, TAU)[:2] == pytest.approx((1, 1))
    assert measure(decision, REGRET)[:2] == pytest.approx((0, 20))
    assert not decision.publish
    better = judge_challenger(new, old, RULE)
    assert measure(better, REGRET)[:2] == pytest.approx((20, 0))


def test_tasks_that_only_one_knows_are_left_out(side: Side) -> None:
    old, new = side("old", [RIGHT] * 3), side("new", [RIGHT] * 5)
    assert [row.task for row in judge_challenger(old, new, RULE).tasks] == ["task-0", "task-1", "task-2"]
    nothing = side("nothing", [])
    decision = judge_challenger(nothing, new, RULE)
    assert decision.publish and "no task in common" in decision.reason
