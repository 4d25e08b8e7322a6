"""Training in many short steps, by Lightning: what every objective of the space shares.

Lightning's loop costs more than a step here, so it sees one batch that holds many. A run that was killed goes on from its last
checkpoint and ends with the same bytes as one that was not.
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
    """Return a generator on the CPU that follows from the seed, the step's number and the purpose alone."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, step))


@functools.cache
def code_digest() -> str:
    """Return a hash of the space's own code and of what it stands on."""
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

    What is random at a step must follow from a seed and the step's number alone (`step_generator`): then the same seed gives the
    same bytes on a CPU, however often the run was killed and started again.

    Args:
        module: what is trained. Tensors that `step_loss` needs are best buffers of it (`persistent=False` keeps them out of
            checkpoints): they move to the device with it.
        step_loss: from a step's number, counted from 0, to a scalar loss.
        make_optimizer: makes one of the module's parameters.
        steps: how many in all.
        schedule: `constant`, or `cosine` from the optimizer's learning rates to zero.
        every: after each so many steps, and after the last one, `on_step` is called; 0 calls it never.
        on_step: from the number of steps done to measurements, a row of the curve; the module may be put in eval mode.
        chunk: steps between two checkpoints, which Lightning takes for one batch.
        resume_folder: where the checkpoint is kept, for the caller to remove when its outputs are written; None keeps none.
        fingerprint: names the data, the recipe and the seed. A checkpoint of another fingerprint, or of another number of steps,
            schedule, precision, shape or number of threads, or that other code made, is not gone on from.
        precision: `bf16` computes the loss under autocast; weights stay float32.
        device: `auto`, `cpu` or `cuda`.
        description: what a progress bar says.

    Returns:
        The rows of `on_step`, each with its `step`; those from before a kill too.

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
    found = _Checkpoint.read(resume_folder, plan, description)
    loop = _Loop(module, step_loss, make_optimizer, plan, every, on_step, resume_folder, found)
    start = found.step if found else 0
    place = best_device().type if device == "auto" else device
    trainer = pl.Trainer(
        accelerator="gpu" if place == "cuda" else place,
        devices=1,
        max_epochs=1,
        # Precision is ours: autocast keeps its copies of the weights until it ends, and would go on with those of the first step.
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
    elif found:
        load_state(module, found.module, CHECKPOINT_FILE)
    module.cpu().eval()
    return loop.curve


class _Chunks(IterableDataset[tuple[int, int]]):
    """First and last-but-one step of each chunk."""

    def __init__(self, start: int, steps: int, chunk: int, description: str) -> None:
        self.chunks = [(first, min(first + chunk, steps)) for first in range(start, steps, chunk)]
        self.start, self.steps, self.description = start, steps, description

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return progress(self.chunks, self.description, self.steps - self.start, lambda chunk: chunk[1] - chunk[0])


@dataclass(frozen=True)
class _Checkpoint:
    """The state after a number of steps: one file, so that its parts never come from different moments."""

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
            logger.warning("%s starts over: %s", description, error)
            return None
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {}).get("progress", "{}"))
        if told.get("plan") != plan:
            logger.info("%s starts over: %s is of another run", description, path)
            return None
        logger.info("%s goes on from step %d, in %s", description, told["step"], path)
        parts = (
            {name[len(part) :]: value for name, value in tensors.items() if name.startswith(part)}
            for part in (_MODULE, _OPTIMIZER)
        )
        return cls(told["step"], told["curve"], *parts)


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
        found: _Checkpoint | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module, self.step_loss, self.make_optimizer = module, step_loss, make_optimizer
        self.plan, self.every, self.on_step = plan, every, on_step
        self.folder, self.found = folder, found
        self.curve: Curve = list(found.curve) if found else []

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.make_optimizer(self.module.parameters())
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        return optimizer

    def on_train_start(self) -> None:
        # Only here are weights and optimizer on the device.
        if self.found:
            load_state(self.module, self.found.module, CHECKPOINT_FILE)
            _load_optimizer(self._optimizer(), self.found.optimizer)
            self.found = None

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
        # Once a chunk: on a GPU each look at a number waits for all that was asked of it.
        if not math.isfinite(float(loss.detach())):
            raise TansError(
                f"the loss is {float(loss.detach())} after {batch[1]} steps. Lower the learning rate (now {self.rates[0]:g}), "
                "and check that embeddings and accuracies are finite."
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
        told = json.dumps({"plan": self.plan, "step": step, "curve": self.curve})
        save_tensors(tensors, folder / CHECKPOINT_FILE, {"progress": told})


def _load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
