"""The networks that timm and torchvision have, by name: any of them whose classifier is one linear layer.

They span no search space, so nothing is trained here from a supernet of theirs: they enter the zoo as newcomers, with
weights of their own. What they compute is the library's; only the classifier is ours.

Axes: B images, S pixels, D feature width, K classes.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tans_core.errors import ParamsError, WeightsError, did_you_mean
from tans_core.networks.family import Family, Network, SearchSpace, read_architecture
from tans_core.networks.preprocess import Preprocess


class Architecture(BaseModel):
    """A network of a library.

    Attributes:
        package: `timm` or `torchvision`.
        name: as the library calls it.
        image_size_px: the input size that it is built for, where it is built for one (transformers with learned
            positions); None builds it as the library does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    package: Literal["timm", "torchvision"]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    image_size_px: Annotated[int, Field(ge=8, le=1024)] | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Architecture:
        """Raises WeightsError where it is none, or no network of its library; all problems are named."""
        found = read_architecture(cls, raw, "a library")
        # By the library's own list alone: some of its names would be fetched from a hub.
        if found.name not in _names(found.package):
            meant = did_you_mean(found.name, _names(found.package))
            raise WeightsError(f"architecture: {found.package} has no network {found.name!r}{meant}.")
        return found


class LibraryNetwork(Network):
    """A library's network without its classifier, under ours."""

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        body, width = _BUILDERS[architecture.package](architecture)
        self.body = body
        self.classifier = nn.Linear(width, num_classes)
        # Depthwise convolutions train slower in bf16 on CPUs, and most of these networks have some.
        self.trains_faster_in_bf16 = not any(
            isinstance(one, nn.Conv2d) and one.groups > 1 and one.groups == one.in_channels for one in body.modules()
        )

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        # Some layers look for the version that they were saved by, which files of plain tensors do not have.
        versioned = OrderedDict(state_dict)
        versioned._metadata = self.state_dict()._metadata  # type: ignore[attr-defined]
        return super().load_state_dict(versioned, *args, **options)

    def features(self, images: Tensor) -> Tensor:
        answers: Tensor = self.body(images)
        return answers


class Library(Family):
    """Networks of timm and torchvision."""

    name = "library"

    def space(self, settings: Mapping[str, Any]) -> SearchSpace:
        raise ParamsError("networks of a library span no search space. Hand them in: docs/serving.md, Newcomers.")

    def build(self, architecture: Mapping[str, Any], num_classes: int) -> LibraryNetwork:
        found = Architecture.read(architecture)
        try:
            return LibraryNetwork(found, num_classes)
        except (TypeError, ValueError, AssertionError, AttributeError) as error:
            raise WeightsError(
                f"architecture: {found.package} cannot build {found.name!r} so ({type(error).__name__}: {error})."
            ) from error

    def translate(self, architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put a library's names under `body.`, and find the classifier: the one matrix that its features fit into."""
        network = self.outline(architecture, 1)
        body = network.body.state_dict()
        own = {f"body.{name}": tensors[name] for name in body if name in tensors}
        # Files of before there were counts lack them; they count for nothing here.
        counts = [name for name in body if name.endswith("num_batches_tracked") and name not in tensors]
        own |= {f"body.{name}": torch.zeros((), dtype=torch.int64) for name in counts}
        rest = {name: value for name, value in tensors.items() if name not in body}
        weights = [
            name for name, value in rest.items() if value.ndim == 2 and value.shape[1] == network.classifier.in_features
        ]
        if len(weights) == 1:
            weight = rest.pop(weights[0])
            bias = rest.pop(weights[0].removesuffix("weight") + "bias", torch.zeros(len(weight)))
            own |= {"classifier.weight": weight, "classifier.bias": bias}
        return own | rest

    def published_preprocess(self, architecture: Mapping[str, Any]) -> Preprocess | None:
        found = Architecture.read(architecture)
        return _PREPROCESS[found.package](found)

    def outline(self, architecture: Mapping[str, Any], num_classes: int) -> LibraryNetwork:
        # Never in real memory: a card from outside may name a network of any size.
        try:
            with torch.device("meta"):
                return self.build(architecture, num_classes)
        except (NotImplementedError, RuntimeError) as error:
            raise WeightsError(
                f"architecture: {architecture.get('name')!r} cannot be looked at without memory for its weights."
            ) from error


@cache
def _names(package: str) -> frozenset[str]:
    if package == "timm":
        import timm

        return frozenset(timm.list_models())
    import torchvision

    return frozenset(torchvision.models.list_models(module=torchvision.models))


def _timm(architecture: Architecture) -> tuple[nn.Module, int]:
    import timm

    sized: dict[str, Any] = {} if architecture.image_size_px is None else {"img_size": architecture.image_size_px}
    body: Any = timm.create_model(architecture.name, pretrained=False, num_classes=0, **sized)
    # What it gives without a classifier is wider than its features where a layer stands between them.
    return body, int(getattr(body, "head_hidden_size", None) or body.num_features)


def _torchvision(architecture: Architecture) -> tuple[nn.Module, int]:
    import torchvision

    sized = {} if architecture.image_size_px is None else {"image_size": architecture.image_size_px}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of initial weights, which are of no account
        body = torchvision.models.get_model(architecture.name, weights=None, **sized)
    layers = [(name, layer) for name, layer in body.named_modules() if isinstance(layer, nn.Linear)]
    name, last = layers[-1] if layers else ("", None)
    several = any(child.lower().startswith("aux") for child, _ in body.named_children())
    if last is None or last.out_features != 1000 or several:
        raise WeightsError(f"architecture: {architecture.name!r} does not end with one linear classifier.")
    body.set_submodule(name, nn.Identity())
    return body, last.in_features


def _timm_preprocess(architecture: Architecture) -> Preprocess | None:
    from timm.models import get_pretrained_cfg, is_model_pretrained

    if not is_model_pretrained(architecture.name):
        return None
    said = get_pretrained_cfg(architecture.name)
    assert said is not None
    size = architecture.image_size_px or said.input_size[-1]
    scaling = {"interpolation": said.interpolation, "crop": said.crop_pct}
    return Preprocess.model_validate({"image_size_px": size, "mean": said.mean, "std": said.std, **scaling})


def _torchvision_preprocess(architecture: Architecture) -> Preprocess | None:
    import torchvision

    said = torchvision.models.get_model_weights(architecture.name).DEFAULT.transforms()
    size = architecture.image_size_px or said.crop_size[0]
    scaling = {"interpolation": said.interpolation.value, "crop": said.crop_size[0] / said.resize_size[0]}
    return Preprocess.model_validate({"image_size_px": size, "mean": said.mean, "std": said.std, **scaling})


_PREPROCESS: Mapping[str, Callable[[Architecture], Preprocess | None]] = {
    "timm": _timm_preprocess,
    "torchvision": _torchvision_preprocess,
}
_BUILDERS: Mapping[str, Callable[[Architecture], tuple[nn.Module, int]]] = {"timm": _timm, "torchvision": _torchvision}

FAMILY = Library()
