"""The interface of a family of networks. All other code uses the zoo's networks through it.

Axes: B images, 3 channels, S = side of the input in pixels, D feature width, K classes, T = `TOPOLOGY_DIM`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from tans_core.errors import WeightsError, problems
from tans_core.networks.preprocess import Preprocess, Triple
from tans_core.networks.trace import Cost, cost_of, topology_code, trace

_Model = TypeVar("_Model", bound=BaseModel)


class Network(nn.Module, ABC):
    """A network of any family: features under one linear classifier."""

    trains_faster_in_bf16 = True
    """Whether bf16 training is faster on a CPU with bf16 instructions. Inference always is."""
    classifier: nn.Linear

    @property
    def feature_dim(self) -> int:
        """D, the width of the penultimate features."""
        return self.classifier.in_features

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) float32 to pooled penultimate features (B, D)."""

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, K)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits

    def training_precision(self, precision: str, device: str) -> str:
        """Return the precision to train in: `precision`, or fp32 on a CPU where bf16 is slower for this network."""
        return precision if self.trains_faster_in_bf16 or device != "cpu" else "fp32"

    def reset_classifier(self, num_classes: int, generator: torch.Generator) -> None:
        """Replace the classifier by a fresh one of `num_classes`, drawn from `generator`."""
        classifier = nn.Linear(self.feature_dim, num_classes)
        bound = self.feature_dim**-0.5
        with torch.no_grad():
            classifier.weight.uniform_(-bound, bound, generator=generator)
            classifier.bias.zero_()
        self.classifier = classifier.to(self.classifier.weight.device)


class Supernet(Network):
    """The largest member of a search space, whose weights all members share.

    Attributes:
        space: the search space whose members it contains.
        active: the member that `features` computes; None means the largest.
    """

    space: SearchSpace
    active: Any

    @abstractmethod
    def extract(self, member: Any) -> Network:
        """Return a separate network with the same outputs as the supernet has with `member` active."""


class SearchSpace(Protocol):
    """The architectures that the settings of a family allow. Only the space itself interprets a member."""

    @property
    def image_size_px(self) -> int:
        """Side of the images that its networks are designed for."""
        ...

    def largest(self) -> Any: ...
    def smallest(self) -> Any: ...
    def sample(self, rng: np.random.Generator) -> Any: ...

    def describe(self, member: Any) -> dict[str, Any]:
        """Return a member as a card's `architecture`: plain values, all that `Family.build` needs."""
        ...

    def member(self, architecture: Mapping[str, Any]) -> Any:
        """Read a member from its `describe`. Raises WeightsError: it is not a member."""
        ...

    def supernet(self, num_classes: int) -> Supernet:
        """Return the supernet with fresh weights from torch's global generator."""
        ...


@dataclass(frozen=True)
class BaseWeights:
    """Weights from elsewhere that a family's networks start from.

    Attributes:
        name, source: of the weights.
        licence: of the weights, an SPDX expression.
        images: name of the images they were trained on; empty where unknown.
        images_licence: of these images, an SPDX expression.
    """

    name: str
    source: str
    licence: str
    images: str = ""
    images_licence: str = ""


@dataclass(frozen=True)
class PublishedForm:
    """A network as a library has it.

    Attributes:
        module: the library's network, with these weights; maps normalised images to logits.
        config: what the library's loader needs: `architecture` and `model_args`.
        classifier: the name of its last layer.
    """

    module: nn.Module
    config: dict[str, Any]
    classifier: str


class Family(ABC):
    """One kind of network. To add one, name an instance in an entry point of the group `tans.families`."""

    name: str
    """Its name in cards and params.yaml."""
    packages: Collection[str] = ()
    """Packages whose networks users hand in by name; an architecture then has the fields `package` and `name`."""

    @property
    def short(self) -> str:
        """The prefix of its models' ids."""
        return self.name

    @abstractmethod
    def space(self, settings: Mapping[str, Any]) -> SearchSpace:
        """Read the family's section `networks.<name>` of params.yaml.

        Raises:
            ParamsError: lists all problems by key.
        """

    @abstractmethod
    def build(self, architecture: Mapping[str, Any], num_classes: int) -> Network:
        """Return a network of a card's architecture with fresh weights from torch's global generator.

        Raises:
            WeightsError: it is not an architecture of this family.
        """

    def load(
        self, architecture: Mapping[str, Any], num_classes: int, tensors: Mapping[str, Tensor], where: str
    ) -> Network:
        """Return a network in eval mode with the weights of a file.

        Args:
            architecture: of a card.
            num_classes: outputs of the classifier.
            tensors: by name: the network's own, or those of a supernet that contains it.
            where: the file, for messages.

        Raises:
            WeightsError: they do not fit; lists tensors that are missing, unknown or of another shape.
        """
        network = self.build(architecture, num_classes)
        load_state(network, self.own_tensors(network, tensors), where)
        return network.eval()

    def code_licence(self, architecture: Mapping[str, Any]) -> str:
        """Return the licence of the code that computes a network, an SPDX expression; that of TANS by default."""
        return "Apache-2.0"

    def translate(self, architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a third-party file to this family's names; unchanged by default."""
        return dict(tensors)

    def published_preprocess(self, architecture: Mapping[str, Any]) -> Preprocess | None:
        """Return the preprocessing of the weights published for an architecture; None if there are none."""
        return None

    def published_form(self, architecture: Mapping[str, Any], network: Network) -> PublishedForm | None:
        """Return a network as the library has it that others would load it with; None if there is no such library."""
        return None

    def own_tensors(self, network: Network, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Slice a network's tensors from those of a supernet that contains it; unchanged by default."""
        return tensors

    def cost(self, architecture: Mapping[str, Any], image_size_px: int, num_classes: int) -> Cost:
        """Count parameters and multiply-accumulates of one image exactly, without weights."""
        return cost_of(self.outline(architecture, num_classes), image_size_px)

    def topology(self, architecture: Mapping[str, Any], image_size_px: int) -> npt.NDArray[np.float32]:
        """Return the topology code (T,) float32, comparable between families (`topology_code`)."""
        network = self.outline(architecture, 2)
        return topology_code(trace(network, network.features, image_size_px), image_size_px, network.feature_dim)

    def outline(self, architecture: Mapping[str, Any], num_classes: int) -> Network:
        """Return a network on the meta device: shapes only, no memory for weights.

        Raises:
            WeightsError: it is not an architecture of this family.
        """
        try:
            with torch.device("meta"):
                return self.build(architecture, num_classes)
        except (NotImplementedError, RuntimeError):
            # A constructor that computes with its tensors needs a real device.
            return self.build(architecture, num_classes).to("meta")

    def preprocess(self, space: SearchSpace, mean: Triple, std: Triple) -> Preprocess:
        """Return the preprocessing of networks of a space that are trained on a task.

        Args:
            space: of this family.
            mean, std: of the task's training images, per channel, in 0..1.
        """
        return Preprocess(image_size_px=space.image_size_px, mean=mean, std=std, statistics="task")

    def sizes_px(self, space: SearchSpace) -> Sequence[int]:
        """Return the input sizes of a space's networks, ascending; models take them in turns."""
        return (space.image_size_px,)

    def start(self, space: SearchSpace, supernet: Supernet) -> None:  # noqa: B027
        """Load the weights that a fresh supernet starts from, except its classifier; by default they stay random.

        Raises:
            WeightsError: the weights are missing, or are other weights than expected.
        """

    def base_weights(self, space: SearchSpace) -> Sequence[BaseWeights]:
        """Return the weights that a space's supernet starts from; empty where it starts from random ones."""
        return ()


def read_architecture(model: type[_Model], raw: Mapping[str, Any], family: str) -> _Model:
    """Read a card's architecture, strict about types: no text for a number, no fraction for an integer.

    Raises:
        WeightsError: it is not an architecture of the family; lists all problems.
    """
    try:
        return model.model_validate_json(json.dumps(dict(raw), allow_nan=False), strict=True)
    except ValidationError as error:
        raise WeightsError(f"architecture: not of {family}: {'; '.join(problems(error, model))}.") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"architecture: not of {family} ({error}).") from error


def load_state(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict whose names and shapes must match.

    Raises:
        WeightsError: they do not; lists tensors that are missing, unknown or of another shape.
    """
    wanted = network.state_dict()
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name}: got {tuple(state[name].shape)}, want {tuple(wanted[name].shape)}"
        for name in wanted.keys() & state.keys()
        if state[name].shape != wanted[name].shape
    ]
    if missing or unknown or shapes:
        parts = (("lacks", missing), ("has unknown", unknown), ("has tensors of another shape:", sorted(shapes)))
        said = "; ".join(f"{what} {', '.join(names[:5])}" for what, names in parts if names)
        raise WeightsError(f"{where}: not the weights of this network: {said}. Compare the architecture with the file.")
    network.load_state_dict(dict(state))
