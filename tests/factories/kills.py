"""A fine-tuning that kills itself after a step, run in a process of its own: `python -m tests.factories.kills`.

Each attempt is a fork of one process that has torch imported, so an attempt costs no import.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from tans_core.finetuning.checkpoint import Checkpoint, checkpoint_of
from tans_core.finetuning.finetune import FinetuneResult, finetune
from tans_core.recipe import Recipe
from tans_core.zoo.weights import save_tensors
from tests.factories.networks import PREPROCESS, tiny_network
from tests.factories.tasks import grating_task

STEPS = 40
RECIPES = {
    "sgd": Recipe(lr=0.02, warmup=0.1, head="fitted", lr_floor=0.2),
    "adamw": Recipe(optimizer="adamw", lr=0.003, frozen_steps=15),
}


class _Killing(Checkpoint):
    """Writes its state after each step, and kills the process after a given one, before the state is written."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path, every_s=0.0)
        self.at = at

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.due = 0.0
        super().on_train_batch_end(trainer)


def attempt(recipe: Recipe, checkpoint: Checkpoint | None) -> FinetuneResult:
    network = tiny_network(3).train()
    # Dropout: so that the state of the global generator counts.
    network.stem = nn.Sequential(network.stem, nn.Dropout(0.2))  # type: ignore[assignment]
    settings: dict[str, Any] = {"steps": STEPS, "batch_size": 8, "seed": 1, "eval_points": 5}
    return finetune(network, grating_task(noise=60.0), PREPROCESS, recipe, **settings, checkpoint=checkpoint)


def write(result: FinetuneResult, folder: Path) -> None:
    save_tensors(result.state_dict, folder / "weights.safetensors")
    curve = [{name: value for name, value in point.items() if name != "seconds"} for point in result.curve]
    figures = {"curve": curve, "best": [result.best_step, result.best_val_accuracy], "test": result.test_accuracy}
    (folder / "figures.json").write_text(json.dumps(figures))


def main(folder: Path, recipe: str, kills: list[int]) -> None:
    """Write the results of an uninterrupted run and of a killed one to `folder`/whole and `folder`/killed."""
    torch.set_num_threads(1)
    for name, steps in (("whole", [0]), ("killed", [*kills, 0])):
        (folder / name).mkdir(parents=True)
        for at in steps:
            child = os.fork()
            if child == 0:
                with checkpoint_of(folder / "resume", name) as checkpoint:
                    assert checkpoint is not None
                    write(attempt(RECIPES[recipe], _Killing(checkpoint.path, at)), folder / name)
                os._exit(0)
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert ended == (-signal.SIGKILL if at else 0), ended
            print(name, at, sorted(path.name for path in (folder / "resume").glob("*.ckpt")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(step) for step in sys.argv[3:]])
