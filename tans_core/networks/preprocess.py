"""From stored pixels to what a network reads. Axes: N images of a task, B of a batch, 3 channels, H = W pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tans_core.tasks.pixels import INTERPOLATIONS
from tans_core.tasks.task import Task, TaskInfo

Triple = tuple[float, float, float]
_BATCH_VALUES = 16_000_000
"""Input values of a batch: some 5,000 images of 32 pixels, 106 of 224; early layers' answers take twenty times that."""
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
assert set(INTERPOLATIONS) == set(get_args(Interpolation))


class Preprocess(BaseModel):
    """What a model's images go through before it: part of its card.

    Attributes:
        image_size_px: side of its input.
        mean, std: a channel, in 0..1.
        statistics: `own`: these mean and std, whatever the images, as published weights want it; `task`: those of the
            images that it is tuned on, as small networks that are trained as a whole want it.
        interpolation: what scales the images; a key of `tans_core.tasks.pixels.INTERPOLATIONS`.
        crop: share of the side that is kept around the centre, above 0 and at most 1.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    image_size_px: Annotated[int, Field(ge=8, le=1024)]
    mean: Triple
    std: Triple
    statistics: Literal["own", "task"] = "own"
    interpolation: Interpolation = "bicubic"
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def form(self) -> tuple[int, str, float]:
        """How images are scaled, without what normalises them: size, interpolation, crop."""
        return self.image_size_px, self.interpolation, self.crop

    def on(self, info: TaskInfo) -> Preprocess:
        """Return what images of a task go through."""
        if self.statistics == "own":
            return self
        return self.model_copy(update={"mean": info.mean, "std": info.std})

    def pixels(self, task: Task, split: str) -> Tensor:
        """Return the images of a split (N, 3, S, S) uint8."""
        return torch.from_numpy(task.pixels(*self.form, split))

    def chosen(self, task: Task, indices: Sequence[int]) -> Tensor:
        """Return some images of a task, normalised: (n, 3, S, S) float32."""
        own = self.on(task.info)
        return normalise(torch.from_numpy(task.images.at(*self.form, indices)), own.mean, own.std)


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Let BatchNorm, and nothing else, take its statistics from the images; afterwards the network is as it was before.

    Dropout and everything else stay in eval mode. Yields the layers.
    """
    modes = [(module, module.training) for module in network.modules()]
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [{name: value.clone() for name, value in norm.named_buffers(recurse=False)} for norm in norms]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
    try:
        yield norms
    finally:
        for norm, momentum, buffers in zip(norms, momenta, kept, strict=True):
            norm.momentum = momentum
            for name, value in norm.named_buffers(recurse=False):
                value.copy_(buffers[name])
        for module, training in modes:
            module.training = training


@contextmanager
@torch.no_grad()
def statistics_of(network: nn.Module, images: Tensor) -> Iterator[list[_BatchNorm]]:
    """Give BatchNorm the statistics of images (N, 3, H, W), which must be shuffled or balanced; as before afterwards.

    One batch of all the images, since the mean of small batches' variances is not the variance. Everything is in eval
    mode inside. Yields the layers.
    """
    with batch_statistics(network) as norms:
        if norms:
            for norm in norms:
                norm.momentum = 1.0
            network.features(images)  # type: ignore[operator]
            for norm in norms:
                norm.eval()
        yield norms


def batch_of(image_size_px: int) -> int:
    """Return how many images of a size are given to a network at once where all of them are wanted: 32 to 512."""
    return min(512, max(32, _BATCH_VALUES // (3 * image_size_px**2)))


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor) -> None:
    """Set the BatchNorm statistics of a network to those of images (N, 3, H, W) for good (`statistics_of`).

    Nothing else changes.
    """
    with statistics_of(network, images) as norms:
        found = [{name: value.clone() for name, value in norm.named_buffers(recurse=False)} for norm in norms]
    for norm, buffers in zip(norms, found, strict=True):
        for name in ("running_mean", "running_var"):
            if name in buffers:
                getattr(norm, name).copy_(buffers[name])


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
