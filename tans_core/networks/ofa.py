"""The Once-for-All MobileNetV3 (Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient
Deployment", ICLR 2020): the search space of the TANS paper's networks.

It has a first block, then five stages of two to four blocks with kernels of 3, 5 and 7, expansions of 3, 4 and 6, and
squeeze-excitation and hard swish where MobileNetV3 has them. Widths are 1.0 and 1.2. A smaller kernel is the centre of
the next larger one, transformed by a learned matrix. The authors' published supernets can be loaded; without one,
weights are random. The dropout before the classifier, which is inactive at inference, is left out.

Axes: B images, S pixels, D feature width, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch.nn.functional as F  # noqa: N812
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from tans_core.errors import ParamsError, WeightsError, problems
from tans_core.io import sha256_file
from tans_core.networks.family import (
    BaseWeights,
    Family,
    Network,
    SearchSpace,
    Supernet,
    load_state,
    read_architecture,
)
from tans_core.networks.inverted import (
    Block,
    ConvNorm,
    Kernel,
    Member,
    Style,
    build_stages,
    divisible,
    smaller_kernel,
)
from tans_core.networks.preprocess import Preprocess, Triple
from tans_core.networks.slicing import cut, slice_weights
from tans_core.networks.tensor_file import read_tensors

_STEM, _FIRST, _HEAD, _MIX = 16, 16, 960, 1280
_STAGES = (
    # width, stride, hard swish, squeeze-excitation
    (24, 2, False, False),
    (40, 2, False, True),
    (80, 2, True, False),
    (112, 1, True, True),
    (160, 2, True, True),
)
_FIRST_BLOCK = Block(kernel=3, expansion=1)
_EPS = 1e-5
_MEAN: Triple = (0.485, 0.456, 0.406)
_STD: Triple = (0.229, 0.224, 0.225)
_IMAGES, _IMAGES_LICENCE, _LICENCE = "ImageNet-1k", "LicenseRef-imagenet-terms", "MIT"

_WIDTHS = (1.0, 1.2)
Expansion = Literal[3, 4, 6]
Depth = Annotated[int, Field(ge=2, le=4)]


def _known_width(width: float) -> float:
    if width not in _WIDTHS:
        raise ValueError(f"want one of {', '.join(map(str, _WIDTHS))}")
    return width


Width = Annotated[float, AfterValidator(_known_width)]


class Architecture(BaseModel):
    """One member: the width of its space, and the blocks of the five stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: Width
    stages: Annotated[
        tuple[Annotated[tuple[Block, ...], Field(min_length=1, max_length=4)], ...], Field(min_length=5, max_length=5)
    ]

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Architecture:
        """Read a card's architecture. Raises WeightsError: lists all problems."""
        return read_architecture(cls, raw, "the Once-for-All family")


class OFASpace(BaseModel):
    """The search space that `networks.once-for-all` of params.yaml describes.

    Attributes:
        image_size_px: side of the images that its networks are trained on.
        used_at_px: input sizes of its models; empty means `image_size_px`.
        width: factor of all channels, 1.0 or 1.2.
        kernels, expansions, depths: the choices for blocks and stages.
        weights: file of a supernet published by the authors; None starts from random weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    image_size_px: Annotated[int, Field(ge=32, le=512)]
    used_at_px: tuple[Annotated[int, Field(ge=32, le=512)], ...] = ()
    width: Width = 1.2
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1)] = (3, 5, 7)
    expansions: Annotated[tuple[Expansion, ...], Field(min_length=1)] = (3, 4, 6)
    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] = (2, 3, 4)
    weights: str | None = None

    def largest(self) -> Member:
        return self._uniform(max)

    def smallest(self) -> Member:
        return self._uniform(min)

    def sample(self, rng: np.random.Generator) -> Member:
        """Draw depths, kernels and expansions uniformly."""

        def block() -> Block:
            kernel, expansion = (
                options[int(rng.integers(len(options)))] for options in (self.kernels, self.expansions)
            )
            return Block.model_validate({"kernel": kernel, "expansion": expansion})

        depths = [self.depths[int(rng.integers(len(self.depths)))] for _ in _STAGES]
        return tuple(tuple(block() for _ in range(depth)) for depth in depths)

    def describe(self, member: Member) -> dict[str, Any]:
        return Architecture(width=self.width, stages=member).model_dump(mode="json")

    def member(self, architecture: Mapping[str, Any]) -> Member:
        parsed = Architecture.read(architecture)
        mismatches = [] if parsed.width == self.width else [f"width: got {parsed.width}, want {self.width}"]
        for index, stage in enumerate(parsed.stages):
            if len(stage) not in self.depths:
                depths = ", ".join(map(str, self.depths))
                mismatches.append(f"stage {index}: got {len(stage)} blocks, want one of {depths}")
            for block in stage:
                if block.kernel not in self.kernels or block.expansion not in self.expansions:
                    mismatches.append(f"stage {index}: got kernel {block.kernel}, expansion {block.expansion}")
        if mismatches:
            raise WeightsError(f"architecture: not of this space: {'; '.join(mismatches[:5])}.")
        return parsed.stages

    def supernet(self, num_classes: int) -> OFANetwork:
        return OFANetwork(Architecture(width=self.width, stages=self.largest()), num_classes, self)

    def _uniform(self, choose: Any) -> Member:
        block = Block(kernel=choose(self.kernels), expansion=choose(self.expansions))
        return ((block,) * choose(self.depths),) * len(_STAGES)


def published_code(member: Member) -> list[int]:
    """Return the TANS authors' code of a member, 45 integers: 20 kernel sizes, 20 expansions, 5 depths.

    The slots of missing blocks contain 0, so equal networks have equal codes.
    """
    slots = [[*stage, *[None] * (4 - len(stage))] for stage in member]
    kernels = [block.kernel if block else 0 for stage in slots for block in stage]
    expansions = [block.expansion if block else 0 for stage in slots for block in stage]
    return [*kernels, *expansions, *map(len, member)]


class OnceForAll(Family):
    """The Once-for-All MobileNetV3."""

    name = "once-for-all"
    short = "ofa"

    def space(self, settings: Mapping[str, Any]) -> OFASpace:
        try:
            return OFASpace.model_validate(dict(settings))
        except ValidationError as error:
            raise ParamsError("; ".join(problems(error, OFASpace))) from None

    def build(self, architecture: Mapping[str, Any], num_classes: int) -> OFANetwork:
        return OFANetwork(Architecture.read(architecture), num_classes)

    def own_tensors(self, network: Network, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return _own(network, tensors)

    def preprocess(self, space: SearchSpace, mean: Triple, std: Triple) -> Preprocess:
        return Preprocess(image_size_px=space.image_size_px, mean=_MEAN, std=_STD)

    def sizes_px(self, space: SearchSpace) -> Sequence[int]:
        assert isinstance(space, OFASpace)
        return sorted(set(space.used_at_px)) or (space.image_size_px,)

    def base_weights(self, space: SearchSpace) -> Sequence[BaseWeights]:
        assert isinstance(space, OFASpace)
        if space.weights is None:
            return ()
        path = Path(space.weights)
        name = "ofa-" + re.sub(r"[^A-Za-z0-9_-]", "-", path.name)
        # The hash records which file the descendants come from.
        digest = f"SHA-256 {sha256_file(path)}" if path.is_file() else "not here"
        return (BaseWeights(name, f"{path.name}, {digest} (trained on {_IMAGES})", _LICENCE, _IMAGES, _IMAGES_LICENCE),)

    def start(self, space: SearchSpace, supernet: Supernet) -> None:
        assert isinstance(space, OFASpace) and isinstance(supernet, OFANetwork)
        if space.weights is None:
            return
        classifier = {name: value for name, value in supernet.state_dict().items() if name.startswith("classifier.")}
        published = translated(read_tensors(Path(space.weights)))
        features = {name: value for name, value in published.items() if name not in classifier}
        load_state(supernet, features | classifier, space.weights)


class OFANetwork(Supernet):
    """A member of the Once-for-All space; the largest member is also the supernet of all others."""

    space: OFASpace
    # Depthwise convolutions train slower in bf16 on CPUs. And on images unlike those of the pretraining, a short
    # training in bf16 can end ten points lower.
    trains_faster_in_bf16 = False

    def __init__(self, architecture: Architecture, num_classes: int, space: OFASpace | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        if space is not None:
            self.space = space
        self.active: Member | None = None

        def wide(channels: int) -> int:
            return divisible(channels * architecture.width)

        # Only a supernet needs the matrices of smaller kernels.
        kernels = space.kernels if space is not None else ()
        plain = Style(F.relu, _EPS, late_padding=False)
        styles = [
            Style(F.hardswish if swish else F.relu, _EPS, late_padding=False, squeeze=squeeze, kernels=kernels)
            for _, _, swish, squeeze in _STAGES
        ]
        widths, strides = [wide(row[0]) for row in _STAGES], [row[1] for row in _STAGES]
        self.stem = ConvNorm(3, wide(_STEM), 3, 2, plain)
        self.first, width = build_stages(wide(_STEM), [wide(_FIRST)], [1], ((_FIRST_BLOCK,),), [plain])
        self.stages, width = build_stages(width, widths, strides, architecture.stages, styles)
        self.head = ConvNorm(width, wide(_HEAD), 1, 1, plain)
        self.mix = nn.Conv2d(wide(_HEAD), wide(_MIX), 1, bias=False)
        self.classifier = nn.Linear(wide(_MIX), num_classes)

    def features(self, images: Tensor) -> Tensor:
        hidden = F.hardswish(self.stem(images))
        hidden = self.first[0][0](hidden, _FIRST_BLOCK)  # type: ignore[index]
        for blocks, stage in zip(self.stages, self.active or self.architecture.stages, strict=True):
            for block, choice in zip(blocks, stage, strict=False):  # type: ignore[call-overload]
                hidden = block(hidden, choice)
        hidden = F.hardswish(self.head(hidden)).mean(dim=(2, 3), keepdim=True)  # (B, D, h, w) -> (B, D, 1, 1)
        return F.hardswish(self.mix(hidden)).flatten(1)

    def extract(self, member: Member) -> OFANetwork:
        extracted = OFANetwork(Architecture(width=self.architecture.width, stages=member), self.classifier.out_features)
        load_state(extracted, _own(extracted, self.state_dict()), "the supernet")
        return extracted.to(self.classifier.weight.device).train(self.training)


def translated(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published Once-for-All MobileNetV3, of any of its versions, to our names."""
    return {_translated(name): value for name, value in tensors.items()}


_PARTS = (
    (r"^first_conv\.", "stem."),
    (r"^final_expand_layer\.", "head."),
    (r"^feature_mix_layer\.conv\.", "mix."),
    (r"^classifier\.linear\.", "classifier."),
    (r"\.(?:mobile_inverted_conv|conv)\.(?=inverted_bottleneck|depth_conv|point_linear)", "."),
    (r"\.inverted_bottleneck\.", ".expand."),
    (r"\.depth_conv\.se\.fc\.", ".squeeze."),
    (r"\.depth_conv\.", ".depthwise."),
    (r"\.point_linear\.", ".project."),
    (r"\.conv\.(\dto\d)_matrix$", r".transforms.\1"),
    (r"\.bn\.bn\.", ".norm."),
    (r"\.bn\.", ".norm."),
    (r"\.conv\.conv\.", "."),
    (r"\.conv\.weight$", ".weight"),
    (r"\.linear\.linear\.", "."),
    (r"\.linear\.", "."),
)


def _translated(name: str) -> str:
    numbered = re.match(r"^blocks\.(\d+)\.", name)
    if numbered:
        index = int(numbered[1])
        prefix = "first.0.0." if index == 0 else f"stages.{(index - 1) // 4}.{(index - 1) % 4}."
        name = prefix + name[numbered.end() :]
        # After the number comes the block's convolution, under one of two names.
        name = re.sub(r"^((?:first|stages)\.\d\.\d)\.(?:mobile_inverted_conv|conv)\.", r"\1.", name)
    for pattern, ours in _PARTS:
        name = re.sub(pattern, ours, name)
    return name


def _own(network: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Slice a network's tensors from those of a supernet that contains it; matrices give the smaller kernels."""
    wanted, chosen = network.state_dict(), dict(tensors)
    for name in [name for name in tensors if name.endswith(".depthwise.weight") and name in wanted]:
        prefix = f"{name.removesuffix('weight')}transforms."
        matrices = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        size, channels = wanted[name].shape[-1], wanted[name].shape[0]
        if matrices and tensors[name].shape[-1] >= size and tensors[name].shape[0] >= channels:
            sliced = slice_weights(tensors[name], wanted[name].shape[:2] + tensors[name].shape[2:])
            chosen[name] = smaller_kernel(sliced, size, matrices)
    return cut(network, chosen)


FAMILY = OnceForAll()
