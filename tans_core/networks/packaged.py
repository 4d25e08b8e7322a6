"""The networks of timm and torchvision, by name: those whose classifier is one linear layer.

They have no search space and no supernet, so TANS does not pretrain them. They enter the zoo as newcomers, with weights
of their own. The library computes their features; only the classifier is ours.

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
from tans_core.networks.family import Family, Network, PublishedForm, SearchSpace, read_architecture
from tans_core.networks.preprocess import Preprocess


class Architecture(BaseModel):
    """A network of a library.

    Attributes:
        package: `timm` or `torchvision`.
        name: its name in the library.
        image_size_px: the input size to build it for, where it needs one (transformers with learned positions); None
            uses the library's default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    package: Literal["timm", "torchvision"]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    image_size_px: Annotated[int, Field(ge=8, le=1024)] | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Architecture:
        """Read a card's architecture. Raises WeightsError: it is none, or its library has no such network."""
        architecture = read_architecture(cls, raw, "a library")
        # Check against the library's list: it would fetch some other names from a hub.
        if architecture.name not in _names(architecture.package):
            suggestion = did_you_mean(architecture.name, _names(architecture.package))
            raise WeightsError(f"{architecture.package} has no network {architecture.name!r}{suggestion}.")
        return architecture


class LibraryNetwork(Network):
    """A library's network with our classifier in place of its own."""

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        body, width = _BUILDERS[architecture.package](architecture)
        self.body = body
        self.classifier = nn.Linear(width, num_classes)
        # Depthwise convolutions train slower in bf16 on CPUs, and most of these networks have some.
        self.trains_faster_in_bf16 = not any(
            isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.groups == layer.in_channels
            for layer in body.modules()
        )

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        # Some layers need the metadata of the version that saved them. Files of plain tensors lack it.
        versioned = OrderedDict(state_dict)
        versioned._metadata = self.state_dict()._metadata  # type: ignore[attr-defined]
        return super().load_state_dict(versioned, *args, **options)

    def features(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.body(images)
        return outputs


class Library(Family):
    """Networks of timm and torchvision."""

    name = "library"
    packages = ("timm", "torchvision")

    def space(self, settings: Mapping[str, Any]) -> SearchSpace:
        raise ParamsError("networks of a library have no search space. Hand them in: docs/serving.md, Newcomers.")

    def build(self, architecture: Mapping[str, Any], num_classes: int) -> LibraryNetwork:
        parsed = Architecture.read(architecture)
        try:
            return LibraryNetwork(parsed, num_classes)
        except (TypeError, ValueError, AssertionError, AttributeError) as error:
            raise WeightsError(
                f"architecture: {parsed.package} cannot build {parsed.name!r} with these settings: "
                f"{type(error).__name__}: {error}."
            ) from error

    def translate(self, architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put a library's names under `body.`, and find the classifier: the one matrix as wide as the features."""
        network = self.outline(architecture, 1)
        body = network.body.state_dict()
        renamed = {f"body.{name}": tensors[name] for name in body if name in tensors}
        # Old files lack the batch counts, which have no effect here.
        counts = [name for name in body if name.endswith("num_batches_tracked") and name not in tensors]
        renamed |= {f"body.{name}": torch.zeros((), dtype=torch.int64) for name in counts}
        rest = {name: value for name, value in tensors.items() if name not in body}
        matrices = [
            name for name, value in rest.items() if value.ndim == 2 and value.shape[1] == network.classifier.in_features
        ]
        if len(matrices) == 1:
            weight = rest.pop(matrices[0])
            bias = rest.pop(matrices[0].removesuffix("weight") + "bias", torch.zeros(len(weight)))
            renamed |= {"classifier.weight": weight, "classifier.bias": bias}
        return renamed | rest

    def code_licence(self, architecture: Mapping[str, Any]) -> str:
        # TANS runs a network, the package defines it.
        return "Apache-2.0 AND BSD-3-Clause" if architecture["package"] == "torchvision" else "Apache-2.0"

    def published_preprocess(self, architecture: Mapping[str, Any]) -> Preprocess | None:
        parsed = Architecture.read(architecture)
        return _PREPROCESS[parsed.package](parsed)

    def published_form(self, architecture: Mapping[str, Any], network: Network) -> PublishedForm | None:
        """Return the network with timm's own classifier; None for torchvision, and where timm's has another form."""
        parsed = Architecture.read(architecture)
        if parsed.package != "timm":
            return None
        import timm

        sized: dict[str, Any] = {} if parsed.image_size_px is None else {"img_size": parsed.image_size_px}
        outputs = network.classifier.out_features
        whole: Any = timm.create_model(parsed.name, pretrained=False, num_classes=outputs, **sized)
        name = whole.default_cfg.get("classifier")
        state = {key.removeprefix("body."): value for key, value in network.state_dict().items()}
        state = {
            (f"{name}.{key[11:]}" if key.startswith("classifier.") else key): value for key, value in state.items()
        }
        if not isinstance(name, str) or state.keys() != whole.state_dict().keys():
            return None
        whole.load_state_dict(state)
        return PublishedForm(whole.eval(), {"architecture": parsed.name, "model_args": sized}, name)

    def outline(self, architecture: Mapping[str, Any], num_classes: int) -> LibraryNetwork:
        # Never in real memory: an untrusted card may name a network of any size.
        try:
            with torch.device("meta"):
                return self.build(architecture, num_classes)
        except (NotImplementedError, RuntimeError) as error:
            raise WeightsError(
                f"architecture: {architecture.get('name')!r} cannot be checked without loading it (it does not build "
                "on torch's meta device), so it is not taken."
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
    # Where a layer follows the features, the output without a classifier has another width than `num_features`.
    return body, int(getattr(body, "head_hidden_size", None) or body.num_features)


def _torchvision(architecture: Architecture) -> tuple[nn.Module, int]:
    import torchvision

    sized = {} if architecture.image_size_px is None else {"image_size": architecture.image_size_px}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about initial weights, which are replaced
        body = torchvision.models.get_model(architecture.name, weights=None, **sized)
    layers = [(name, layer) for name, layer in body.named_modules() if isinstance(layer, nn.Linear)]
    name, last = layers[-1] if layers else ("", None)
    has_auxiliary = any(child.lower().startswith("aux") for child, _ in body.named_children())
    if last is None or last.out_features != 1000 or has_auxiliary:
        raise WeightsError(f"architecture: {architecture.name!r} does not end with one linear classifier.")
    body.set_submodule(name, nn.Identity())
    return body, last.in_features


def _timm_preprocess(architecture: Architecture) -> Preprocess | None:
    from timm.models import get_pretrained_cfg, is_model_pretrained

    if not is_model_pretrained(architecture.name):
        return None
    published = get_pretrained_cfg(architecture.name)
    assert published is not None
    size = architecture.image_size_px or published.input_size[-1]
    scaling = {"interpolation": published.interpolation, "crop": published.crop_pct}
    return Preprocess.model_validate({"image_size_px": size, "mean": published.mean, "std": published.std, **scaling})


def _torchvision_preprocess(architecture: Architecture) -> Preprocess | None:
    import torchvision

    published = torchvision.models.get_model_weights(architecture.name).DEFAULT.transforms()
    size = architecture.image_size_px or published.crop_size[0]
    scaling = {
        "interpolation": published.interpolation.value,
        "crop": published.crop_size[0] / published.resize_size[0],
    }
    return Preprocess.model_validate({"image_size_px": size, "mean": published.mean, "std": published.std, **scaling})


_PREPROCESS: Mapping[str, Callable[[Architecture], Preprocess | None]] = {
    "timm": _timm_preprocess,
    "torchvision": _torchvision_preprocess,
}
_BUILDERS: Mapping[str, Callable[[Architecture], tuple[nn.Module, int]]] = {"timm": _timm, "torchvision": _torchvision}

FAMILY = Library()
