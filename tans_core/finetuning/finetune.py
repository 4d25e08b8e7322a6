"""Fine-tunes one network on one task by a recipe. Its classifier starts fresh or fitted to the features.

Every network starts with BatchNorm statistics of the task's training images, in place of its stored ones. Those of
another task would be wrong here, and a short run does not correct them.

Lightning runs the loop, with the whole run as one epoch of batches in memory. Compared with a bare loop over the same
batches on one CPU core, that costs about 1 ms a step, set-up included (60 steps of a tiny network: 0.64 s against
0.59 s).

Axes: N images, B batch, K classes, 3 channels, H = W pixels.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.errors import DivergedError, ParamsError, TooFewImagesError, WeightsError
from tans_core.finetuning.batches import TrainBatches, batches_per_epoch
from tans_core.finetuning.checkpoint import Checkpoint
from tans_core.finetuning.measure import (
    Precision,
    accuracy_of,
    balanced_accuracy_of,
    class_weights,
    logits_of,
    uneven,
    validation_steps,
)
from tans_core.networks.family import Network
from tans_core.networks.frozen import early_layers, train_mode
from tans_core.networks.head import fit_head, head_sample
from tans_core.networks.preprocess import Preprocess, calibrate, normalise
from tans_core.networks.trace import cost_of
from tans_core.recipe import Recipe
from tans_core.runtime import clock, derive_seed, device, keep_freed_memory, quiet_lightning, training
from tans_core.tasks.task import SPLITS, Task

CALIBRATION_IMAGES = 128


@dataclass(frozen=True)
class FinetuneResult:
    """The result of a run.

    Attributes:
        curve: one dict per validation: step and epoch (completed so far), train_loss (mean since the previous one),
            val_accuracy in 0..1, seconds (since the start); val_balanced where weights are chosen by it.
        best_step: the step whose weights were kept.
        best_val_accuracy: their accuracy on the validation split, in 0..1.
        test_accuracy: their accuracy on the test split, in 0..1.
        seconds: of the whole run, validation and test included.
        params_m: parameters in millions, classifier included.
        macs_m: multiply-accumulates of one image in millions.
        preprocess: how the tuned network's input images are prepared.
        test_logits: of the test split, (n, K) float32, on the CPU.
        state_dict: the kept weights, on the CPU.
        batch_size: of the run.
    """

    curve: list[dict[str, float]]
    best_step: int
    best_val_accuracy: float
    test_accuracy: float
    seconds: float
    params_m: float
    macs_m: float
    preprocess: Preprocess
    test_logits: Tensor
    state_dict: dict[str, Tensor]
    batch_size: int


def finetune(
    model: Network,
    task: Task,
    preprocess: Preprocess,
    recipe: Recipe,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int,
    seed: int,
    eval_points: int,
    progress: bool = False,
    precision: Precision = "fp32",
    checkpoint: Checkpoint | None = None,
    by_class: bool = False,
    weigh_classes: bool = False,
) -> FinetuneResult:
    """Train `model`, whose classifier is fresh; afterwards the model has the weights that were kept.

    Validation happens at `eval_points` evenly spaced points, the last one at the end. The weights of the best point are
    kept (ties: the latest, which has trained longest). The test split is read once, at the end, with these weights. On
    the CPU, the same seed and model give the same result; on CUDA, up to the order of sums.

    Args:
        model: maps normalised images (B, 3, H, W) float32 to logits (B, K).
        task: the task to train on.
        preprocess: of the model's card: the size and the normalisation of its images.
        recipe: optimizer, schedule and start of the classifier.
        epochs: budget in passes over the training split; give this or `steps`.
        steps: budget in batches.
        batch_size: B.
        seed: of the batches' order, of the shifts and of dropout.
        eval_points: number of validations, at most one per step.
        progress: show a bar where stderr is a terminal.
        precision: "bf16" runs under autocast, where that is faster; weights stay float32.
        checkpoint: of the same call, to which the state is written, and from which a killed run goes on. The result is
            that of a run without interruption; `seconds` leaves out the time between.
        by_class: where the training images of the classes are uneven, keep the weights of the best balanced accuracy on
            the validation split; points of the curve have it as `val_balanced`.
        weigh_classes: classes count the same in the loss, however many images they have.

    Raises:
        ParamsError: the budget is not exactly one of epochs and steps.
        DivergedError: the loss stopped being finite.
        TooFewImagesError: a split is empty, or the training split has one image only.
        WeightsError: the classifier's outputs are not as many as the task's classes.
    """
    keep_freed_memory()
    elapsed = clock()
    run_device = device()
    _check(model, task)
    on_task = preprocess.on(task.info)
    mean, std = on_task.mean, on_task.std
    images, labels = _to_device(task, on_task, "train", run_device)
    total = _total_steps(epochs, steps, batches_per_epoch(len(images), batch_size))
    model.to(run_device)
    # Features rounded to bf16 can be far off on images unlike those of the pretraining.
    training_precision = model.training_precision(precision, run_device.type)
    calibrate_on_task(model, task, on_task, seed, training_precision)
    frozen = early_layers(model, on_task.image_size_px) if recipe.frozen_steps else []
    if recipe.head == "fitted":
        chosen = head_sample(labels.cpu(), torch.Generator().manual_seed(derive_seed(seed, "head"))).to(run_device)
        head_data = normalise(images[chosen], mean, std), labels[chosen]
        recipe = recipe.scaled_by_fit(fit_head(model, model.classifier, *head_data, training_precision, frozen))
    batches = TrainBatches(
        images, labels, mean=mean, std=std, batch_size=batch_size, steps=total, seed=derive_seed(seed, "batches")
    )
    weights = class_weights(labels, task.info.num_classes) if weigh_classes else None
    module = _Finetuning(model, frozen, total, recipe, weights, batch_size)
    best = _BestByValidation(
        task, on_task, run_device, eval_points, batches_per_epoch(len(images), batch_size), precision, elapsed
    )
    best.by_class = by_class and uneven(labels)
    callbacks: list[pl.Callback] = [best]
    if progress and sys.stderr.isatty():
        from tans_core.finetuning.progress import FinetuneBar

        callbacks.append(FinetuneBar(f"fine-tuning on {task.info.name}"))
    if checkpoint is not None:
        callbacks.append(checkpoint)  # the last one: what the others do at a step is in its state
    quiet_lightning()
    # A loaded network is in eval mode, and Lightning would not change that.
    train_mode(model, frozen)
    # Dropout draws from the global generator: it is seeded here, and its state is restored afterwards.
    with torch.random.fork_rng(), warnings.catch_warnings(), training():
        # Lightning's loader uses a deprecated name of torch.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        # Frozen layers are in eval mode on purpose.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        torch.manual_seed(derive_seed(seed, "dropout"))
        _trainer(run_device, training_precision, callbacks).fit(
            module, train_dataloaders=batches, ckpt_path=checkpoint.found() if checkpoint else None
        )
    model.requires_grad_(True)
    model.load_state_dict(best.weights)
    model.to(run_device)
    test_images, test_labels = _to_device(task, on_task, "test", run_device)
    logits = logits_of(model, test_images, mean=mean, std=std, precision=precision)
    seconds = best.seconds()
    cost = cost_of(model, on_task.image_size_px)
    results = (best.step, best.accuracy, accuracy_of(logits, test_labels), seconds, cost.params_m, cost.macs_m)
    return FinetuneResult(module.curve, *results, on_task, logits.cpu(), best.weights, batch_size)


@torch.no_grad()
def calibrate_on_task(model: Network, task: Task, preprocess: Preprocess, seed: int, precision: str = "fp32") -> None:
    """Set a network's BatchNorm statistics to those of up to `CALIBRATION_IMAGES` random training images of a task."""
    members = task.where("train")
    generator = torch.Generator().manual_seed(derive_seed(seed, "calibration"))
    chosen = members[torch.randperm(len(members), generator=generator)[:CALIBRATION_IMAGES].numpy()]
    images = preprocess.chosen(task, chosen.tolist()).to(next(model.parameters()).device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        calibrate(model, images)


class _Finetuning(pl.LightningModule):
    def __init__(
        self,
        model: Network,
        frozen: Sequence[nn.Module],
        total: int,
        recipe: Recipe,
        weights: Tensor | None,
        batch_size: int,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.frozen = tuple(frozen)
        self.model, self.total, self.recipe, self.weights = model, total, recipe, weights
        self.curve: list[dict[str, float]] = []
        self.losses: list[Tensor] = []

    def on_train_batch_start(self, *_: Any) -> None:
        if self.frozen and self.global_step >= self.recipe.frozen_steps:
            self.frozen = ()
            train_mode(self.model, self.frozen)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.model(images).float(), labels, self.weights)
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> Any:
        head = list(self.model.classifier.parameters())
        body = [one for one in self.model.parameters() if not any(one is other for other in head)]
        return self.recipe.optimizers(body, head, self.total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"curve": self.curve, "losses": self.losses, "batch_size": self.batch_size}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.curve = checkpoint["curve"]
        self.losses = [loss.to(self.model.classifier.weight.device) for loss in checkpoint["losses"]]


class _BestByValidation(pl.Callback):
    """Measures validation accuracy along the run, extends the module's curve, keeps the best weights in memory."""

    def __init__(
        self,
        task: Task,
        preprocess: Preprocess,
        run_device: torch.device,
        points: int,
        per_epoch: int,
        precision: Precision,
        elapsed: Callable[[], float],
    ) -> None:
        self.images, self.labels = _to_device(task, preprocess, "val", run_device)
        self.mean, self.std = preprocess.mean, preprocess.std
        self.info, self.points, self.per_epoch, self.precision = task.info, points, per_epoch, precision
        self.elapsed, self.before_s = elapsed, 0.0
        self.by_class = False
        self.step, self.accuracy, self.score = 0, -1.0, -1.0
        self.weights: dict[str, Tensor] = {}

    def seconds(self) -> float:
        """Return the seconds since the start, and of the run that this one continues."""
        return self.before_s + self.elapsed()

    def state_dict(self) -> dict[str, Any]:
        best = {"step": self.step, "accuracy": self.accuracy, "score": self.score, "weights": self.weights}
        return {**best, "seconds": self.seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.accuracy, self.score = (state_dict[name] for name in ("step", "accuracy", "score"))
        self.weights = {name: value.cpu() for name, value in state_dict["weights"].items()}
        self.before_s = state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.at = validation_steps(int(trainer.num_training_batches), self.points)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step not in self.at:
            return
        assert isinstance(pl_module, _Finetuning)
        loss = float(torch.stack(pl_module.losses).mean())
        pl_module.losses.clear()
        if not math.isfinite(loss):
            raise DivergedError(
                f"Fine-tuning on {self.info.name}: the loss was {loss} by step {step}, want a finite one. Lower the "
                f"learning rate (now {pl_module.recipe.lr:g}, from the model's card, or finetune in params.yaml), or "
                "choose another model: this one's weights may be broken.",
                pl_module.curve,
            )
        model = pl_module.model
        logits = logits_of(model, self.images, mean=self.mean, std=self.std, precision=self.precision)
        train_mode(model, pl_module.frozen)
        val_accuracy = score = accuracy_of(logits, self.labels)
        point = {"step": step, "epoch": step / self.per_epoch, "train_loss": loss, "val_accuracy": val_accuracy}
        if self.by_class:
            score = point["val_balanced"] = balanced_accuracy_of(logits, self.labels)
        pl_module.curve.append({**point, "seconds": self.seconds()})
        if score >= self.score:
            self.step, self.accuracy, self.score = step, val_accuracy, score
            self.weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _trainer(run_device: torch.device, precision: str, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator="gpu" if run_device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _total_steps(epochs: int | None, steps: int | None, per_epoch: int) -> int:
    if (epochs is None) == (steps is None):
        raise ParamsError(f"Budget: got epochs={epochs} and steps={steps}, want exactly one of them.")
    total = steps if steps is not None else (epochs or 0) * per_epoch
    if total < 1:
        raise ParamsError(f"Budget: got epochs={epochs}, steps={steps}, want at least 1.")
    return total


def _check(model: Network, task: Task) -> None:
    name, counts = task.info.name, {split: int((task.splits == split).sum()) for split in SPLITS}
    for split, least in (("train", 2), ("val", 1), ("test", 1)):
        if counts[split] < least:
            raise TooFewImagesError(
                f"Task {name}: the {split} split has {counts[split]} images, want at least {least}. Add images."
            )
    outputs = model.classifier.out_features
    if outputs != task.info.num_classes:
        raise WeightsError(
            f"Task {name} has {task.info.num_classes} classes, but the network's classifier has {outputs} outputs. "
            "Reset the classifier."
        )


def _to_device(task: Task, preprocess: Preprocess, split: str, run_device: torch.device) -> tuple[Tensor, Tensor]:
    labels = torch.from_numpy(task.labels[task.where(split)])
    return preprocess.pixels(task, split).to(run_device), labels.to(run_device)
