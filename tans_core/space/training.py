"""Training in many short steps by Lightning, shared by all objectives of the space.

Lightning's loop costs more than a step here, so one of its batches holds many steps. A killed run resumes from its last
checkpoint and ends with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from tans_core import io
from tans_core.errors import TansError, WeightsError
from tans_core.networks.family import load_state
from tans_core.runtime import derive_seed, keep_freed_memory, progress, quiet_lightning, training
from tans_core.runtime import device as best_device
from tans_core.zoo.weights import load_tensors, save_tensors

logger = logging.getLogger(__name__)

Curve = list[dict[str, float]]
Schedule = Literal["constant", "cosine"]
Precision = Literal["fp32", "bf16"]

CHECKPOINT_FILE = "steps.safetensors"
_MODULE, _OPTIMIZER = "module/", "optimizer/"


def step_generator(seed: int, step: int, purpose: str = "step") -> torch.Generator:
    """Return a generator on the CPU that depends on seed, step number and purpose only."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, step))


@functools.cache
def code_digest() -> str:
    """Return a hash of the space's code and of the code it depends on."""
    return io.code_digest(sorted(Path(__file__).parent.glob("*.py")))


def train_steps(
    module: nn.Module,
    step_loss: Callable[[int], Tensor],
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    steps: int,
    *,
    schedule: Schedule = "constant",
    every: int = 0,
    on_step: Callable[[int], Mapping[str, float]] | None = None,
    chunk: int = 200,
    resume_folder: Path | None = None,
    fingerprint: str = "",
    precision: Precision = "fp32",
    device: str = "auto",
    description: str = "training",
) -> Curve:
    """Train a module in place; it is on the CPU and in eval mode afterwards.

    Random numbers of a step must depend on a seed and the step's number only (`step_generator`). Then the same seed
    gives the same bytes on a CPU, however often the run was killed and resumed.

    Args:
        module: what is trained. Tensors that `step_loss` needs should be its buffers, which move to the device with it
            (`persistent=False` keeps them out of checkpoints).
        step_loss: maps a step's number, from 0, to a scalar loss.
        make_optimizer: makes an optimizer of the module's parameters.
        steps: total number of steps.
        schedule: `constant`, or `cosine` from the optimizer's learning rates to zero.
        every: steps between two calls of `on_step`, which is also called after the last step; 0 never calls it.
        on_step: maps the number of steps done to measurements, a row of the curve; may put the module in eval mode.
        chunk: steps between two checkpoints; one batch for Lightning.
        resume_folder: where the checkpoint is kept, for the caller to remove at the end; None keeps none.
        fingerprint: identifies data, recipe and seed. A checkpoint is ignored if it differs in fingerprint, code,
            number of steps, schedule, precision, shapes or number of threads.
        precision: `bf16` computes the loss under autocast; weights stay float32.
        device: `auto`, `cpu` or `cuda`.
        description: label of the progress bar.

    Returns:
        The rows of `on_step`, each with its `step`, including those from before a kill.

    Raises:
        TansError: the loss is no longer finite.
    """
    quiet_lightning()
    keep_freed_memory()
    module.train()
    plan = {
        "fingerprint": fingerprint,
        "code": code_digest(),
        "threads": torch.get_num_threads(),
        "steps": steps,
        "schedule": schedule,
        "every": every,
        "precision": precision,
        "shapes": {name: list(value.shape) for name, value in module.state_dict().items()},
    }
    checkpoint = _Checkpoint.read(resume_folder, plan, description)
    loop = _Loop(module, step_loss, make_optimizer, plan, every, on_step, resume_folder, checkpoint)
    start = checkpoint.step if checkpoint else 0
    accelerator = best_device().type if device == "auto" else device
    trainer = pl.Trainer(
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=1,
        max_epochs=1,
        # We set precision ourselves: autocast caches its copies of the weights until it ends, here for many steps.
        precision="32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    if start < steps:
        with training():
            trainer.fit(loop, DataLoader(_Chunks(start, steps, chunk, description), batch_size=None))
    elif checkpoint:
        load_state(module, checkpoint.module, CHECKPOINT_FILE)
    module.cpu().eval()
    return loop.curve


class _Chunks(IterableDataset[tuple[int, int]]):
    """First step of each chunk, and the first after it."""

    def __init__(self, start: int, steps: int, chunk: int, description: str) -> None:
        self.chunks = [(first, min(first + chunk, steps)) for first in range(start, steps, chunk)]
        self.start, self.steps, self.description = start, steps, description

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return progress(self.chunks, self.description, self.steps - self.start, lambda chunk: chunk[1] - chunk[0])


@dataclass(frozen=True)
class _Checkpoint:
    """The state after a number of steps, in one file, so that its parts always belong together."""

    step: int
    curve: Curve
    module: dict[str, Tensor]
    optimizer: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path | None, plan: Mapping[str, Any], description: str) -> _Checkpoint | None:
        path = folder / CHECKPOINT_FILE if folder else None
        if path is None or not path.is_file():
            return None
        try:
            tensors = load_tensors(path)
        except WeightsError as error:
            logger.warning("%s restarts from step 0: %s", description, error)
            return None
        with safe_open(path, framework="pt") as file:
            progress_made = json.loads((file.metadata() or {}).get("progress", "{}"))
        if progress_made.get("plan") != plan:
            logger.info("%s restarts from step 0: %s is of another run", description, path)
            return None
        logger.info("%s resumes from step %d, in %s", description, progress_made["step"], path)
        parts = (
            {name[len(part) :]: value for name, value in tensors.items() if name.startswith(part)}
            for part in (_MODULE, _OPTIMIZER)
        )
        return cls(progress_made["step"], progress_made["curve"], *parts)


class _Loop(pl.LightningModule):
    def __init__(
        self,
        module: nn.Module,
        step_loss: Callable[[int], Tensor],
        make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        plan: dict[str, Any],
        every: int,
        on_step: Callable[[int], Mapping[str, float]] | None,
        folder: Path | None,
        checkpoint: _Checkpoint | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module, self.step_loss, self.make_optimizer = module, step_loss, make_optimizer
        self.plan, self.every, self.on_step = plan, every, on_step
        self.folder, self.checkpoint = folder, checkpoint
        self.curve: Curve = list(checkpoint.curve) if checkpoint else []

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.make_optimizer(self.module.parameters())
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        return optimizer

    def on_train_start(self) -> None:
        # Weights and optimizer are on the device only from here on.
        if self.checkpoint:
            load_state(self.module, self.checkpoint.module, CHECKPOINT_FILE)
            _load_optimizer(self._optimizer(), self.checkpoint.optimizer)
            self.checkpoint = None

    def training_step(self, batch: tuple[int, int], batch_idx: int) -> None:
        optimizer = self._optimizer()
        loss = torch.zeros(())
        for step in range(*batch):
            factor = self._factor(step)
            for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan["precision"] == "bf16"):
                loss = self.step_loss(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done = step + 1
            if self.on_step and self.every and (done % self.every == 0 or done == self.plan["steps"]):
                self.curve.append({"step": done, **self.on_step(done)})
                self.module.train()
        # Once a chunk: on a GPU, reading a number waits for all queued work.
        if not math.isfinite(float(loss.detach())):
            raise TansError(
                f"the loss is {float(loss.detach())} after {batch[1]} steps. Lower the learning rate (now "
                f"{self.rates[0]:g}), and check that embeddings and accuracies are finite."
            )
        if self.folder:
            self._save(self.folder, batch[1])

    def _factor(self, step: int) -> float:
        if self.plan["schedule"] == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * step / self.plan["steps"]))

    def _optimizer(self) -> Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return optimizer

    def _save(self, folder: Path, step: int) -> None:
        tensors = {_MODULE + name: value for name, value in self.module.state_dict().items()}
        for number, values in self._optimizer().state_dict()["state"].items():
            tensors |= {f"{_OPTIMIZER}{number}/{name}": v for name, v in values.items() if isinstance(v, Tensor)}
        progress_made = json.dumps({"plan": self.plan, "step": step, "curve": self.curve})
        save_tensors(tensors, folder / CHECKPOINT_FILE, {"progress": progress_made})


def _load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
