"""Weights on disk: supernets, the calibration of each subnet, and single networks; always safetensors."""

from __future__ import annotations

from dataclasses import dataclass
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
            f"{path}: not readable as safetensors ({error}). Run `dvc repro` to build it again."
        ) from error


@dataclass(frozen=True)
class Base:
    """What data/base holds: one supernet a family, trained on several tasks.

    Attributes:
        families: the settings of each family's search space, by its name; the first one's supernet embeds queries.
        lineages: what each family's weights descend from.
        precision: that the zoo is trained in.
    """

    folder: Path
    families: dict[str, dict[str, Any]]
    lineages: dict[str, tuple[Ancestor, ...]]
    precision: Literal["fp32", "bf16"]

    @classmethod
    def open(cls, folder: Path) -> Base:
        """Read `base.json`.

        Raises:
            WeightsError: it is missing, or not of this version.
        """
        path = folder / "base.json"
        if not path.is_file():
            raise WeightsError(f"{path}: no such file. Run `dvc repro base`.")
        raw = read_json(path)
        try:
            families = {name: one["settings"] for name, one in raw["families"].items()}
            lineages = {
                name: tuple(map(Ancestor.model_validate, one["lineage"])) for name, one in raw["families"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path}: of an earlier version. Run `tans build` to make it again.") from error
        return cls(folder, families, lineages, raw["precision"])

    def space(self, family: str) -> SearchSpace:
        """Return the search space of a family.

        Raises:
            WeightsError: the base holds none of this family.
        """
        if family not in self.families:
            raise WeightsError(f"{self.folder}: no base of family {family!r}; it holds {', '.join(self.families)}.")
        return get_family(family).space(self.families[family])

    def published(self, name: str) -> tuple[Network, Preprocess, Path] | None:
        """Return the network that a family's base started from, as it was published.

        Returns:
            In eval mode, with what images go through before it at the size that the family is trained at, and its file; None
            where no base started from weights of this name.

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
        """Say whether a model's architecture is a member of its family's base supernet."""
        try:
            self.space(card.family).member(card.architecture)
        except WeightsError:
            return False
        return True

    def path(self, name: str) -> Path:
        """Return the file of a family's supernet, or of weights as they were published."""
        return self.folder / f"{name}.safetensors"

    def load(self, family: str | None = None, num_classes: int = 2) -> Supernet:
        """Load a family's supernet, or the first one's, under a fresh classifier.

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
    """Return where the calibrations of a supernet's models lie."""
    return weights.with_suffix(".calibration.safetensors")


def calibration_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the BatchNorm statistics, which are all that a subnet does not share with its supernet."""
    return {name: value for name, value in network.state_dict().items() if name.endswith(_NORM_BUFFERS)}


def load_model(card: ModelCard, weights: Path) -> Network:
    """Load the network of a card, in eval mode, with the classifier of its home task; of a single zero where the card has none.

    A supernet's file is shared by its models; each one's calibration lies beside it. Any other file holds one network whole.

    Args:
        card: of the model.
        weights: the file that `card.weights` names.

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
        own = load_tensors(calibration, prefix=f"{card.id}/")
        if not own:
            raise WeightsError(f"{calibration}: holds nothing of model {card.id!r}. Run `dvc repro` to build it again.")
        load_state(network, {**network.state_dict(), **own}, f"model {card.id!r} in {calibration}")
    return network


def fresh_classifier(network: Network, num_classes: int, seed: int) -> Network:
    """Put a fresh classifier of `num_classes`, drawn from a seed, on a network; return the network."""
    network.reset_classifier(num_classes, torch.Generator().manual_seed(derive_seed(seed, "classifier")))
    return network
