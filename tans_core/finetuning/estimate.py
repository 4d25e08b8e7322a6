"""Estimates time and memory of a fine-tuning before it starts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tans_core.finetuning.batches import batches_per_epoch
from tans_core.networks.family import Network
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.trace import trace
from tans_core.runtime import clock, device
from tans_core.tasks.task import Task

_STEPS = 3
_KEPT = 3.75
"""What a training step keeps, over the outputs of convolutions alone: norms and activations have outputs, too. Measured
on a CPU, batches of 32 and 64: 3.2 to 3.8 for EfficientNet-Lite0, ResNet-18, MobileNetV3 and a plain network."""


def estimate_seconds(
    network: Network, task: Task, preprocess: Preprocess, *, epochs: int, batch_size: int, eval_points: int
) -> float:
    """Time a few steps on random images, and return the seconds that a fine-tuning will take, validation included.

    Args:
        network: with the classifier of the task; it stays as it is.
        task, preprocess, epochs, batch_size, eval_points: as for `finetune`.

    Raises:
        ParamsError, TooFewImagesError: as `finetune`.
        RuntimeError: a step does not fit into memory.
    """
    counts = {split: len(task.where(split)) for split in ("train", "val")}
    steps = epochs * batches_per_epoch(counts["train"], batch_size)
    size, side = min(batch_size, counts["train"]), preprocess.image_size_px
    images = torch.rand(size, 3, side, side, device=device())
    labels = torch.zeros(size, dtype=torch.int64, device=images.device)
    twin = copy.deepcopy(network).to(images.device).train()
    optimizer = torch.optim.SGD(twin.parameters(), lr=1e-6, momentum=0.9)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(twin(images).float(), labels)
        loss.backward()
        optimizer.step()
        return loss

    def forward() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = twin(images)
            return logits.sum()

    with torch.random.fork_rng():
        step_s = _seconds(step)
    twin.eval()
    image_s = _seconds(forward) / size
    return steps * step_s + eval_points * counts["val"] * image_s


def estimate_memory_mb(network: Network, preprocess: Preprocess, *, batch_size: int) -> float:
    """Return about how many megabytes the training takes beside the images, from the shapes of the layers.

    That is weights, gradients, up to two moments of the optimizer, and what a step keeps of each layer, in float32.

    Args:
        network: with the classifier of the task; it stays as it is.
        preprocess, batch_size: as for `finetune`.
    """
    outline = copy.deepcopy(network).to("meta")
    traced = trace(outline, outline, preprocess.image_size_px)
    outputs = batch_size * sum(layer.values for layer in traced.layers)
    return 4 * (4 * traced.params + _KEPT * outputs) / 1e6


def _seconds(work: Callable[[], Tensor]) -> float:
    times = []
    for _ in range(_STEPS):
        elapsed = clock()
        float(work().detach())  # waits for a GPU
        times.append(elapsed())
    return min(times[1:])
