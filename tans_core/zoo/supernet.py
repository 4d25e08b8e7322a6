"""Trains a supernet: on many tasks together (the base), or on one task (its zoo).

Axes: N images of a task, B images of a batch, K classes, D feature width.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from tans_core.errors import DataError
from tans_core.networks.family import Supernet
from tans_core.networks.head import fit_head, head_sample
from tans_core.networks.preprocess import Preprocess, normalise, shift_repeating_edges
from tans_core.recipe import TrainingRecipe, for_family
from tans_core.runtime import derive_seed, device, keep_freed_memory, quiet_lightning, show_progress, training
from tans_core.tasks.task import Task

logger = logging.getLogger(__name__)

SHIFT_SHARE = 3 / 32
"""Maximum shift of an image, as a share of its side."""
CHECKPOINT_EVERY = 50


@dataclass(frozen=True)
class SupernetRecipe:
    """How a supernet is trained; each step trains an extreme member and a random one."""

    steps: int
    batch_size: int
    recipe: TrainingRecipe
    precision: str

    @classmethod
    def of(cls, settings: Mapping[str, Any], family: str, precision: str) -> SupernetRecipe:
        """Read a section of params.yaml for a family."""
        own_settings = for_family(settings, family)
        return cls(own_settings["steps"], own_settings["batch_size"], TrainingRecipe.of(settings, family), precision)


@dataclass(frozen=True)
class TrainingData:
    """The images of one task's split, on one device: images (N, 3, H, W) uint8, labels (N,) int64."""

    images: Tensor
    labels: Tensor
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, task: Task, split: str, preprocess: Preprocess) -> TrainingData:
        """Load a split. Raises DataError: it has no image."""
        labels = task.labels[task.where(split)]
        if len(labels) == 0:
            raise DataError(f"task {task.info.name!r}: its {split} split has no image.")
        return cls(preprocess.pixels(task, split), torch.from_numpy(labels), preprocess.mean, preprocess.std)

    def normalised(self, indices: Tensor | None = None) -> Tensor:
        """Return all images, or those at `indices`, (n, 3, H, W) float32."""
        return normalise(self.images if indices is None else self.images[indices], self.mean, self.std)

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch with random shifts: images (B, 3, H, W) float32 and labels (B,)."""
        chosen = torch.randint(len(self.labels), (size,), generator=generator)
        images = shift_repeating_edges(self.images[chosen], round(SHIFT_SHARE * self.images.shape[-1]), generator)
        return normalise(images, self.mean, self.std), self.labels[chosen]


def train_supernet(
    network: Supernet,
    heads: Sequence[nn.Linear],
    data: Sequence[TrainingData],
    recipe: SupernetRecipe,
    seed: int,
    resume_folder: Path | None = None,
    description: str = "supernet",
) -> list[float]:
    """Train a supernet in place on one task or on several, each with its own head.

    All randomness of a step depends only on `seed` and the step's number. So a run resumed from `resume_folder` ends
    with the same weights as an uninterrupted one.

    Args:
        network: the supernet; its own classifier is unused unless it is among the heads.
        heads: one classifier per task.
        data: the tasks' training images.
        recipe: steps, batch size and optimiser.
        seed: of batches, shifts and sampled architectures.
        resume_folder: keeps checkpoints while it runs; None keeps none.
        description: label of the progress bar.

    Returns:
        The training loss of each step.
    """
    keep_freed_memory()
    quiet_lightning()
    network.train()  # Lightning does not change the mode of a network
    precision = network.training_precision(recipe.precision, device().type)
    if recipe.recipe.head == "fitted":
        # Also when resuming from a checkpoint, to get the same learning rate.
        recipe = replace(recipe, recipe=recipe.recipe.scaled_by_fit(_fit_heads(network, heads, data, precision, seed)))
    module = _SupernetModule(network, heads, data, recipe, seed)
    callbacks: list[Callback] = [_Bar(description)] if show_progress() else []
    checkpoint = None
    if resume_folder is not None:
        callbacks.append(
            ModelCheckpoint(
                resume_folder, filename="last", every_n_train_steps=CHECKPOINT_EVERY, enable_version_counter=False
            )
        )
        last = resume_folder / "last.ckpt"
        checkpoint = last if last.is_file() else None
        if checkpoint:
            logger.info("resuming %s from %s", description, checkpoint)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=recipe.steps,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=resume_folder is not None,
        enable_progress_bar=show_progress(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with torch.random.fork_rng(), training():
        trainer.fit(module, DataLoader(_Steps(recipe.steps), batch_size=None), ckpt_path=checkpoint)
    network.active = None
    return module.losses


def _fit_heads(
    network: Supernet, heads: Sequence[nn.Linear], data: Sequence[TrainingData], precision: str, seed: int
) -> float:
    """Fit each task's classifier; return the mean over the tasks of the variance that the features explain."""
    network.to(device())
    fits = []
    for number, (head, task_data) in enumerate(zip(heads, data, strict=True)):
        chosen = head_sample(task_data.labels, torch.Generator().manual_seed(derive_seed(seed, "head", number)))
        fits.append(fit_head(network, head, task_data.normalised(chosen), task_data.labels[chosen], precision))
    return float(np.mean(fits))


class _Steps(IterableDataset[int]):
    """One item per step; the module draws its own batches."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


class _SupernetModule(pl.LightningModule):
    def __init__(
        self,
        network: Supernet,
        heads: Sequence[nn.Linear],
        data: Sequence[TrainingData],
        recipe: SupernetRecipe,
        seed: int,
    ) -> None:
        super().__init__()
        self.network, self.heads = network, nn.ModuleList(heads)
        self.data, self.recipe, self.seed = data, recipe, seed
        self.losses: list[float] = []

    def on_fit_start(self) -> None:
        self.data = [TrainingData(d.images.to(self.device), d.labels.to(self.device), d.mean, d.std) for d in self.data]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["losses"] = self.losses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses = list(checkpoint["losses"])

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        step = self.global_step
        step_seed = derive_seed(self.seed, "step", step)
        torch.manual_seed(derive_seed(step_seed, "dropout"))  # for families with dropout
        generator = torch.Generator().manual_seed(step_seed)
        rng = np.random.default_rng(step_seed)
        # Complete rounds over the tasks, each in a new order, so that all get equally many steps.
        round_rng = np.random.default_rng(derive_seed(self.seed, "round", step // len(self.data)))
        task = int(round_rng.permutation(len(self.data))[step % len(self.data)])
        images, labels = self.data[task].batch(self.recipe.batch_size, generator)
        space = self.network.space
        extreme = space.largest() if rng.random() < 0.5 else space.smallest()
        loss = torch.zeros((), device=self.device)
        for architecture in (extreme, space.sample(rng)):
            self.network.active = architecture
            logits = self.heads[task](self.network.features(images))
            loss = loss + F.cross_entropy(logits.float(), labels) / 2
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        heads = list(self.heads.parameters())  # the network's own classifier may be one of them
        body = [parameter for parameter in self.network.parameters() if not any(parameter is head for head in heads)]
        return self.recipe.recipe.optimizers(body, heads, self.recipe.steps)


class _Bar(TQDMProgressBar):
    def __init__(self, description: str) -> None:
        super().__init__(refresh_rate=10)
        self.description = description

    def init_train_tqdm(self) -> Any:
        bar = super().init_train_tqdm()
        bar.set_description(self.description)
        return bar
