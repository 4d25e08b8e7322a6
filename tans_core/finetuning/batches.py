"""Batches of a task's images, in memory on the training device, drawn and shifted by their own generator.

Axes: N images, B batch, 3 channels, H = W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tans_core.errors import ParamsError, TooFewImagesError
from tans_core.networks.preprocess import normalise


def batches_per_epoch(num_images: int, batch_size: int) -> int:
    """Count an epoch's batches. A last batch of one image is left out: BatchNorm cannot train on it.

    Raises:
        ParamsError: batch_size is below 2.
        TooFewImagesError: there are fewer than 2 images.
    """
    if batch_size < 2:
        raise ParamsError(f"batch_size: got {batch_size}, want at least 2. Raise finetune.batch_size.")
    if num_images < 2:
        raise TooFewImagesError(f"Training split: got {num_images} images, want at least 2. Add images.")
    full, remainder = divmod(num_images, batch_size)
    return full + (remainder > 1)


class TrainBatches:
    """All batches of one run, epoch after epoch. Iterating again gives the same batches.

    `state_dict` and `load_state_dict` are for Lightning: after a load, the first iteration begins at that step.

    Every epoch visits the images in a new order. Images are shifted randomly by up to an eighth of their size, which
    suits characters and photographs alike. They are never flipped, since a flipped character is another one.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        steps: int,
        seed: int,
    ) -> None:
        """Hold one split.

        Args:
            images: (N, 3, H, W) uint8, on the device that trains.
            labels: (N,) int64, on the same device.
            mean: 3 channel means in 0..1.
            std: 3 channel deviations in 0..1.
            batch_size: B, at least 2.
            steps: batches of the whole run.
            seed: of the order and of the shifts.

        Raises:
            ParamsError, TooFewImagesError: as `batches_per_epoch`.
        """
        self.per_epoch = batches_per_epoch(len(images), batch_size)
        self.images, self.labels, self.mean, self.std = images, labels, mean, std
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.start = self.done = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images (B, 3, H, W) float32 and labels (B,) int64."""
        # Always on the CPU, so that a seed gives the same batches on every device.
        generator = torch.Generator().manual_seed(self.seed)
        max_shift_px = self.images.shape[-1] // 8
        order = torch.empty(0, dtype=torch.int64)
        start, self.start = self.start, 0
        for step in range(self.steps):
            position = step % self.per_epoch
            if position == 0:
                order = torch.randperm(len(self.images), generator=generator)
            chosen = order[position * self.batch_size : (position + 1) * self.batch_size].to(self.images.device)
            shifts = draw_shifts(len(chosen), max_shift_px, generator)
            if step < start:
                continue  # drawn all the same, so that the generator goes on as it would have
            images = shift_mirroring_edges(self.images[chosen], shifts)
            self.done = step + 1
            yield normalise(images, self.mean, self.std), self.labels[chosen]

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["done"]


def draw_shifts(count: int, max_shift_px: int, generator: torch.Generator) -> Tensor:
    """Draw a shift down and to the right in pixels for each image, up to `max_shift_px`: (2, count, 1) int64."""
    return torch.randint(-max_shift_px, max_shift_px + 1, (2, count, 1), generator=generator)


def shift_mirroring_edges(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift each image by whole numbers of pixels in both directions; mirror its edges to fill the gap.

    Args:
        images: (B, 3, H, W), any dtype and device.
        shifts: from `draw_shifts`, each smaller than H, on the CPU.

    Returns:
        (B, 3, H, W), same dtype and device.
    """
    count, _, height, width = images.shape
    rows = _mirror(torch.arange(height) + shifts[0], height).to(images.device)  # (B, H)
    columns = _mirror(torch.arange(width) + shifts[1], width).to(images.device)  # (B, W)
    image = torch.arange(count, device=images.device).view(-1, 1, 1)
    # Index arrays on both sides of the channel axis move it to the end: (B, H, W, 3).
    return images[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _mirror(positions: Tensor, size: int) -> Tensor:
    return (size - 1) - ((size - 1) - positions.abs()).abs()
