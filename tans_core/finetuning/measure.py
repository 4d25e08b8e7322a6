"""How a network does along a fine-tuning.

Axes: N images, K classes, 3 channels, H = W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tans_core.networks.preprocess import EVAL_BATCH, normalise

Precision = Literal["fp32", "bf16"]
UNEVEN = 3
"""Classes are uneven if the largest one has so many times the images of the smallest one."""


def validation_steps(total: int, points: int) -> frozenset[int]:
    """Return the steps, counted from 1, after which a run of `total` steps is validated; `total` is always one."""
    return frozenset(-(-total * point // points) for point in range(1, points + 1))


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    return int((logits.argmax(dim=1) == labels).sum()) / len(labels)


def logits_of(
    model: nn.Module,
    images: Tensor,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    precision: Precision = "fp32",
) -> Tensor:
    """Return the logits (N, K) float32 of the model, in eval mode.

    Args:
        model: on the images' device; left in eval mode.
        images: (N, 3, H, W) uint8, N at least 1.
        mean: 3 channel means in 0..1.
        std: 3 channel deviations in 0..1.
        precision: as in `finetune`.
    """
    model.eval()
    with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return torch.cat([model(normalise(batch, mean, std)).float() for batch in images.split(EVAL_BATCH)])


def balanced_accuracy_of(logits: Tensor, labels: Tensor) -> float:
    """Return the mean recall of the classes that occur among labels (N,) int64, of logits (N, K)."""
    right = (logits.argmax(dim=1) == labels).double()
    return float(torch.stack([right[labels == label].mean() for label in labels.unique()]).mean())


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return a weight for each class (K,) float32, inverse to its images; 1 on the average over labels (N,) int64."""
    counts = labels.bincount(minlength=num_classes).float()
    present = counts.clamp(min=1)
    return len(labels) / (int((counts > 0).sum()) * present)


def uneven(labels: Tensor) -> bool:
    """Return whether the classes that occur among labels (N,) int64 are uneven."""
    counts = labels.bincount()
    counts = counts[counts > 0]
    return int(counts.max()) >= UNEVEN * int(counts.min())
