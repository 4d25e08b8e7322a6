"""Weights on disk, always safetensors: supernets, calibrations of subnets, and single networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tans_core.errors import WeightsError
from tans_core.io import atomic_path, read_json
from tans_core.networks.family import Network, SearchSpace, Supernet, load_state
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import get_family
from tans_core.runtime import derive_seed
from tans_core.zoo.card import Ancestor, ModelCard

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
            f"{path}: not readable as safetensors ({error}). Run `tans build`, and for a release `tans publish`."
        ) from error


@dataclass(frozen=True)
class Base:
    """The contents of data/base: one supernet per family, trained on several tasks.

    Attributes:
        families: settings of each family's search space, by name; the first family's supernet embeds queries.
        lineages: of each family's weights.
        precision: of the zoo's training.
        licence_texts: terms of the licences of the base's tasks, by `LicenseRef-`.
    """

    folder: Path
    families: dict[str, dict[str, Any]]
    lineages: dict[str, tuple[Ancestor, ...]]
    precision: Literal["fp32", "bf16"]
    licence_texts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Base:
        """Read `base.json`.

        Raises:
            WeightsError: it is missing, or of another version.
        """
        path = folder / "base.json"
        if not path.is_file():
            raise WeightsError(f"{path}: no such file. Run `tans build`, and for a release `tans publish`.")
        raw = read_json(path)
        try:
            families = {name: one["settings"] for name, one in raw["families"].items()}
            lineages = {
                name: tuple(map(Ancestor.model_validate, one["lineage"])) for name, one in raw["families"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path}: of an earlier version. Run `tans build` to make it again.") from error
        return cls(folder, families, lineages, raw["precision"], dict(raw.get("licence_texts", {})))

    def space(self, family: str) -> SearchSpace:
        """Return the search space of a family.

        Raises:
            WeightsError: the base has no supernet of this family.
        """
        if family not in self.families:
            raise WeightsError(f"{self.folder}: no base of family {family!r}; it holds {', '.join(self.families)}.")
        return get_family(family).space(self.families[family])

    def published(self, name: str) -> tuple[Network, Preprocess, Path] | None:
        """Return the published network that a family's base started from.

        Returns:
            The network in eval mode, its preprocessing at the family's training size, and its file; None if no base
            started from weights of this name.

        Raises:
            WeightsError: its file is missing or damaged.
        """
        for family in map(get_family, self.families):
            space = self.space(family.name)
            if name in {one.name for one in family.base_weights(space)}:
                preprocess = family.preprocess(space, (0.5,) * 3, (0.25,) * 3)
                return self._features_of(family.name, self.path(name)), preprocess, self.path(name)
        return None

    def holds(self, card: ModelCard) -> bool:
        """Return whether a model's architecture is a member of its family's base supernet."""
        try:
            self.space(card.family).member(card.architecture)
        except WeightsError:
            return False
        return True

    def path(self, name: str) -> Path:
        """Return the file of a family's supernet, or of published weights."""
        return self.folder / f"{name}.safetensors"

    def load(self, family: str | None = None, num_classes: int = 2) -> Supernet:
        """Load the supernet of a family, by default the first, with a fresh classifier.

        Raises:
            WeightsError: its file is missing or damaged.
        """
        family = family or next(iter(self.families))
        return self._features_of(family, self.path(family), num_classes)

    def _features_of(self, family: str, path: Path, num_classes: int = 2) -> Supernet:
        network = self.space(family).supernet(num_classes)
        state = {f"classifier.{name}": value for name, value in network.classifier.state_dict().items()}
        load_state(network, load_tensors(path) | state, str(path))
        return network.eval()


def calibration_file(weights: Path) -> Path:
    """Return the path of the calibrations of a supernet's models."""
    return weights.with_suffix(".calibration.safetensors")


def calibration_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the BatchNorm statistics: all that a subnet does not share with its supernet."""
    return {name: value for name, value in network.state_dict().items() if name.endswith(_NORM_BUFFERS)}


def load_model(card: ModelCard, weights: Path) -> Network:
    """Load the network of a card, in eval mode.

    It has the classifier of its home task; a general network gets one with a single output and zero weights. Models of
    one supernet share its file, and their calibrations are in a file beside it. Other files contain one network each.

    Args:
        card: of the model.
        weights: the file at `card.weights`.

    Raises:
        WeightsError: a file is missing, damaged, or does not match the card.
    """
    where = f"model {card.id!r} in {weights}"
    family = get_family(card.family)
    tensors = load_tensors(weights)
    if card.general:
        classifier = family.outline(card.architecture, card.outputs).classifier.state_dict()
        tensors |= {f"classifier.{name}": torch.zeros(value.shape) for name, value in classifier.items()}
    network = family.load(card.architecture, card.outputs, tensors, where)
    calibration = calibration_file(weights)
    if calibration.is_file():
        statistics = load_tensors(calibration, prefix=f"{card.id}/")
        if not statistics:
            raise WeightsError(
                f"{calibration}: contains nothing of model {card.id!r}. Run `tans build`, and for a release "
                "`tans publish`."
            )
        load_state(network, {**network.state_dict(), **statistics}, f"model {card.id!r} in {calibration}")
    return network


def fresh_classifier(network: Network, num_classes: int, seed: int) -> Network:
    """Give a network a fresh classifier of `num_classes`, drawn from a seed; return the network."""
    network.reset_classifier(num_classes, torch.Generator().manual_seed(derive_seed(seed, "classifier")))
    return network
