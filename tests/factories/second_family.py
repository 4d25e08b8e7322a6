"""A second family of networks, of another input size: one convolution of elastic width, dropout included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.errors import ParamsError, WeightsError
from tans_core.networks.family import Family, Network, Supernet

FEATURES = 12


@dataclass(frozen=True)
class WidthSpace:
    image_size_px: int
    widths: tuple[int, ...]

    def largest(self) -> int:
        return max(self.widths)

    def smallest(self) -> int:
        return min(self.widths)

    def sample(self, rng: np.random.Generator) -> int:
        return int(rng.choice(self.widths))

    def describe(self, member: int) -> dict[str, Any]:
        return {"width": member}

    def member(self, architecture: Mapping[str, Any]) -> int:
        return int(architecture["width"])

    def supernet(self, num_classes: int) -> WidthNetwork:
        return WidthNetwork(self.largest(), num_classes, self)


class WidthNetwork(Supernet):
    def __init__(self, width: int, num_classes: int, space: WidthSpace | None = None) -> None:
        super().__init__()
        self.width, self.active = width, None
        if space is not None:
            self.space = space
        self.first, self.second = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, FEATURES, 3, 2, 1)
        self.norm, self.dropout = nn.BatchNorm2d(FEATURES), nn.Dropout(0.2)
        self.classifier = nn.Linear(FEATURES, num_classes)

    def features(self, images: Tensor) -> Tensor:
        width = self.active or self.width
        hidden = F.relu(F.conv2d(images, self.first.weight[:width], self.first.bias[:width], 2, 1))  # type: ignore[index]
        hidden = F.conv2d(hidden, self.second.weight[:, :width], self.second.bias, 2, 1)
        pooled: Tensor = self.dropout(F.relu(self.norm(hidden)).mean(dim=(2, 3)))
        return pooled

    def extract(self, member: int) -> WidthNetwork:
        network = WidthNetwork(member, self.classifier.out_features)
        network.load_state_dict(dict(FAMILY.own_tensors(network, self.state_dict())))
        return network.train(self.training)


class WidthFamily(Family):
    name = "width"

    def space(self, settings: Mapping[str, Any]) -> WidthSpace:
        if set(settings) != {"image_size_px", "widths"}:
            raise ParamsError(f"got {', '.join(settings)}, want image_size_px and widths")
        return WidthSpace(int(settings["image_size_px"]), tuple(settings["widths"]))

    def build(self, architecture: Mapping[str, Any], num_classes: int) -> WidthNetwork:
        if set(architecture) != {"width"}:
            raise WeightsError(f"architecture: got {', '.join(architecture)}, want width.")
        return WidthNetwork(architecture["width"], num_classes)

    def own_tensors(self, network: Network, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        wanted = {name: value.shape for name, value in network.state_dict().items()}
        return {name: tensors[name][tuple(slice(side) for side in shape)] for name, shape in wanted.items()}


FAMILY = WidthFamily()
