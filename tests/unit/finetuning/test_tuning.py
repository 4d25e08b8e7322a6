"""A fine-tuning that runs out of memory, the estimate of its time, and what is left of one that was refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tans_core.errors import ParamsError
from tans_core.finetuning.checkpoint import PausedError
from tans_core.finetuning.tuning import Tuning, choose, leaderboard
from tans_core.recipe import Recipe
from tests.factories.embeddings import card
from tests.factories.networks import PREPROCESS

MakeTuning = Callable[..., Tuning]


def with_room_for(most: int, network: Any) -> Any:
    """A network that runs out of memory as torch does on a GPU, in training steps on more than `most` images."""

    def check(module: Any, images: tuple[torch.Tensor]) -> None:
        if module.training and torch.is_grad_enabled() and len(images[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    network.register_forward_pre_hook(check)
    return network


@pytest.fixture
def make_tuning(make_task: Any, make_network: Any, tmp_path: Path) -> MakeTuning:
    """Return a maker of fine-tunings by name; networks that have `room` run out of memory above it."""
    task = make_task()

    def make(name: str = "home.1", room: int = 1000, rivals: int = 1, **settings: int) -> Tuning:
        home = card(name, "elsewhere").model_copy(update={"preprocess": PREPROCESS, "recipe": Recipe(lr=0.05)})
        build = partial(make_network, seed=int(name[-1]))
        settings = {"epochs": 2, "batch_size": 32, "seed": 0, **settings}
        return Tuning(home, lambda: with_room_for(room, build()), task, settings, rivals, tmp_path)

    return make


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(value, other.state_dict[name]) for name, value in one.state_dict.items())


def test_out_of_memory_begins_again_with_half_the_batch(
    make_tuning: MakeTuning, caplog: pytest.LogCaptureFixture
) -> None:
    tuning = make_tuning(room=8)
    halved = tuning.run(tuning.build(), None)
    assert [message.split("of ")[-1] for message in caplog.messages] == ["16 images.", "8 images."]
    plain = make_tuning(batch_size=8)
    assert same(plain.run(plain.build(), None), halved) and halved.batch_size == 8
    for lacking in (make_tuning(room=1, batch_size=3), make_tuning(room=8, rivals=2)):
        size = lacking.settings["batch_size"]
        with pytest.raises(ParamsError, match=f"out of memory with batches of {size} images. Lower"):
            lacking.run(lacking.build(), None)


@pytest.mark.parametrize("room", [16, 1000])
def test_killed_after_a_halving_it_goes_on_with_the_halved_batch(make_tuning: MakeTuning, room: int) -> None:
    """At step 5 of 8; with batches of 32 there are 4. It may have more memory now."""
    tuning = make_tuning(room=16)
    with pytest.raises(PausedError), tuning.checkpoint() as checkpoint:
        assert checkpoint is not None
        checkpoint.stop_at = 5
        tuning.run(tuning.build(), checkpoint)
    again = make_tuning(room=room)
    with again.checkpoint() as checkpoint:
        assert checkpoint is not None and checkpoint.reached().step == 5
        result = again.run(again.build(), checkpoint)
    plain = make_tuning(batch_size=16)
    assert same(plain.run(plain.build(), None), result)
    assert result.curve[-1]["step"] == 8 and result.batch_size == 16


def test_estimate_is_near_and_kept_for_a_run_that_goes_on(make_tuning: MakeTuning, tmp_path: Path) -> None:
    tuning = make_tuning(epochs=8, batch_size=16)
    assert tuning.steps == 32 and 0 < tuning.seconds < 60
    assert replace(tuning).seconds == tuning.seconds
    longer = replace(tuning, settings={**tuning.settings, "epochs": 8000})
    assert longer.seconds > 50 * tuning.seconds
    for one in (tuning, longer):
        one.forget()
    assert list(tmp_path.iterdir()) == []


def test_one_that_lacks_memory_is_left_out_and_the_others_compete(make_tuning: MakeTuning, tmp_path: Path) -> None:
    tunings = [make_tuning(f"home.{number}", room, rivals=2) for number, room in ((1, 8), (2, 99), (3, 99))]
    seen: list[str] = []
    entrants = choose(tunings, math.inf, lambda one: seen.append(one.key))
    assert seen == [one.key for one in tunings]
    (winner,) = [one for one in entrants if one.fits]
    rows = {row["model"]: row["outcome"] for row in leaderboard(entrants, winner.curve)}
    assert rows["home.1"] == "out of memory" and sorted(rows.values()) == ["out of memory", "stopped", "winner"]
    assert {path.stem for path in tmp_path.iterdir()} == {one.key for one in tunings[1:]}
    assert math.isinf(tunings[0].seconds)


def test_a_budget_by_mistake_and_the_end_of_another_run_leave_checkpoints(
    make_tuning: MakeTuning, tmp_path: Path
) -> None:
    killed, fresh = (make_tuning(f"home.{number}", rivals=2) for number in (1, 2))
    killed.run_to(0.5)
    estimated = killed.seconds
    with pytest.raises(ParamsError, match="Raise --budget"):
        choose([make_tuning("home.1", rivals=2), fresh], 1e-9)
    assert {path.name for path in tmp_path.iterdir()} == {f"{killed.key}.ckpt", f"{killed.key}.json"}
    assert make_tuning("home.1", rivals=2).seconds == estimated
    with pytest.raises(KeyError), killed.checkpoint():  # as in another process
        make_tuning("home.1", rivals=2).forget()
        assert (tmp_path / f"{killed.key}.ckpt").is_file()
        raise KeyError
    killed.forget()
    assert list(tmp_path.iterdir()) == []
