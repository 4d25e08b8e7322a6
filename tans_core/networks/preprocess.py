"""From stored pixels to what a network reads. Axes: N images of a task, B of a batch, 3 channels, H = W pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale images to 0..1, then to zero mean and unit deviation a channel.

    Args:
        images: (B, 3, H, W) uint8, any device.
        mean: 3 channel means in 0..1.
        std: 3 channel deviations in 0..1, above 0.

    Returns:
        (B, 3, H, W) float32 on the images' device.
    """
    shape = (1, 3, 1, 1)
    deviation = torch.tensor(std, device=images.device).view(shape)
    centre = torch.tensor(mean, device=images.device).view(shape)
    return images.float() * (1.0 / (255.0 * deviation)) - centre / deviation


def random_shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `pixels` in both directions, repeating its edge; right for glyphs and photographs alike.

    Args:
        images: (B, 3, H, W), any dtype.
        pixels: the largest shift; 0 returns the images.
        generator: a CPU generator, so that every device draws the same shifts.

    Returns:
        (B, 3, H, W) of the same dtype on the same device.
    """
    if pixels == 0:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images.float(), (pixels,) * 4, mode="replicate").to(images.dtype)  # uint8 cannot be padded by edge
    offsets = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator).to(images.device)
    rows = offsets[0, :, None] + torch.arange(height, device=images.device)  # (B, H)
    columns = offsets[1, :, None] + torch.arange(width, device=images.device)  # (B, W)
    batch = torch.arange(count, device=images.device)
    return padded.permute(0, 2, 3, 1)[batch[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def balanced_indices(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw up to `count` indices, shuffled, with as equal a number from each class as there are images.

    Args:
        labels: (N,) int64.
        count: how many indices are wanted.
        generator: a CPU generator.

    Returns:
        (min(count, N),) int64 without repeats.
    """
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels.cpu()[order]
    # Rank of each image inside its class: taking the lowest ranks first goes round the classes.
    rank = torch.empty_like(order)
    for label in shuffled.unique():
        members = (shuffled == label).nonzero()[:, 0]
        rank[members] = torch.arange(len(members))
    chosen = order[torch.argsort(rank, stable=True)[:count]]
    return chosen[torch.randperm(len(chosen), generator=generator)]
