"""A fine-tuning that runs out of memory, and the estimate of its time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tans_core.finetuning.tuning import Tuning
from tans_core.recipe import Recipe
from tests.factories.embeddings import card
from tests.factories.networks import PREPROCESS


def with_room_for(most: int, network: Any) -> Any:
    """A network that runs out of memory as torch does on a GPU, in training steps on more than `most` images."""

    def check(module: Any, images: tuple[torch.Tensor]) -> None:
        if module.training and torch.is_grad_enabled() and len(images[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    network.register_forward_pre_hook(check)
    return network


def test_out_of_memory_begins_again_with_half_the_batch(
    make_task: Any, make_network: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = card("home.1", "elsewhere").model_copy(update={"preprocess": PREPROCESS, "recipe": Recipe(lr=0.05)})
    settings = {"epochs": 1, "batch_size": 32, "seed": 0}
    tuning = Tuning(home, make_network, make_task(), settings, 1, tmp_path)

    halved = tuning.run(with_room_for(8, make_network()), None)
    assert [message.split("of ")[-1] for message in caplog.messages] == ["16 images.", "8 images."]
    same = replace(tuning, settings={**settings, "batch_size": 8}).run(make_network(), None)
    assert all(torch.equal(value, halved.state_dict[name]) for name, value in same.state_dict.items())
    with pytest.raises(torch.OutOfMemoryError):
        replace(tuning, settings={**settings, "batch_size": 3}).run(with_room_for(1, make_network()), None)


def test_estimate_is_near_and_kept_for_a_run_that_goes_on(make_task: Any, make_network: Any, tmp_path: Path) -> None:
    home = card("home.1", "elsewhere").model_copy(update={"preprocess": PREPROCESS, "recipe": Recipe(lr=0.05)})
    tuning = Tuning(home, make_network, make_task(), {"epochs": 8, "batch_size": 16, "seed": 0}, 1, tmp_path)
    assert tuning.steps == 32 and 0 < tuning.seconds < 60
    assert replace(tuning).seconds == tuning.seconds
    longer = replace(tuning, settings={**tuning.settings, "epochs": 8000})
    assert longer.seconds > 50 * tuning.seconds
    for one in (tuning, longer):
        one.forget()
    assert list(tmp_path.iterdir()) == []
