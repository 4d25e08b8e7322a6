"""Successive halving: which networks are tried, go on and win, under a budget of time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tans_core.errors import ParamsError
from tans_core.finetuning.checkpoint import Checkpoint, PausedError, checkpoint_of
from tans_core.finetuning.contest import Curve, Entrant, admit, contest, seconds_left
from tans_core.finetuning.finetune import finetune
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
        return [{"step": n, "val_accuracy": reached * n / STEPS, "seconds": whole_s * n / STEPS} for n in steps]


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


def test_a_run_paused_twice_is_the_same_as_one_that_was_not(make_task: Any, make_network: Any, tmp_path: Path) -> None:
    settings = {"steps": 8, "batch_size": 16, "seed": 0, "eval_points": 4}

    def tune(checkpoint: Checkpoint | None) -> Any:
        return finetune(make_network(), make_task(), PREPROCESS, Recipe(lr=0.05), **settings, checkpoint=checkpoint)

    for stop in (2, 4):
        with pytest.raises(PausedError), checkpoint_of(tmp_path, "a") as checkpoint:
            assert checkpoint is not None
            checkpoint.stop_at = stop
            tune(checkpoint)
        step, curve = checkpoint.reached()
        assert step == stop and [point["step"] for point in curve] == list(range(2, stop + 1, 2))
    with checkpoint_of(tmp_path, "a") as checkpoint:
        paused = tune(checkpoint)
    whole = tune(None)
    assert all(torch.equal(value, paused.state_dict[name]) for name, value in whole.state_dict.items())
    assert paused.test_accuracy == whole.test_accuracy and list(tmp_path.iterdir()) == []
