"""From stored pixels to a network's input. Axes: N images of a task, B of a batch, 3 channels, H = W pixels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
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
"""Input values of a batch: some 5,000 images of 32 pixels, 106 of 224; early layers' outputs take twenty times that."""
EVAL_BATCH = 32
"""Images of a forward pass that trains nothing. On a CPU, 256 images of 96 pixels at once take twice the time."""
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
assert set(INTERPOLATIONS) == set(get_args(Interpolation))


class Preprocess(BaseModel):
    """How a model's input images are prepared: part of its card.

    Attributes:
        image_size_px: side of its input.
        mean, std: per channel, in 0..1.
        statistics: `own`: this mean and std for all images, as published weights need; `task`: those of the images that
            it is tuned on, which suits small networks whose weights are all trained.
        interpolation: how images are scaled; a key of `tans_core.tasks.pixels.INTERPOLATIONS`.
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
        """How images are scaled, without the normalisation: size, interpolation, crop."""
        return self.image_size_px, self.interpolation, self.crop

    def on(self, info: TaskInfo) -> Preprocess:
        """Return the preprocessing of a task's images, with the task's statistics where these apply."""
        if self.statistics == "own":
            return self
        return self.model_copy(update={"mean": info.mean, "std": info.std})

    def pixels(self, task: Task, split: str) -> Tensor:
        """Return the images of a split (N, 3, S, S) uint8."""
        return torch.from_numpy(task.pixels(*self.form, split))

    def chosen(self, task: Task, indices: Sequence[int]) -> Tensor:
        """Return some images of a task, normalised: (n, 3, S, S) float32."""
        on_task = self.on(task.info)
        return normalise(torch.from_numpy(task.images.at(*self.form, indices)), on_task.mean, on_task.std)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode; afterwards each module is in its mode of before."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def batch_statistics(network: nn.Module, fixed: Collection[nn.Module] = ()) -> Iterator[list[_BatchNorm]]:
    """Make BatchNorm use the statistics of each batch, except in layers `fixed`; afterwards the network is as before.

    Dropout and everything else stay in eval mode. Yields the BatchNorm layers.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module not in fixed]
    saved_buffers = [{name: value.clone() for name, value in norm.named_buffers(recurse=False)} for norm in norms]
    momenta = [norm.momentum for norm in norms]
    with evaluating(network):
        for norm in norms:
            norm.train()
        try:
            yield norms
        finally:
            for norm, momentum, buffers in zip(norms, momenta, saved_buffers, strict=True):
                norm.momentum = momentum
                for name, value in norm.named_buffers(recurse=False):
                    value.copy_(buffers[name])


@contextmanager
@torch.no_grad()
def statistics_of(network: nn.Module, images: Tensor, fixed: Collection[nn.Module] = ()) -> Iterator[list[_BatchNorm]]:
    """Set BatchNorm to the statistics of images (N, 3, H, W), which must be shuffled or balanced; afterwards as before.

    All images form one batch, since the mean of small batches' variances is not the variance. Everything is in eval
    mode inside. Layers `fixed` keep their statistics. Yields the other BatchNorm layers.
    """
    with batch_statistics(network, fixed) as norms:
        if norms:
            for norm in norms:
                norm.momentum = 1.0
            network.features(images)  # type: ignore[operator]
            for norm in norms:
                norm.eval()
        yield norms


def batch_of(image_size_px: int) -> int:
    """Return the batch size for inference on images of a size: 32 to 512."""
    return min(512, max(32, _BATCH_VALUES // (3 * image_size_px**2)))


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor) -> None:
    """Set a network's BatchNorm statistics permanently to those of images (N, 3, H, W) (`statistics_of`).

    Nothing else changes.
    """
    with statistics_of(network, images) as norms:
        statistics = [{name: value.clone() for name, value in norm.named_buffers(recurse=False)} for norm in norms]
    for norm, buffers in zip(norms, statistics, strict=True):
        for name in ("running_mean", "running_var"):
            if name in buffers:
                getattr(norm, name).copy_(buffers[name])


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale images to 0..1, then to zero mean and unit deviation per channel.

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


def shift_repeating_edges(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each image randomly by up to `pixels` in both directions, repeating its edge; suits glyphs and photographs.

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
    """Draw up to `count` indices, shuffled, as evenly over the classes as their sizes allow.

    Args:
        labels: (N,) int64.
        count: how many indices are wanted.
        generator: a CPU generator.

    Returns:
        (min(count, N),) int64 without repeats.
    """
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels.cpu()[order]
    # Rank of each image within its class. Taking the lowest ranks first cycles through the classes.
    rank = torch.empty_like(order)
    for label in shuffled.unique():
        members = (shuffled == label).nonzero()[:, 0]
        rank[members] = torch.arange(len(members))
    chosen = order[torch.argsort(rank, stable=True)[:count]]
    return chosen[torch.randperm(len(chosen), generator=generator)]
