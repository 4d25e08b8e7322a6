"""Successive halving: which networks are tried, go on and win, under a budget of time."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tans_core.errors import DivergedError, ParamsError
from tans_core.finetuning.checkpoint import Checkpoint, PausedError, checkpoint_of
from tans_core.finetuning.contest import Curve, Entrant, admit, contest, seconds_left
from tans_core.finetuning.finetune import finetune
from tans_core.finetuning.tuning import leaderboard
from tans_core.recipe import Recipe
from tests.factories.networks import PREPROCESS

STEPS = 16


class Trainer:
    """Networks that take the seconds they are said to, times `slower`; the accuracy grows with the share."""

    def __init__(self, best: dict[str, float], slower: float = 1.0) -> None:
        self.best, self.slower = best, slower
        self.turns: list[tuple[str, float]] = []

    def __call__(self, entrant: Entrant, share: float) -> Curve:
        self.turns.append((entrant.model, share))
        whole_s = {"a": 40.0, "b": 40.0, "c": 40.0, "d": 40.0}[entrant.model] * self.slower
        steps = range(1, int(STEPS * share) + 1)
        reached = self.best[entrant.model]
        parts = {n: n / STEPS for n in steps}
        return [
            {"step": n, "epoch": part, "val_accuracy": reached * part, "seconds": whole_s * part}
            for n, part in parts.items()
        ]


def entrants() -> list[Entrant]:
    return [Entrant(name, 40.0) for name in "abcd"]


def winner(field: list[Entrant]) -> str:
    (one,) = [one.model for one in field if one.fits]
    return one


def test_the_better_half_goes_on_until_one_is_left_and_no_one_starts_again() -> None:
    train = Trainer({"a": 0.5, "b": 0.9, "c": 0.8, "d": 0.6})
    field = entrants()
    contest(field, train, 4, math.inf)
    assert winner(field) == "b"
    assert train.turns == [("a", 0.25), ("b", 0.25), ("c", 0.25), ("d", 0.25), ("b", 0.5), ("c", 0.5)]
    assert [one.curve[-1]["step"] for one in field] == [4, 8, 8, 4]


def test_seconds_are_those_of_the_slowest_that_could_win() -> None:
    assert seconds_left([40.0] * 4, 0, 2) == 4 * 10 + 2 * 10 + 20
    assert seconds_left([40.0, 80.0], 1, 2) == 10 + 20 + 40
    assert seconds_left([10.0, 80.0, 20.0], 0, 2) == (10 + 80 + 20) / 4 + (80 + 20) / 4 + 80 / 2


def test_the_budget_governs_which_networks_are_tried() -> None:
    slow = [Entrant("slow", 1000.0), Entrant("a", 40.0), Entrant("b", 40.0), Entrant("c", 40.0), Entrant("d", 40.0)]
    assert [(one.model, one.fits) for one in admit(slow, 2, 100.0)] == [("slow", False), ("a", True), ("b", True)]
    assert [one.fits for one in admit(entrants(), 4, 55.0)] == [True, True, False, False]
    with pytest.raises(ParamsError, match=r"--budget: got 30 s, want at least 40 s.* of 4 networks takes, a"):
        admit(entrants(), 4, 30.0)


def test_a_contest_that_is_slower_than_estimated_ends_sooner() -> None:
    train = Trainer({"a": 0.5, "b": 0.9, "c": 0.8, "d": 0.6}, slower=1.5)
    field = admit(entrants(), 4, 80.0 * 1.25)
    contest(field, train, 4, 80.0 * 1.25)
    assert winner(field) == "b"
    assert [turn for turn in train.turns if turn[1] > 0.25] == []


def test_one_that_diverges_or_lacks_memory_leaves_and_its_time_counts() -> None:
    plain = Trainer({"a": 0.5, "b": 0.9, "c": 0.8, "d": 0.6})
    errors: dict[tuple[str, float], Exception] = {
        ("b", 0.5): DivergedError("nan", plain(Entrant("b", 40.0), 0.5)[:-2]),
        ("d", 0.25): ParamsError("out of memory"),
        ("a", 0.25): DivergedError("nan"),
    }

    def train(entrant: Entrant, share: float) -> Curve:
        if (entrant.model, share) in errors:
            time.sleep(0.01)
            raise errors[entrant.model, share]
        return plain(entrant, share)

    field = [*entrants(), Entrant("e", math.inf)]
    contest(field, train, 4, math.inf)
    assert winner(field) == "c", "b has the best accuracy"
    assert [one.failed for one in field] == ["diverged", "diverged", "", "out of memory", "out of memory"]
    assert [len(one.curve) for one in field] == [0, 6, 8, 0, 0]
    assert 0.01 < field[0].used_s < 5 and 10.01 < field[1].used_s < 15
    rows = {row["model"]: row for row in leaderboard(field, field[2].curve)}
    assert [rows[name]["outcome"] for name in "abcde"] == [one.failed or "winner" for one in field]
    assert rows["b"]["val_accuracy"] == pytest.approx(0.9 * 6 / STEPS) and rows["b"]["seconds"] == field[1].used_s

    alone = [Entrant("a", 40.0), Entrant("d", 40.0)]
    with pytest.raises(ParamsError, match=r"no network is left, want one: a \(diverged\), d \(out of memory\)"):
        contest(alone, lambda entrant, _: train(entrant, 0.25), 2, math.inf)
    lacking = admit([Entrant("e", math.inf), *entrants()], 2, math.inf)
    assert [(one.model, one.fits) for one in lacking] == [("e", False), ("a", True), ("b", True)]


def test_a_single_point_gives_the_pace_from_the_start() -> None:
    one = Entrant("a", 40.0)
    one.go_on([{"step": 4, "val_accuracy": 0.5, "seconds": 30.0}], 0.25)
    assert one.whole_s == 120 and one.used_s == 30


def test_a_run_paused_twice_is_the_same_as_one_that_was_not(make_task: Any, make_network: Any, tmp_path: Path) -> None:
    settings = {"steps": 8, "batch_size": 16, "seed": 0, "eval_points": 4}

    def tune(checkpoint: Checkpoint | None) -> Any:
        return finetune(make_network(), make_task(), PREPROCESS, Recipe(lr=0.05), **settings, checkpoint=checkpoint)

    for stop in (2, 4):
        with pytest.raises(PausedError), checkpoint_of(tmp_path, "a") as checkpoint:
            assert checkpoint is not None
            checkpoint.stop_at = stop
            tune(checkpoint)
        step, curve, size = checkpoint.reached()
        assert size == 16 and step == stop and [point["step"] for point in curve] == list(range(2, stop + 1, 2))
    with checkpoint_of(tmp_path, "a") as checkpoint:
        paused = tune(checkpoint)
    whole = tune(None)
    assert all(torch.equal(value, paused.state_dict[name]) for name, value in whole.state_dict.items())
    assert paused.test_accuracy == whole.test_accuracy and list(tmp_path.iterdir()) == []
