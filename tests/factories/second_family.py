"""A second family of networks: two convolutions, the first of elastic width, BatchNorm and dropout."""

from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.errors import ParamsError, WeightsError
from tans_core.networks.family import Family, Network, Supernet


class WidthSpace:
    def __init__(self, image_size_px: int, widths: list[int]) -> None:
        self.image_size_px, self.widths = image_size_px, widths
        self.largest, self.smallest = lambda: max(widths), lambda: min(widths)
        self.sample = lambda rng: int(rng.choice(widths))
        self.describe, self.member = lambda width: {"width": width}, lambda described: int(described["width"])

    def supernet(self, num_classes: int) -> Supernet:
        return WidthNetwork(max(self.widths), num_classes, self)


class WidthNetwork(Supernet):
    def __init__(self, width: int, num_classes: int, space: Any = None) -> None:
        super().__init__()
        self.width, self.active, self.space = width, None, space
        self.first, self.second = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, 12, 3, 2, 1)
        self.norm, self.dropout, self.classifier = nn.BatchNorm2d(12), nn.Dropout(0.2), nn.Linear(12, num_classes)

    def features(self, images: Tensor) -> Tensor:
        width, bias = self.active or self.width, self.first.bias
        hidden = F.relu(F.conv2d(images, self.first.weight[:width], bias[:width], 2, 1))  # type: ignore[index]
        hidden = F.conv2d(hidden, self.second.weight[:, :width], self.second.bias, 2, 1)
        return self.dropout(F.relu(self.norm(hidden)).mean(dim=(2, 3)))  # type: ignore[no-any-return]

    def extract(self, member: int) -> Network:
        network = WidthNetwork(member, self.classifier.out_features)
        network.load_state_dict(FAMILY.own_tensors(network, self.state_dict()))
        return network.train(self.training)


class WidthFamily(Family):
    name = "width"

    def space(self, settings: Any) -> Any:
        if set(settings) != {"image_size_px", "widths"}:
            raise ParamsError(f"got {', '.join(settings)}, want image_size_px and widths")
        return WidthSpace(**settings)

    def build(self, architecture: Any, num_classes: int) -> WidthNetwork:
        if set(architecture) != {"width"}:
            raise WeightsError(f"architecture: got {', '.join(architecture)}, want width.")
        return WidthNetwork(architecture["width"], num_classes)

    def own_tensors(self, network: Network, tensors: Any) -> dict[str, Tensor]:
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        return {name: tensors[name][tuple(slice(side) for side in shape)] for name, shape in shapes.items()}


FAMILY = WidthFamily()
