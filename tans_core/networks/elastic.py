"""The elastic residual family: plain convolutions with elastic depth, kernel size and inner width.

Plain convolutions train about four times as fast on a CPU as depthwise ones of equal accuracy.

A network is a stem and stages of residual blocks. A block is conv(k x k, inner width) - BN - ReLU - conv(3 x 3) - BN,
plus its shortcut. Members differ in depth, kernel size and inner width but not in stage widths, so their features all
have one width. A supernet is the largest member. The weights of every other member are slices of it: the first
channels, the centre of the kernel.

Axes: B images, H = W pixels, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from tans_core.errors import ParamsError, WeightsError, problems
from tans_core.networks.family import Family, Network, Supernet, read_architecture
from tans_core.networks.slicing import conv_norm, cut, slice_weights

Stride = Annotated[int, Field(ge=1, le=2)]


class Block(BaseModel):
    """One residual block: kernel size of its first convolution and inner width as a share of the stage's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kernel: int
    ratio: float


Member = tuple[tuple[Block, ...], ...]
"""The blocks of each stage."""


class ElasticSpace(BaseModel):
    """The search space that `networks.elastic-residual` of params.yaml describes.

    Attributes:
        image_size_px: side of the images that its networks are trained on.
        stem_width: channels after the stem.
        widths: channels of each stage.
        strides: stride of each stage's first block.
        max_depth: maximum number of blocks in a stage; the minimum is 1.
        kernels: kernel sizes of a block's first convolution.
        ratios: inner widths as shares of the stage width.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    image_size_px: Annotated[int, Field(ge=16, le=512)]
    stem_width: Annotated[int, Field(ge=1, le=4096)]
    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=6)]
    strides: tuple[Stride, ...]
    max_depth: Annotated[int, Field(ge=1, le=8)]
    kernels: Annotated[tuple[Literal[3, 5, 7], ...], Field(min_length=1)]
    ratios: Annotated[tuple[Annotated[float, Field(gt=0, le=8)], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_stride_a_stage(self) -> ElasticSpace:
        if len(self.strides) != len(self.widths):
            raise ValueError("strides: want one stride a stage, as many as widths")
        return self

    def largest(self) -> Member:
        block = Block(kernel=max(self.kernels), ratio=max(self.ratios))
        return tuple((block,) * self.max_depth for _ in self.widths)

    def smallest(self) -> Member:
        block = Block(kernel=min(self.kernels), ratio=min(self.ratios))
        return tuple((block,) for _ in self.widths)

    def sample(self, rng: np.random.Generator) -> Member:
        """Draw depths, kernels and ratios uniformly."""

        def block() -> Block:
            return Block(kernel=int(rng.choice(self.kernels)), ratio=float(rng.choice(self.ratios)))

        depths = rng.integers(1, self.max_depth + 1, size=len(self.widths))
        return tuple(tuple(block() for _ in range(depth)) for depth in depths)

    def describe(self, member: Member) -> dict[str, Any]:
        shape = self.model_dump(mode="json", include={"stem_width", "widths", "strides"})
        return {**shape, "stages": [[block.model_dump() for block in stage] for stage in member]}

    def member(self, architecture: Mapping[str, Any]) -> Member:
        parsed = Architecture.read(architecture)
        for name in ("stem_width", "widths", "strides"):
            if getattr(parsed, name) != getattr(self, name):
                raise WeightsError(f"architecture: {name}: got {getattr(parsed, name)}, want {getattr(self, name)}.")
        for index, stage in enumerate(parsed.stages):
            if len(stage) > self.max_depth:
                raise WeightsError(f"architecture, stage {index}: got {len(stage)} blocks, want 1 to {self.max_depth}.")
            for block in stage:
                if block.kernel not in self.kernels or block.ratio not in self.ratios:
                    raise WeightsError(
                        f"architecture, stage {index}: got kernel {block.kernel}, ratio {block.ratio}; "
                        f"want one of {self.kernels} and of {self.ratios}."
                    )
        return parsed.stages

    def supernet(self, num_classes: int) -> ElasticNetwork:
        return ElasticNetwork(Architecture.read(self.describe(self.largest())), num_classes, self)


class Architecture(BaseModel):
    """One member with the widths of its space: everything needed to build it.

    Cards of version 0 contain only the stages; the other fields had these defaults.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    stem_width: Annotated[int, Field(ge=1, le=4096)] = 16
    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=6)] = (
        24,
        48,
        96,
    )
    strides: tuple[Stride, ...] = (2, 2, 2)
    stages: tuple[Annotated[tuple[Block, ...], Field(min_length=1, max_length=8)], ...]

    @model_validator(mode="after")
    def _fits(self) -> Architecture:
        if not len(self.widths) == len(self.strides) == len(self.stages):
            raise ValueError(f"want as many stages as widths and strides: {len(self.widths)}")
        for block in (block for stage in self.stages for block in stage):
            if block.kernel not in (1, 3, 5, 7) or not 0 < block.ratio <= 8:
                raise ValueError(f"got kernel {block.kernel}, ratio {block.ratio}; want 1, 3, 5 or 7, and up to 8")
        return self

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Architecture:
        """Read a card's architecture, strict about types. Raises WeightsError: lists all problems."""
        return read_architecture(cls, raw, "the elastic residual family")

    def inner_width(self, stage: int, ratio: float) -> int:
        """Return the channels inside a block: a multiple of 8, which suits vector units."""
        return max(8, round(self.widths[stage] * ratio / 8) * 8)


class ElasticResidual(Family):
    """Elastic residual networks: cheap, and best on small images."""

    name = "elastic-residual"
    short = "elastic"

    def space(self, settings: Mapping[str, Any]) -> ElasticSpace:
        try:
            return ElasticSpace.model_validate(dict(settings))
        except ValidationError as error:
            raise ParamsError("; ".join(problems(error, ElasticSpace))) from None

    def build(self, architecture: Mapping[str, Any], num_classes: int) -> ElasticNetwork:
        return ElasticNetwork(Architecture.read(architecture), num_classes)

    def own_tensors(self, network: Network, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return cut(network, tensors)


class ElasticNetwork(Supernet):
    """A member of an elastic residual space; the largest member is also the supernet of all others."""

    space: ElasticSpace

    def __init__(self, architecture: Architecture, num_classes: int, space: ElasticSpace | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        if space is not None:
            self.space = space
        self.active: Member | None = None
        self.stem = _ConvNorm(3, architecture.stem_width, 3, 1)
        self.stages = nn.ModuleList()
        width = architecture.stem_width
        for index, stage in enumerate(architecture.stages):
            blocks = nn.ModuleList()
            for position, block in enumerate(stage):
                inner = architecture.inner_width(index, block.ratio)
                stride = architecture.strides[index] if position == 0 else 1
                outputs = architecture.widths[index]
                blocks.append(_Block(width, inner, outputs, block.kernel, stride, projected=position == 0))
                width = outputs
            self.stages.append(blocks)
        self.classifier = nn.Linear(width, num_classes)
        # This memory layout is a fifth faster on a CPU, and suits tensor cores on a GPU.
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.stem(images.contiguous(memory_format=torch.channels_last)))
        stages = self.active or self.architecture.stages
        for index, (blocks, stage) in enumerate(zip(self.stages, stages, strict=True)):
            for block, choice in zip(blocks, stage, strict=False):  # type: ignore[call-overload]
                hidden = block(hidden, choice.kernel, self.architecture.inner_width(index, choice.ratio))
        return hidden.mean(dim=(2, 3))  # (B, D, h, w) -> (B, D)

    def extract(self, member: Member) -> ElasticNetwork:
        architecture = self.architecture.model_copy(update={"stages": member})
        extracted = ElasticNetwork(architecture, self.classifier.out_features)
        extracted.load_state_dict(dict(cut(extracted, self.state_dict())))
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
            # Slicing computes the same sums. oneDNN's strided 1 x 1 convolution corrupts memory in its backward pass on
            # several threads (torch 2.14.1).
            hidden, stride = hidden[:, :, ::stride, ::stride], 1
        return conv_norm(hidden, weight, self.norm, partial(F.conv2d, stride=stride, padding=kernel // 2))


class _Block(nn.Module):
    def __init__(self, inputs: int, inner: int, outputs: int, kernel: int, stride: int, projected: bool) -> None:
        super().__init__()
        self.expand = _ConvNorm(inputs, inner, kernel, stride)
        self.project = _ConvNorm(inner, outputs, 3, 1)
        self.shortcut = _ConvNorm(inputs, outputs, 1, stride) if projected else None

    def forward(self, hidden: Tensor, kernel: int, inner: int) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride) through the first `inner` inner channels."""
        shortcut = hidden if self.shortcut is None else self.shortcut(hidden)
        residual = self.project(F.relu(self.expand(hidden, kernel, inner)))
        return F.relu(shortcut + residual)


FAMILY = ElasticResidual()
