"""What a family of networks is: all that the rest of the house knows of the networks in the zoo.

Axes: B images, 3 channels, S = side of the input in pixels, D feature width, K classes, T = `TOPOLOGY_DIM`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
    """On a CPU that has instructions for it. Answers are always computed faster so."""
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
        """Return what a network is trained in where `precision` is asked for: fp32 on a CPU where bf16 is slower."""
        return precision if self.trains_faster_in_bf16 or device != "cpu" else "fp32"

    def reset_classifier(self, num_classes: int, generator: torch.Generator) -> None:
        """Put a fresh classifier of `num_classes` on, drawn from `generator`."""
        classifier = nn.Linear(self.feature_dim, num_classes)
        bound = self.feature_dim**-0.5
        with torch.no_grad():
            classifier.weight.uniform_(-bound, bound, generator=generator)
            classifier.bias.zero_()
        self.classifier = classifier.to(self.classifier.weight.device)


class Supernet(Network):
    """The largest member of a search space, whose weights all members share.

    Attributes:
        space: whose members it holds.
        active: the member that `features` computes; None means the largest.
    """

    space: SearchSpace
    active: Any

    @abstractmethod
    def extract(self, member: Any) -> Network:
        """Return a network of its own that answers exactly as the active member does."""


class SearchSpace(Protocol):
    """The architectures that the settings of a family span. A member is a value that the space alone can read."""

    @property
    def image_size_px(self) -> int:
        """The side of the images that its networks are made for."""
        ...

    def largest(self) -> Any: ...
    def smallest(self) -> Any: ...
    def sample(self, rng: np.random.Generator) -> Any: ...

    def describe(self, member: Any) -> dict[str, Any]:
        """Return a member as a card's `architecture`: plain values that `Family.build` needs nothing beside."""
        ...

    def member(self, architecture: Mapping[str, Any]) -> Any:
        """Read what `describe` gave. Raises WeightsError where it is no member."""
        ...

    def supernet(self, num_classes: int) -> Supernet:
        """Return the supernet with fresh weights from torch's global generator."""
        ...


@dataclass(frozen=True)
class BaseWeights:
    """Weights from elsewhere that a family's networks start from.

    Attributes:
        name, source: of the weights.
        licence: that they are given under, an SPDX expression.
        images: that they were trained on, by name; empty where nothing is told.
        images_licence: of these, an SPDX expression.
    """

    name: str
    source: str
    licence: str
    images: str = ""
    images_licence: str = ""


class Family(ABC):
    """One kind of network. Add one by an entry point of the group `tans.families` whose value is an instance."""

    name: str
    """What cards and params.yaml call it."""

    @property
    def short(self) -> str:
        """What the ids of its models begin with."""
        return self.name

    @abstractmethod
    def space(self, settings: Mapping[str, Any]) -> SearchSpace:
        """Read the family's section `networks.<name>` of params.yaml.

        Raises:
            ParamsError: all that is wrong with it, by key.
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
            tensors: by name: the network's own, or those of a supernet that holds it.
            where: names the file in messages.

        Raises:
            WeightsError: they are not this architecture's; says what is missing, unknown or of another shape.
        """
        network = self.build(architecture, num_classes)
        load_state(network, self.own_tensors(network, tensors), where)
        return network.eval()

    def translate(self, architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name the tensors of a file that others wrote as this family's networks name theirs: as they are by default."""
        return dict(tensors)

    def published_preprocess(self, architecture: Mapping[str, Any]) -> Preprocess | None:
        """Return what images go through before the weights that are published for an architecture; None where none are."""
        return None

    def own_tensors(self, network: Network, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Cut a network's tensors out of those of a supernet that holds it; a family without supernets takes them as
        they are.
        """
        return tensors

    def cost(self, architecture: Mapping[str, Any], image_size_px: int, num_classes: int) -> Cost:
        """Count parameters and multiply-accumulates of one image exactly, without weights."""
        return cost_of(self.outline(architecture, num_classes), image_size_px)

    def topology(self, architecture: Mapping[str, Any], image_size_px: int) -> npt.NDArray[np.float32]:
        """Return the topology code (T,) float32; those of all families are of one kind (`topology_code`)."""
        network = self.outline(architecture, 2)
        return topology_code(trace(network, network.features, image_size_px), image_size_px, network.feature_dim)

    def outline(self, architecture: Mapping[str, Any], num_classes: int) -> Network:
        """Return a network on the meta device: its shapes, without memory for weights.

        Raises:
            WeightsError: it is not an architecture of this family.
        """
        try:
            with torch.device("meta"):
                return self.build(architecture, num_classes)
        except (NotImplementedError, RuntimeError):
            # A constructor that computes with its tensors needs real ones.
            return self.build(architecture, num_classes).to("meta")

    def preprocess(self, space: SearchSpace, mean: Triple, std: Triple) -> Preprocess:
        """Return what images go through before networks of a space that are trained on a task.

        Args:
            space: of this family.
            mean, std: of the task's training images, a channel, in 0..1.
        """
        return Preprocess(image_size_px=space.image_size_px, mean=mean, std=std, statistics="task")

    def sizes_px(self, space: SearchSpace) -> Sequence[int]:
        """Return the sides, ascending, of the images that a space's networks are used at, in turns."""
        return (space.image_size_px,)

    def start(self, space: SearchSpace, supernet: Supernet) -> None:  # noqa: B027
        """Give a fresh supernet the weights that it starts from, its classifier aside; nothing where they are random.

        Raises:
            WeightsError: they are not here, or not those that they should be.
        """

    def base_weights(self, space: SearchSpace) -> Sequence[BaseWeights]:
        """Return what the weights of a space's fresh supernet descend from; nothing where they are random."""
        return ()


def read_architecture(model: type[_Model], raw: Mapping[str, Any], family: str) -> _Model:
    """Read a card's architecture, in which numbers have to be numbers of their kind.

    Raises:
        WeightsError: it is none of the family; all problems are named.
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
        WeightsError: they do not; names what is missing, unknown or of another shape.
    """
    wanted = network.state_dict()
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name}: got {tuple(state[name].shape)}, want {tuple(wanted[name].shape)}"
        for name in wanted.keys() & state.keys()
        if state[name].shape != wanted[name].shape
    ]
    if missing or unknown or shapes:
        raise WeightsError(f"{where}: missing {missing[:5]}, unknown {unknown[:5]}, shapes {sorted(shapes)[:5]}.")
    network.load_state_dict(dict(state))
