"""What a terminal shows of a fine-tuning: an estimate before it starts, then a bar."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def say_estimate(model: str, steps: int, seconds: float, memory_mb: float) -> None:
    """Say on stderr how long the whole run of a network will take, and how much memory."""
    about = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    memory = f"{memory_mb:.0f} MB" if memory_mb < 1000 else f"{memory_mb / 1000:.1f} GB"
    text = f"{model}: {steps:,} steps, about {about} and {memory} of memory beside the images"
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


class FinetuneBar(pl.Callback):
    """Shows step, loss and validation accuracy on stderr, and disappears at the end."""

    def __init__(self, description: str) -> None:
        self.description = description
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True)

    def on_train_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.progress.start()
        self.bar = self.progress.add_task(self.description, total=trainer.num_training_batches)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        curve = getattr(pl_module, "curve", None)
        figures = f"  val {curve[-1]['val_accuracy']:.1%}  loss {curve[-1]['train_loss']:.3f}" if curve else ""
        self.progress.update(self.bar, completed=trainer.global_step, description=self.description + figures)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.progress.stop()

    def on_exception(self, *_: Any, **__: Any) -> None:
        self.progress.stop()
