"""Builds the base supernets, which every task's zoo starts from, and the general networks, of no single task.

General networks are of two kinds: the published network that a family's base started from, and members of the base.
They were trained on many kinds of images, so they suit data sets that no task resembles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tans_core.errors import ParamsError
from tans_core.io import write_json
from tans_core.networks.family import Supernet
from tans_core.networks.preprocess import balanced_indices, calibrate
from tans_core.networks.registry import get_family
from tans_core.runtime import derive_seed
from tans_core.tasks.task import Task, TaskInfo
from tans_core.zoo.build import Zoo, preprocess_of, write_cards
from tans_core.zoo.card import Ancestor, ModelCard, NetworkEntry, card_of, descend
from tans_core.zoo.supernet import SupernetRecipe, TrainingData, train_supernet
from tans_core.zoo.weights import calibration_file, calibration_of, save_tensors

HOME = "base"
"""The home task on cards of the base's members: stands for all tasks of `base.tasks` together."""
_IMAGES = 1024


@dataclass(frozen=True)
class BaseRecipe:
    """How a family's base supernet is made.

    Attributes:
        training: on all tasks together.
        start_share: share of the initial weights in the final ones, which are a weighted mean of initial and trained
            weights. It preserves what the published network does well on images unlike the tasks' (Wortsman et al.,
            2022).
        subnets: number of members that become models: the largest at each input size, then random ones.
    """

    training: SupernetRecipe
    start_share: float
    subnets: int


def build_base(
    family: str,
    settings: Mapping[str, Any],
    tasks: Sequence[Task],
    recipe: BaseRecipe,
    seed: int,
    resume_folder: Path | None,
) -> tuple[Zoo, list[float]]:
    """Train a family's base supernet on all tasks together, with one head per task.

    Returns:
        The supernet, re-calibrated and with the cards of its models (its classifier is unused); and the training loss
        of each step.

    Raises:
        ParamsError: `start_share` is above 0 for a family that starts from random weights.
    """
    implementation = get_family(family)
    space = implementation.space(settings)
    if recipe.start_share and not implementation.base_weights(space):
        raise ParamsError(
            f"base: start_share: got {recipe.start_share:g} for {family}, want 0: this family starts from random "
            "weights. Set it to 0; for families that start from published weights, set it under base.families."
        )
    torch.manual_seed(derive_seed(seed, "base"))
    network = space.supernet(num_classes=2)
    implementation.start(space, network)
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    heads = [nn.Linear(network.feature_dim, task.info.num_classes) for task in tasks]
    data = [TrainingData.of(task, "train", preprocess_of(family, space, task)) for task in tasks]
    base_seed = derive_seed(seed, "base")
    losses = train_supernet(network, heads, data, recipe.training, base_seed, resume_folder, f"base {family}")
    network = network.cpu()
    network.load_state_dict(_mixed(initial, network.state_dict(), recipe.start_share))

    generator = torch.Generator().manual_seed(derive_seed(seed, "base", "calibration"))
    share = max(1, _IMAGES // len(data))
    chosen = [balanced_indices(split.labels, share, generator) for split in data]
    members = [task.where("train")[indices.numpy()].tolist() for task, indices in zip(tasks, chosen, strict=True)]

    @cache
    def images(size_px: int) -> Tensor:
        pairs = zip(tasks, members, strict=True)
        return torch.cat([preprocess_of(family, space, task, size_px).chosen(task, indices) for task, indices in pairs])

    # The stored statistics belong to the largest subnet, which also embeds queries.
    calibrate(network, images(space.image_size_px))
    largest_first = sorted(implementation.sizes_px(space), reverse=True)
    rng = np.random.default_rng(derive_seed(seed, "base", "subnets"))
    choices = [
        (
            space.largest() if number < len(largest_first) else space.sample(rng),
            largest_first[number % len(largest_first)],
        )
        for number in range(recipe.subnets)
    ]
    infos = [task.info for task in tasks]
    lineage = base_lineage(family, settings, infos)
    texts = _licence_texts(infos)
    cards: list[ModelCard] = []
    calibrations: dict[str, Tensor] = {}
    for number, (choice, size_px) in enumerate(choices):
        subnet = network.extract(choice)
        calibrate(subnet, images(size_px))
        # The mean over the tasks; unused where a family has fixed statistics.
        preprocess = implementation.preprocess(space, *_mean_statistics(infos))
        preprocess = preprocess.model_copy(update={"image_size_px": size_px})
        model_id = f"{implementation.short}.{HOME}.{number:03d}"
        entry = NetworkEntry(model_id, family, space.describe(choice), f"base/{family}.safetensors")
        cards.append(card_of(entry, preprocess, lineage, home_task=HOME, source=_sources(lineage), texts=texts))
        calibrations |= {f"{model_id}/{name}": value for name, value in calibration_of(subnet).items()}
    return Zoo(network, [*_published_cards(family, settings), *cards], calibrations), losses


def save_base(
    folder: Path,
    zoos: Mapping[str, Zoo],
    families: Mapping[str, Mapping[str, Any]],
    tasks: Sequence[TaskInfo],
    precision: str,
) -> None:
    """Write a supernet for each family, the published networks, the cards of all general networks, and `base.json`.

    Args:
        folder: data/base.
        zoos: by family, from `build_base`.
        families: settings of each family's search space.
        tasks: training tasks of the supernets.
        precision: training precision of the supernets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = {}
    for name, zoo in zoos.items():
        path = folder / f"{name}.safetensors"
        save_tensors(_features(zoo.supernet), path)
        save_tensors(zoo.calibrations, calibration_file(path))
        family = get_family(name)
        space = family.space(families[name])
        for weights in family.base_weights(space):
            network = space.supernet(num_classes=2)
            family.start(space, network)
            save_tensors(_features(network), folder / f"{weights.name}.safetensors")
        lineage = [ancestor.model_dump(mode="json") for ancestor in base_lineage(name, families[name], tasks)]
        described[name] = {"settings": families[name], "lineage": lineage}
    write_cards([card for zoo in zoos.values() for card in zoo.cards], folder)
    texts = _licence_texts(tasks)
    write_json({"families": described, "licence_texts": texts, "precision": precision}, folder / "base.json")


def base_lineage(family: str, settings: Mapping[str, Any], tasks: Sequence[TaskInfo]) -> tuple[Ancestor, ...]:
    """Return the lineage of a family's base: published weights, their images, and the tasks."""
    lineage = _published_lineage(family, settings)
    for task in tasks:
        lineage = descend(lineage, task)
    return lineage


def _licence_texts(tasks: Sequence[TaskInfo]) -> dict[str, str]:
    return {ref: text for task in tasks for ref, text in task.licence_texts.items()}


def _published_cards(family: str, settings: Mapping[str, Any]) -> list[ModelCard]:
    implementation = get_family(family)
    space = implementation.space(settings)
    preprocess = implementation.preprocess(space, (0.5,) * 3, (0.25,) * 3)
    architecture, lineage = space.describe(space.largest()), _published_lineage(family, settings)
    return [
        card_of(
            NetworkEntry(f"{weights.name}.{size}", family, architecture, f"base/{weights.name}.safetensors"),
            preprocess.model_copy(update={"image_size_px": size}),
            lineage,
            home_task=weights.images or weights.name,
            source=_sources(lineage),
        )
        for weights in implementation.base_weights(space)
        for size in implementation.sizes_px(space)
    ]


def _published_lineage(family: str, settings: Mapping[str, Any]) -> tuple[Ancestor, ...]:
    implementation = get_family(family)
    lineage: list[Ancestor] = []
    for weights in implementation.base_weights(implementation.space(settings)):
        lineage.append(Ancestor(kind="weights", name=weights.name, source=weights.source, licence=weights.licence))
        if weights.images:
            images = Ancestor(kind="task", name=weights.images, source=weights.source, licence=weights.images_licence)
            lineage.append(images)
    return tuple(lineage)


def _sources(lineage: Sequence[Ancestor]) -> str:
    return ", ".join(dict.fromkeys(ancestor.source for ancestor in lineage))


def _mixed(initial: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    return {
        name: torch.lerp(value, initial[name], share) if value.is_floating_point() else value
        for name, value in trained.items()
    }


def _features(network: Supernet) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.startswith("classifier.")}


def _mean_statistics(infos: Sequence[TaskInfo]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    mean, std = (np.mean([getattr(info, name) for info in infos], axis=0).tolist() for name in ("mean", "std"))
    return tuple(mean), tuple(std)
