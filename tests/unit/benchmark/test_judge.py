"""The pool, the judging of rankings, and what a ranking by cards is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tans_core.benchmark.judge import RANDOM, judge, pick_of, random_quality
from tans_core.benchmark.orders import BLIND, IMAGENET, OURS, REFINED_OURS, Judged, plain_orders
from tans_core.benchmark.page import headline, render_page
from tans_core.benchmark.pool import choose_pool
from tans_core.zoo.card import ModelCard
from tests.factories.releases import make_card


def one_task(name: str, truth: list[float], **orders: list[float]) -> Judged:
    every = {OURS: orders.pop("ours"), REFINED_OURS: orders.pop("refined"), **orders}
    values = {key: np.array(value, dtype=np.float64) for key, value in every.items()}
    steps, count = np.array([1.0, 5.0]), len(truth)
    return Judged(
        name,
        tuple(f"m{index}" for index in range(count)),
        np.array(truth),
        values,
        dict.fromkeys(values, 0) | {"LEEP": count},
        dict.fromkeys(values, 0.5),
        imagenet=(0, 1),
        validation=np.array(truth),
        curves=(steps, np.array([[value / 2, value] for value in truth])),
    )


TASKS = [
    one_task("<a>", [0.5, 0.6, 0.9], ours=[3, 2, 1], refined=[1, 2, 3], LEEP=[np.nan, 2, 1]),
    one_task("b", [0.2, 0.4, 0.3], ours=[1, 3, 2], refined=[1, 3, 2], LEEP=[np.nan, 1, 2]),
]


def test_regret_is_what_the_first_loses_and_ranks_without_a_score_come_last() -> None:
    record = judge(TASKS)
    first = record["by_task"]["<a>"]
    assert first[OURS]["regret_at_1"] == pytest.approx(40) and first[OURS]["accuracy"] == pytest.approx(0.5)
    assert first[REFINED_OURS]["regret_at_1"] == 0 and first[OURS]["regret_at_3"] == 0
    assert first[OURS]["weighted_tau"] < 0 < first[REFINED_OURS]["weighted_tau"] == pytest.approx(1)
    # Of networks with a score, it takes the worse one; the network without one is not judged in its order.
    assert first["LEEP"]["regret_at_1"] == pytest.approx(30)
    assert first["LEEP"]["weighted_tau"] == pytest.approx(-1)
    assert first["LEEP"]["defined"] == pytest.approx(2 / 3) and first["LEEP"]["forward_passes"] == 3
    assert record["rankings"][OURS]["regret_at_1"] == pytest.approx(20)


def test_pairs_count_tasks_and_speed_counts_steps_until_the_imagenet_network_is_matched() -> None:
    record = judge(TASKS)
    pair = record["against"][REFINED_OURS][OURS]
    assert (pair["won"], pair["tied"], pair["lost"], pair["p"]) == (1, 1, 0, 1.0)
    assert pair["mean"] == pytest.approx(20)
    assert record["against"][OURS][REFINED_OURS]["mean"] == pytest.approx(-20)
    # The published network that is better on validation: 0.6 on the first task, 0.4 on the second.
    assert record["by_task"]["<a>"][IMAGENET]["accuracy"] == 0.6
    assert record["rankings"][IMAGENET]["weighted_tau"] is None
    assert record["speed"][REFINED_OURS] == {"share": 1.0, "reached": 2, "early": 0}
    assert record["speed"][OURS]["reached"] == 1  # 0.5 never reaches 0.6
    assert pick_of(TASKS[0], IMAGENET) == 1


def test_random_orders_lose_what_a_mean_network_loses() -> None:
    truth = np.array([0.1, 0.2, 0.3, 0.9])
    quality = random_quality(truth)
    assert quality["regret_at_1"] == pytest.approx(100 * (0.9 - 0.375))
    # The best is among the first three in three orders of four.
    assert quality["regret_at_3"] == pytest.approx(100 * 0.25 * 0.6)
    assert judge(TASKS)["rankings"][RANDOM]["accuracy"] == pytest.approx((2 / 3 + 0.3) / 2)


def test_page_is_one_file_that_escapes_names_and_shows_every_ranking() -> None:
    counts: dict[str, Any] = {"networks": 3, "families": 1, "without_classifier": 1, "tasks": 2, "seeds": 1}
    group = {**counts, "steps": 5, "fits": 6, "fit_seconds": 1.0, "between_seeds": None, **judge(TASKS)}
    record = {"zoo": 3, "images": 128, "unseen": group}
    page = render_page(record, TASKS)
    assert "&lt;a&gt;" in page and "<a>" not in page and "://" not in page
    assert page.count("data:image/png;base64,") == 2
    for name in group["rankings"]:
        assert f'<th scope="row">{name}</th>' in page
    assert headline(record).startswith("Points of accuracy lost to the best network, mean over 2 tasks: TANS 20.0, ")
    assert BLIND not in page.partition("<footer")[0]


def cards() -> list[ModelCard]:
    made = []
    for home in ("leaves", "shells", "stars"):
        for number in range(4):
            card = make_card(f"{home}{number}")
            family = "once-for-all" if number % 2 else card.family
            made.append(card.model_copy(update={"home_task": home, "family": family}))
    general = make_card("general").model_copy(update={"class_names": (), "val_accuracy": None, "home_task": "base"})
    return [*made, general]


def test_pool_has_general_networks_all_families_and_homes_and_grows_without_dropping_any() -> None:
    small, large = ({card.id for card in choose_pool(cards(), count, seed=3)} for count in (7, 10))
    assert len(small) == 7 and small < large and "general" in small
    chosen = choose_pool(cards(), 7, seed=3)
    assert len({card.family for card in chosen}) == 2
    assert {card.home_task for card in chosen} == {"leaves", "shells", "stars", "base"}
    assert [card.id for card in choose_pool(reversed(cards()), 7, seed=3)] == [card.id for card in chosen]
    assert len(choose_pool(cards(), 99, seed=3)) == 13


def test_rules_by_cards_take_the_nearest_home_the_best_at_home_and_the_largest() -> None:
    near, far, general = make_card("near"), make_card("far"), cards()[-1]
    better = near.model_copy(update={"id": "better", "val_accuracy": 0.9})
    far = far.model_copy(update={"home_task": "stars", "val_accuracy": 0.95, "params_m": 9.0})
    orders = plain_orders([near, far, general, better], {"leaves": 0.8, "stars": 0.2})
    assert np.argsort(-orders["nearest task"]).tolist() == [3, 0, 1, 2]
    assert np.isnan(orders["best at home"][2]) and np.nanargmax(orders["best at home"]) == 1
    assert orders["largest"].argmax() == 1
