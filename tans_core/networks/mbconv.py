"""The elastic MBConv family: inverted residual blocks with elastic depth, kernel size and expansion.

Its supernets start from an EfficientNet-Lite that was trained on ImageNet, and members keep its features. A member may
leave out blocks at the end of a stage, the rim of a kernel, or expanded channels. These are sorted by the size of their
projection weights, so the channels left out matter least.

A network is a stem of stride 2, stages of blocks and a head. A block is conv(1 x 1) to `expansion` times its input, a
depthwise conv(k x k) and conv(1 x 1) to the stage's width, plus its input where shapes allow. Widths do not differ
between members.

Axes: B images, S pixels, D feature width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from tans_core.errors import ParamsError, WeightsError, problems
from tans_core.networks.family import BaseWeights, Family, Network, SearchSpace, Supernet, read_architecture
from tans_core.networks.inverted import Block, Channels, ConvNorm, Kernel, Member, Style, build_stages, divisible
from tans_core.networks.preprocess import Preprocess, Triple
from tans_core.networks.published import get_published
from tans_core.networks.slicing import cut

_LITE = (
    # kernel, stride, expansion, width, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""The stages of EfficientNet-Lite0 (Tan and Le, 2019, without squeeze-excitation); the others scale it."""

_STYLE = Style(activation=F.relu6, eps=1e-3, late_padding=True)


class Architecture(BaseModel):
    """One member with the widths of its space: everything needed to build it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stem_width: Channels
    head_width: Channels
    widths: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=10)]
    strides: tuple[Annotated[int, Field(ge=1, le=2)], ...]
    stages: tuple[Annotated[tuple[Block, ...], Field(min_length=1, max_length=10)], ...]

    @model_validator(mode="after")
    def _fits(self) -> Architecture:
        if not len(self.widths) == len(self.strides) == len(self.stages):
            raise ValueError(f"want as many strides and stages as widths: {len(self.widths)}")
        return self

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Architecture:
        """Read a card's architecture, strict about types. Raises WeightsError: lists all problems."""
        return read_architecture(cls, raw, "the elastic MBConv family")

    @classmethod
    def lite(cls, width: float, depth: float) -> Architecture:
        """Return an EfficientNet-Lite; the first and the last stage keep their blocks, stem and head their widths."""
        ends = (0, len(_LITE) - 1)
        stages = tuple(
            (Block(kernel=kernel, expansion=expansion),) * (blocks if index in ends else math.ceil(depth * blocks))  # type: ignore[arg-type]
            for index, (kernel, _, expansion, _, blocks) in enumerate(_LITE)
        )
        widths = tuple(divisible(width * channels) for _, _, _, channels, _ in _LITE)
        return cls(stem_width=32, head_width=1280, widths=widths, strides=tuple(row[1] for row in _LITE), stages=stages)


class MBConvSpace(BaseModel):
    """The search space that `networks.elastic-mbconv` of params.yaml describes.

    Attributes:
        image_size_px: side of the images that its networks are trained on.
        used_at_px: input sizes of its models; empty means `image_size_px`.
        weights: the published network that the supernet starts from; it is the largest member.
        kernels: kernel sizes a block may have besides its published one; larger ones are ignored.
        expansions: likewise for expansions.
        min_depth: minimum number of blocks in a stage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    image_size_px: Annotated[int, Field(ge=32, le=512)]
    used_at_px: tuple[Annotated[int, Field(ge=32, le=512)], ...] = ()
    weights: str
    kernels: tuple[Kernel, ...]
    expansions: tuple[Annotated[int, Field(ge=2, le=8)], ...]
    min_depth: Annotated[int, Field(ge=1, le=10)]

    @property
    def whole(self) -> Architecture:
        """The published network."""
        published = get_published(self.weights)
        return Architecture.lite(published.width, published.depth)

    def largest(self) -> Member:
        return self.whole.stages

    def smallest(self) -> Member:
        return tuple(
            tuple(min(self._choices(block), key=_size) for block in stage[: self._least(stage)])
            for stage in self.whole.stages
        )

    def sample(self, rng: np.random.Generator) -> Member:
        """Draw depths, kernels and expansions uniformly."""
        member = []
        for stage in self.whole.stages:
            depth = int(rng.integers(self._least(stage), len(stage) + 1))
            choices = [self._choices(block) for block in stage[:depth]]
            member.append(tuple(options[int(rng.integers(len(options)))] for options in choices))
        return tuple(member)

    def describe(self, member: Member) -> dict[str, Any]:
        return self.whole.model_copy(update={"stages": member}).model_dump(mode="json")

    def member(self, architecture: Mapping[str, Any]) -> Member:
        parsed, whole = Architecture.read(architecture), self.whole
        for name in ("stem_width", "head_width", "widths", "strides"):
            if getattr(parsed, name) != getattr(whole, name):
                raise WeightsError(f"architecture: {name}: got {getattr(parsed, name)}, want {getattr(whole, name)}.")
        for index, (stage, published_stage) in enumerate(zip(parsed.stages, whole.stages, strict=True)):
            least, most = self._least(published_stage), len(published_stage)
            if not least <= len(stage) <= most:
                raise WeightsError(f"architecture, stage {index}: got {len(stage)} blocks, want {least} to {most}.")
            for block, largest in zip(stage, published_stage, strict=False):
                choices = self._choices(largest)
                if block not in choices:
                    wanted = ", ".join(f"{choice.kernel} and {choice.expansion}" for choice in choices)
                    raise WeightsError(
                        f"architecture, stage {index}: got kernel {block.kernel}, expansion {block.expansion}; "
                        f"want one of {wanted}."
                    )
        return parsed.stages

    def supernet(self, num_classes: int) -> MBConvNetwork:
        return MBConvNetwork(self.whole, num_classes, self)

    def _least(self, stage: Sequence[Block]) -> int:
        return min(self.min_depth, len(stage))

    def _choices(self, largest: Block) -> list[Block]:
        kernels = sorted({k for k in self.kernels if k < largest.kernel} | {largest.kernel})
        expansions = sorted({e for e in self.expansions if e < largest.expansion} | {largest.expansion})
        return [Block(kernel=kernel, expansion=expansion) for kernel in kernels for expansion in expansions]


class ElasticMBConv(Family):
    """EfficientNet-Lite made elastic: ImageNet features in networks of many sizes."""

    name = "elastic-mbconv"
    short = "mbconv"

    def space(self, settings: Mapping[str, Any]) -> MBConvSpace:
        try:
            space = MBConvSpace.model_validate(dict(settings))
        except ValidationError as error:
            raise ParamsError("; ".join(problems(error, MBConvSpace))) from None
        get_published(space.weights)
        return space

    def build(self, architecture: Mapping[str, Any], num_classes: int) -> MBConvNetwork:
        return MBConvNetwork(Architecture.read(architecture), num_classes)

    def own_tensors(self, network: Network, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return cut(network, tensors)

    def preprocess(self, space: SearchSpace, mean: Triple, std: Triple) -> Preprocess:
        assert isinstance(space, MBConvSpace)
        published = get_published(space.weights)
        return Preprocess(image_size_px=space.image_size_px, mean=published.mean, std=published.std)

    def sizes_px(self, space: SearchSpace) -> Sequence[int]:
        assert isinstance(space, MBConvSpace)
        return sorted(set(space.used_at_px)) or (space.image_size_px,)

    def base_weights(self, space: SearchSpace) -> Sequence[BaseWeights]:
        assert isinstance(space, MBConvSpace)
        published = get_published(space.weights)
        source = f"{published.distribution} (trained on {published.images})"
        images = published.images, published.images_licence
        return (BaseWeights(published.name, source, published.licence, *images),)

    def start(self, space: SearchSpace, supernet: Supernet) -> None:
        assert isinstance(space, MBConvSpace) and isinstance(supernet, MBConvNetwork)
        tensors = list(get_published(space.weights).read().values())
        # The published file has other names in the same order. Its last two tensors are ImageNet's classifier.
        features = {name: value for name, value in supernet.state_dict().items() if not name.startswith("classifier.")}
        shapes = [tuple(value.shape) for value in features.values()]
        if [tuple(value.shape) for value in tensors[:-2]] != shapes:
            raise WeightsError(f"{space.weights}: the shapes of its tensors are not those of this network.")
        supernet.load_state_dict(dict(zip(features, tensors, strict=False)), strict=False)
        supernet.sort_channels()


class MBConvNetwork(Supernet):
    """A member of an elastic MBConv space; the largest member is also the supernet of all others."""

    space: MBConvSpace
    # Depthwise convolutions train slower in bf16 on CPUs. And on images unlike those of the pretraining, a short
    # training in bf16 can end ten points lower.
    trains_faster_in_bf16 = False

    def __init__(self, architecture: Architecture, num_classes: int, space: MBConvSpace | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        if space is not None:
            self.space = space
        self.active: Member | None = None
        self.stem = ConvNorm(3, architecture.stem_width, 3, 2, _STYLE)
        styles = [_STYLE] * len(architecture.stages)
        widths = architecture.widths, architecture.strides, architecture.stages
        self.stages, width = build_stages(architecture.stem_width, *widths, styles)
        self.head = ConvNorm(width, architecture.head_width, 1, 1, _STYLE)
        self.classifier = nn.Linear(architecture.head_width, num_classes)
        # This memory layout is faster on a CPU, and suits tensor cores on a GPU.
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        hidden = F.relu6(self.stem(images.contiguous(memory_format=torch.channels_last)))
        for blocks, stage in zip(self.stages, self.active or self.architecture.stages, strict=True):
            for block, choice in zip(blocks, stage, strict=False):  # type: ignore[call-overload]
                hidden = block(hidden, choice)
        return F.relu6(self.head(hidden)).mean(dim=(2, 3))  # (B, D, h, w) -> (B, D)

    def extract(self, member: Member) -> MBConvNetwork:
        extracted = MBConvNetwork(self.architecture.model_copy(update={"stages": member}), self.classifier.out_features)
        extracted.load_state_dict(dict(cut(extracted, self.state_dict())))
        return extracted.to(self.classifier.weight.device).train(self.training)

    def sort_channels(self) -> None:
        """Sort the expanded channels of each block by the size of their projection weights; outputs stay the same."""
        for block in (block for blocks in self.stages for block in blocks):  # type: ignore[attr-defined]
            block.sort_channels()


def _size(block: Block) -> tuple[int, int]:
    return block.expansion, block.kernel


FAMILY = ElasticMBConv()
