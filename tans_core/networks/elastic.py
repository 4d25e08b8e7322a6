"""The elastic residual search space: plain convolutions with elastic depth, kernel size and inner width.

Plain convolutions train about four times as fast on a CPU as depthwise ones of equal accuracy.

A network is a stem and stages of residual blocks; a block is conv(k x k, inner width) - BN - ReLU - conv(3 x 3) - BN plus its
shortcut. Depth, kernel size and inner width differ between architectures, stage widths do not, so that all members of a space
answer with features of one width. A supernet is the largest member: every other member's weights are slices of it (the first
channels, the centre of the kernel).

Axes: B images, C channels, H = W pixels, D feature width, K classes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.errors import WeightsError


@dataclass(frozen=True)
class BlockChoice:
    """One residual block: kernel size of its first convolution and inner width as a share of the stage's."""

    kernel: int
    ratio: float


@dataclass(frozen=True)
class Architecture:
    """A member of the space: the active blocks of each stage, at least one a stage."""

    stages: tuple[tuple[BlockChoice, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Architecture:
        """Read what `to_dict` gave, after a trip through JSON or not.

        Raises:
            WeightsError: the dictionary is of another form.
        """
        try:
            return cls(
                tuple(tuple(BlockChoice(int(b["kernel"]), float(b["ratio"])) for b in stage) for stage in raw["stages"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"architecture: not of the elastic residual space ({error!r}).") from error


@dataclass(frozen=True)
class Cost:
    """What one forward pass of one image costs. MACs are multiply-accumulates of convolutions and linear layers."""

    params_m: float
    macs_m: float


@dataclass(frozen=True)
class ElasticSpace:
    """The family of architectures that the choices span.

    Attributes:
        stem_width: channels after the stem.
        widths: channels of each stage.
        strides: stride of each stage's first block.
        max_depth: most blocks of a stage; the least is 1.
        kernels: kernel sizes of a block's first convolution, odd.
        ratios: inner widths as shares of the stage width.
    """

    stem_width: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    max_depth: int
    kernels: tuple[int, ...]
    ratios: tuple[float, ...]

    name = "elastic-residual"

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ElasticSpace:
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def feature_dim(self) -> int:
        """D, the width of the penultimate features."""
        return self.widths[-1]

    def largest(self) -> Architecture:
        block = BlockChoice(max(self.kernels), max(self.ratios))
        return Architecture(tuple((block,) * self.max_depth for _ in self.widths))

    def smallest(self) -> Architecture:
        block = BlockChoice(min(self.kernels), min(self.ratios))
        return Architecture(tuple((block,) for _ in self.widths))

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw depths, kernels and ratios uniformly."""

        def block() -> BlockChoice:
            return BlockChoice(int(rng.choice(self.kernels)), float(rng.choice(self.ratios)))

        depths = rng.integers(1, self.max_depth + 1, size=len(self.widths))
        return Architecture(tuple(tuple(block() for _ in range(depth)) for depth in depths))

    def check(self, architecture: Architecture) -> None:
        """Raise WeightsError where the architecture is not a member of this space."""
        if len(architecture.stages) != len(self.widths):
            raise WeightsError(f"architecture: got {len(architecture.stages)} stages, want {len(self.widths)}.")
        for index, stage in enumerate(architecture.stages):
            if not 1 <= len(stage) <= self.max_depth:
                raise WeightsError(f"architecture, stage {index}: got {len(stage)} blocks, want 1 to {self.max_depth}.")
            for block in stage:
                if block.kernel not in self.kernels or block.ratio not in self.ratios:
                    raise WeightsError(
                        f"architecture, stage {index}: got kernel {block.kernel}, ratio {block.ratio}; "
                        f"want one of {self.kernels} and of {self.ratios}."
                    )

    @property
    def topology_dim(self) -> int:
        slots = len(self.widths) * self.max_depth
        return slots * (len(self.kernels) + len(self.ratios)) + len(self.widths) * self.max_depth + 2

    def topology(self, architecture: Architecture) -> npt.NDArray[np.float32]:
        """Encode an architecture: one-hot kernel and ratio of every slot, zeros where it is inactive, one-hot depths, costs.

        Identical networks have identical codes, since skipped slots hold nothing (TANS's public code keeps arbitrary values
        there). The costs tell capacity, which a linear encoder would have to add up from all slots.

        Returns:
            (topology_dim,) float32: zeros and ones, then the logarithms of parameters and MACs as shares of the largest member's.
        """
        code: list[float] = []
        for stage in architecture.stages:
            for slot in range(self.max_depth):
                block = stage[slot] if slot < len(stage) else None
                code += [float(block is not None and block.kernel == kernel) for kernel in self.kernels]
                code += [float(block is not None and block.ratio == ratio) for ratio in self.ratios]
            code += [float(len(stage) == depth) for depth in range(1, self.max_depth + 1)]
        own, largest = (self.cost(member, image_size_px=32, num_classes=1) for member in (architecture, self.largest()))
        code += [math.log(own.params_m / largest.params_m), math.log(own.macs_m / largest.macs_m)]
        return np.array(code, dtype=np.float32)

    def inner_width(self, stage: int, ratio: float) -> int:
        """Channels inside a block; a multiple of 8, which vector units like."""
        return max(8, round(self.widths[stage] * ratio / 8) * 8)

    def build(self, architecture: Architecture, num_classes: int) -> ElasticNetwork:
        """Return a network of this architecture with fresh weights from torch's global generator."""
        return ElasticNetwork(self, architecture, num_classes)

    def cost(self, architecture: Architecture, image_size_px: int, num_classes: int) -> Cost:
        """Count parameters and MACs of one image exactly, without building the network."""
        params, macs, size, width = 0, 0, image_size_px, self.stem_width

        def conv(inputs: int, outputs: int, kernel: int, out_size: int) -> None:
            nonlocal params, macs
            weights = inputs * outputs * kernel * kernel
            params += weights + 2 * outputs  # BatchNorm scale and shift
            macs += weights * out_size * out_size

        conv(3, width, 3, size)
        for index, stage in enumerate(architecture.stages):
            for position, block in enumerate(stage):
                stride = self.strides[index] if position == 0 else 1
                size = -(-size // stride)
                inner = self.inner_width(index, block.ratio)
                conv(width, inner, block.kernel, size)
                conv(inner, self.widths[index], 3, size)
                if position == 0:
                    conv(width, self.widths[index], 1, size)
                width = self.widths[index]
        params += width * num_classes + num_classes
        macs += width * num_classes
        return Cost(params / 1e6, macs / 1e6)


class ElasticNetwork(nn.Module):
    """A member of an elastic residual space; the largest member is also the supernet of all others.

    `active` picks the member that `features` and `forward` compute; None means the whole network.
    """

    def __init__(self, space: ElasticSpace, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        space.check(architecture)
        self.space, self.architecture = space, architecture
        self.active: Architecture | None = None
        self.stem = _ConvNorm(3, space.stem_width, 3, 1)
        self.stages = nn.ModuleList()
        width = space.stem_width
        for index, stage in enumerate(architecture.stages):
            blocks = nn.ModuleList()
            for position, block in enumerate(stage):
                inner = space.inner_width(index, block.ratio)
                stride = space.strides[index] if position == 0 else 1
                blocks.append(_Block(width, inner, space.widths[index], block.kernel, stride, projected=position == 0))
                width = space.widths[index]
            self.stages.append(blocks)
        self.classifier = nn.Linear(width, num_classes)
        # This layout is a fifth faster on a CPU and what tensor cores want on a GPU.
        self.to(memory_format=torch.channels_last)

    @property
    def feature_dim(self) -> int:
        return self.space.feature_dim

    def features(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) float32 to pooled penultimate features (B, D)."""
        hidden = F.relu(self.stem(images.contiguous(memory_format=torch.channels_last)))
        architecture = self.active or self.architecture
        for index, (blocks, stage) in enumerate(zip(self.stages, architecture.stages, strict=True)):
            for block, choice in zip(blocks, stage, strict=False):  # type: ignore[call-overload]
                hidden = block(hidden, choice.kernel, self.space.inner_width(index, choice.ratio))
        return hidden.mean(dim=(2, 3))  # (B, D, h, w) -> (B, D)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to logits (B, K)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits

    def extract(self, architecture: Architecture) -> ElasticNetwork:
        """Return a network of its own that holds this supernet's slices: it answers exactly as the active subnet does."""
        extracted = ElasticNetwork(self.space, architecture, self.classifier.out_features)
        source = self.state_dict()
        target = {name: slice_weights(source[name], value.shape) for name, value in extracted.state_dict().items()}
        extracted.load_state_dict(target)
        return extracted.to(self.classifier.weight.device).train(self.training)


class _ConvNorm(nn.Module):
    """Convolution without bias, then BatchNorm; both can run on a slice of their channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, hidden: Tensor, kernel: int | None = None, outputs: int | None = None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        full_outputs, _, full_kernel, _ = self.weight.shape
        kernel, outputs = kernel or full_kernel, outputs or full_outputs
        weight = slice_weights(self.weight, torch.Size((outputs, hidden.shape[1], kernel, kernel)))
        stride = self.stride
        if kernel == 1 and stride > 1:
            # The same sums. oneDNN's own strided 1 x 1 corrupts memory in its backward pass on several threads (torch 2.14.1).
            hidden, stride = hidden[:, :, ::stride, ::stride], 1
        hidden = F.conv2d(hidden, weight, stride=stride, padding=kernel // 2)
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
        return F.batch_norm(
            hidden,
            norm.running_mean[:outputs],
            norm.running_var[:outputs],
            norm.weight[:outputs],
            norm.bias[:outputs],
            training=norm.training,
            momentum=norm.momentum,
            eps=norm.eps,
        )


class _Block(nn.Module):
    def __init__(self, inputs: int, inner: int, outputs: int, kernel: int, stride: int, projected: bool) -> None:
        super().__init__()
        self.expand = _ConvNorm(inputs, inner, kernel, stride)
        self.project = _ConvNorm(inner, outputs, 3, 1)
        self.shortcut = _ConvNorm(inputs, outputs, 1, stride) if projected else None

    def forward(self, hidden: Tensor, kernel: int, inner: int) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride) through the first `inner` inner channels."""
        kept = hidden if self.shortcut is None else self.shortcut(hidden)
        residual = self.project(F.relu(self.expand(hidden, kernel, inner)))
        return F.relu(kept + residual)


def slice_weights(full: Tensor, shape: torch.Size) -> Tensor:
    """Return the part of a supernet's tensor that a subnet of this shape uses: first channels, centre of the kernel."""
    if full.shape == shape:
        return full
    for axis, (have, want) in enumerate(zip(full.shape, shape, strict=True)):
        start = (have - want) // 2 if axis >= 2 else 0
        full = full.narrow(axis, start, want)
    return full
