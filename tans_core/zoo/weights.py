"""Weights on disk: supernets, the calibration of each subnet, and single networks; always safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tans_core.errors import WeightsError
from tans_core.io import atomic_path, read_json, write_json
from tans_core.networks.elastic import Architecture, ElasticNetwork, ElasticSpace, slice_weights
from tans_core.zoo.card import ModelCard

CALIBRATION_FILE = "calibration.safetensors"
_NORM_BUFFERS = ("running_mean", "running_var")


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors atomically; the same tensors give the same bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def load_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read the tensors whose names start with `prefix`, named without it.

    Raises:
        WeightsError: the file is missing or is not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name[len(prefix) :]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: not readable as safetensors ({error}). Run `dvc repro` to build it again."
        ) from error


def load_state(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
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
    network.load_state_dict(state)


def save_base(network: ElasticNetwork, folder: Path, description: dict[str, Any]) -> None:
    """Write the base supernet and `base.json`: its search space and how it came to be."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("classifier.")}
    save_tensors(state, folder / "base.safetensors")
    write_json({**description, "space": network.space.to_dict()}, folder / "base.json")


def load_base(folder: Path, num_classes: int) -> ElasticNetwork:
    """Load the base supernet under a fresh classifier of `num_classes`.

    Raises:
        WeightsError: a file is missing or damaged.
    """
    space = read_space(folder)
    network = space.build(space.largest(), num_classes)
    state = {f"classifier.{name}": value for name, value in network.classifier.state_dict().items()}
    load_state(network, load_tensors(folder / "base.safetensors") | state, str(folder / "base.safetensors"))
    return network


def read_space(folder: Path) -> ElasticSpace:
    """Read the search space that a base supernet spans.

    Raises:
        WeightsError: `base.json` is missing.
    """
    path = folder / "base.json"
    if not path.is_file():
        raise WeightsError(f"{path}: no such file. Run `dvc repro base`.")
    return ElasticSpace.from_dict(read_json(path)["space"])


def calibration_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the BatchNorm statistics, which are all that a subnet does not share with its supernet."""
    return {name: value for name, value in network.state_dict().items() if name.endswith(_NORM_BUFFERS)}


def load_model(card: ModelCard, weights: Path, space: ElasticSpace) -> ElasticNetwork:
    """Load the network of a card, in eval mode, with the classifier of its home task.

    A supernet's file is shared by its models; each one's calibration lies beside it. Any other file holds one network whole.

    Args:
        card: of the model.
        weights: the file that `card.weights` names.
        space: the search space of the zoo.

    Raises:
        WeightsError: a file is missing, damaged, or does not match the card.
    """
    architecture = Architecture.from_dict(card.architecture)
    network = space.build(architecture, len(card.class_names))
    state = load_tensors(weights)
    calibration = weights.with_name(CALIBRATION_FILE)
    if calibration.is_file():
        wanted = network.state_dict()
        if absent := sorted(wanted.keys() - state.keys()):
            raise WeightsError(f"{weights}: lacks {absent[:5]} of model {card.id!r}.")
        state = {name: slice_weights(state[name], value.shape) for name, value in wanted.items()}
        own = load_tensors(calibration, prefix=f"{card.id}/")
        if not own:
            raise WeightsError(f"{calibration}: holds nothing of model {card.id!r}. Run `dvc repro` to build it again.")
        state |= own
    load_state(network, state, f"model {card.id!r} in {weights}")
    return network.eval()


def fresh_classifier(network: ElasticNetwork, num_classes: int, generator: torch.Generator) -> ElasticNetwork:
    """Replace the classifier by a fresh one of `num_classes`, drawn from `generator`; return the network."""
    device = network.classifier.weight.device
    classifier = nn.Linear(network.feature_dim, num_classes)
    bound = network.feature_dim**-0.5
    with torch.no_grad():
        classifier.weight.uniform_(-bound, bound, generator=generator)
        classifier.bias.zero_()
    network.classifier = classifier.to(device)
    return network
