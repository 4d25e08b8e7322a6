"""Inverted residual blocks, elastic in kernel size and expansion: the parts of mobile networks.

A block is conv(1 x 1) to `expansion` times its input, a depthwise conv(k x k), optional squeeze-excitation, and
conv(1 x 1) to the stage's width, plus its input where shapes allow.

Axes: B images, C channels, S pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tans_core.networks.depthwise import depthwise_conv
from tans_core.networks.slicing import conv_norm, slice_weights

Kernel = Literal[3, 5, 7]
Channels = Annotated[int, Field(ge=1, le=4096)]


class Block(BaseModel):
    """Kernel size of the depthwise convolution, and expanded channels as a multiple of the block's input."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kernel: Kernel
    expansion: Annotated[int, Field(ge=1, le=8)]


Member = tuple[tuple[Block, ...], ...]
"""The blocks of each stage."""


@dataclass(frozen=True)
class Style:
    """What differs between kinds of networks with such blocks.

    Attributes:
        activation: after the first two convolutions.
        eps: of BatchNorm.
        late_padding: pad as TensorFlow does, an odd pixel after the image; otherwise equally on both sides.
        squeeze: squeeze-excitation after the depthwise convolution.
        kernels: sizes with a learned matrix from each to the next smaller one; without, a kernel's rim is cut off.
    """

    activation: Callable[[Tensor], Tensor]
    eps: float
    late_padding: bool
    squeeze: bool = False
    kernels: tuple[int, ...] = ()


class ConvNorm(nn.Module):
    """Convolution without bias, then BatchNorm; both can run on a slice of their channels."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, style: Style, *, depthwise: bool = False
    ) -> None:
        super().__init__()
        self.stride, self.depthwise, self.late_padding = stride, depthwise, style.late_padding
        self.weight = nn.Parameter(torch.empty(outputs, 1 if depthwise else inputs, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(outputs, eps=style.eps)
        self.transforms: nn.ParameterDict | None = None
        if depthwise and style.kernels:
            sizes = sorted(style.kernels, reverse=True)
            pairs = itertools.pairwise(sizes)
            self.transforms = nn.ParameterDict({f"{size}to{smaller}": torch.eye(smaller**2) for size, smaller in pairs})

    def forward(self, hidden: Tensor, kernel: int | None = None, outputs: int | None = None) -> Tensor:
        """Map (B, inputs, S, S) to (B, outputs, S / stride, S / stride)."""
        full_outputs, _, full_kernel, _ = self.weight.shape
        kernel, outputs = kernel or full_kernel, outputs or full_outputs
        inputs = 1 if self.depthwise else hidden.shape[1]
        weight = slice_weights(self.weight, torch.Size((outputs, inputs, full_kernel, full_kernel)))
        weight = smaller_kernel(weight, kernel, self.transforms or {})
        # Equal on both sides; late padding puts an odd pixel after the image.
        size = hidden.shape[-1]
        total_padding = max((math.ceil(size / self.stride) - 1) * self.stride + kernel - size, 0)
        padding = total_padding // 2 if self.late_padding else kernel // 2
        if self.late_padding and total_padding % 2:
            hidden, padding = F.pad(hidden, (padding, total_padding - padding) * 2), 0
        convolve = partial(depthwise_conv if self.depthwise else F.conv2d, stride=self.stride, padding=padding)
        return conv_norm(hidden, weight, self.norm, convolve)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channel means; can run on its first channels only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, divisible(channels // 4), 1)
        self.expand = nn.Conv2d(divisible(channels // 4), channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, C, S, S) to the same shape."""
        channels = hidden.shape[1]
        inner = divisible(channels // 4)
        assert self.reduce.bias is not None and self.expand.bias is not None
        means = hidden.mean(dim=(2, 3), keepdim=True)
        gate = F.relu(F.conv2d(means, self.reduce.weight[:inner, :channels], self.reduce.bias[:inner]))
        gate = F.conv2d(gate, self.expand.weight[:channels, :inner], self.expand.bias[:channels])
        return hidden * F.hardsigmoid(gate)


class InvertedResidual(nn.Module):
    """One block with the weights of its largest choice; smaller choices run on slices of them."""

    def __init__(self, inputs: int, outputs: int, block: Block, stride: int, style: Style) -> None:
        super().__init__()
        inner = inputs * block.expansion
        self.has_shortcut = stride == 1 and inputs == outputs
        self.activation = style.activation
        self.expand = ConvNorm(inputs, inner, 1, 1, style) if block.expansion > 1 else None
        self.depthwise = ConvNorm(inner, inner, block.kernel, stride, style, depthwise=True)
        self.squeeze = SqueezeExcite(inner) if style.squeeze else None
        self.project = ConvNorm(inner, outputs, 1, 1, style)

    def forward(self, hidden: Tensor, choice: Block) -> Tensor:
        """Map (B, inputs, S, S) to (B, outputs, S / stride, S / stride) through the first of the expanded channels."""
        inner, block_input = hidden.shape[1] * choice.expansion, hidden
        if self.expand is not None:
            hidden = self.activation(self.expand(hidden, outputs=inner))
        hidden = self.activation(self.depthwise(hidden, choice.kernel, inner))
        if self.squeeze is not None:
            hidden = self.squeeze(hidden)
        hidden = self.project(hidden)
        return block_input + hidden if self.has_shortcut else hidden

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Sort the expanded channels by the size of their projection weights; outputs stay the same."""
        if self.expand is None:
            return
        order = self.project.weight.abs().sum(dim=(0, 2, 3)).argsort(descending=True, stable=True)
        self.project.weight.copy_(self.project.weight[:, order])
        for part in (self.expand, self.depthwise):
            for tensor in (part.weight, *part.norm.state_dict().values()):
                if tensor.ndim:
                    tensor.copy_(tensor[order])


def smaller_kernel(weight: Tensor, kernel: int, transforms: Mapping[str, Tensor] | nn.ParameterDict) -> Tensor:
    """Reduce a depthwise weight (C, 1, K, K) to a smaller kernel, (C, 1, kernel, kernel).

    Args:
        weight: the larger kernel.
        kernel: the wanted size.
        transforms: matrices (k², k²) applied to the centre at each step, `7to5` and `5to3`; without them the centre is
            taken as it is (Cai et al., Once-for-All, ICLR 2020).
    """
    while weight.shape[-1] > kernel and f"{weight.shape[-1]}to{weight.shape[-1] - 2}" in transforms:
        size = weight.shape[-1] - 2
        centre = slice_weights(weight, torch.Size((*weight.shape[:2], size, size)))
        matrix = transforms[f"{size + 2}to{size}"]
        weight = F.linear(centre.flatten(1), matrix).view(centre.shape)
    return slice_weights(weight, torch.Size((*weight.shape[:2], kernel, kernel)))


def build_stages(
    inputs: int, widths: Iterable[int], strides: Iterable[int], stages: Member, styles: Iterable[Style]
) -> tuple[nn.ModuleList, int]:
    """Return the stages of a network, each a list of blocks, and the output channels of the last."""
    built = nn.ModuleList()
    for outputs, stride, stage, style in zip(widths, strides, stages, styles, strict=True):
        blocks = nn.ModuleList()
        for position, block in enumerate(stage):
            blocks.append(InvertedResidual(inputs, outputs, block, stride if position == 0 else 1, style))
            inputs = outputs
        built.append(blocks)
    return built, inputs


def divisible(channels: float, by: int = 8) -> int:
    """Round to a multiple of `by`, at least 90 % of `channels`, as the published networks of these families do."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded
