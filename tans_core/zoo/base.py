"""The base supernets that every task's zoo starts from, and the networks of no single task that come with them.

Those are of two kinds: the network that a family's base started from, as it was published, and members of the base itself. What
they know was taught by many images, not by one task's, so they are a start for data sets that no task is like.
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
from tans_core.zoo.card import Ancestor, Made, ModelCard, card_of, descend
from tans_core.zoo.supernet import SupernetRecipe, TrainingData, train_supernet
from tans_core.zoo.weights import calibration_file, calibration_of, save_tensors

HOME = "base"
"""What the cards of the base's members name as their home: the tasks of `base.tasks` together."""
_IMAGES = 1024


@dataclass(frozen=True)
class BaseRecipe:
    """How a family's base supernet is made.

    Attributes:
        training: on all tasks together.
        start_share: share of the weights that it began with in what becomes of it; the rest is what training made of them. The
            mean of both keeps what the published network knew where the tasks are unlike its images (Wortsman et al., 2022).
        subnets: members that become networks of the zoo: the largest at each input size, then random ones.
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
    """Train the supernet of a family that every task's zoo starts from, on all tasks together with a head each.

    Returns:
        The supernet (its classifier is of no use), re-calibrated, with the cards of its networks; and the training loss of each
        step.

    Raises:
        ParamsError: a share of random weights is to be kept.
    """
    found = get_family(family)
    space = found.space(settings)
    if recipe.start_share and not found.base_weights(space):
        raise ParamsError(
            f"base: start_share: got {recipe.start_share:g} for {family}, want 0: it starts from random weights. "
            "Set it in base.families of those that start from published ones."
        )
    torch.manual_seed(derive_seed(seed, "base"))
    network = space.supernet(num_classes=2)
    found.start(space, network)
    begun = {name: value.clone() for name, value in network.state_dict().items()}
    heads = [nn.Linear(network.feature_dim, task.info.num_classes) for task in tasks]
    data = [TrainingData.of(task, "train", preprocess_of(family, space, task)) for task in tasks]
    own_seed = derive_seed(seed, "base")
    losses = train_supernet(network, heads, data, recipe.training, own_seed, resume_folder, f"base {family}")
    network = network.cpu()
    network.load_state_dict(_mixed(begun, network.state_dict(), recipe.start_share))

    generator = torch.Generator().manual_seed(derive_seed(seed, "base", "calibration"))
    share = max(1, _IMAGES // len(data))
    chosen = [balanced_indices(d.labels, share, generator) for d in data]
    members = [task.where("train")[indices.numpy()].tolist() for task, indices in zip(tasks, chosen, strict=True)]

    @cache
    def images(size_px: int) -> Tensor:
        pairs = zip(tasks, members, strict=True)
        return torch.cat([preprocess_of(family, space, task, size_px).chosen(task, some) for task, some in pairs])

    # The stored statistics are those of the largest subnet, which also embeds queries.
    calibrate(network, images(space.image_size_px))
    largest_first = sorted(found.sizes_px(space), reverse=True)
    rng = np.random.default_rng(derive_seed(seed, "base", "subnets"))
    wanted = [
        (
            space.largest() if number < len(largest_first) else space.sample(rng),
            largest_first[number % len(largest_first)],
        )
        for number in range(recipe.subnets)
    ]
    infos = [task.info for task in tasks]
    lineage = base_lineage(family, settings, infos)
    texts = {ref: text for info in infos for ref, text in info.licence_texts.items()}
    cards: list[ModelCard] = []
    calibrations: dict[str, Tensor] = {}
    for number, (choice, size_px) in enumerate(wanted):
        subnet = network.extract(choice)
        calibrate(subnet, images(size_px))
        # Of images that keep their own statistics, those of no task are asked for.
        preprocess = found.preprocess(space, *_mean_statistics(infos)).model_copy(update={"image_size_px": size_px})
        model_id = f"{found.short}.{HOME}.{number:03d}"
        made = Made(model_id, family, space.describe(choice), f"base/{family}.safetensors")
        cards.append(card_of(made, preprocess, lineage, home_task=HOME, source=_sources(lineage), texts=texts))
        calibrations |= {f"{model_id}/{name}": value for name, value in calibration_of(subnet).items()}
    return Zoo(network, [*_published_cards(family, settings), *cards], calibrations), losses


def save_base(
    folder: Path,
    zoos: Mapping[str, Zoo],
    families: Mapping[str, Mapping[str, Any]],
    tasks: Sequence[TaskInfo],
    precision: str,
) -> None:
    """Write one supernet a family, the networks as they were published, the cards of all that come with them, and `base.json`.

    Args:
        folder: data/base.
        zoos: by family, from `build_base`.
        families: settings of each one's search space.
        tasks: that they were trained on.
        precision: that they were trained in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = {}
    for name, zoo in zoos.items():
        path = folder / f"{name}.safetensors"
        save_tensors(_features(zoo.supernet), path)
        save_tensors(zoo.calibrations, calibration_file(path))
        family = get_family(name)
        space = family.space(families[name])
        for one in family.base_weights(space):
            network = space.supernet(num_classes=2)
            family.start(space, network)
            save_tensors(_features(network), folder / f"{one.name}.safetensors")
        lineage = [one.model_dump(mode="json") for one in base_lineage(name, families[name], tasks)]
        described[name] = {"settings": families[name], "lineage": lineage}
    write_cards([card for zoo in zoos.values() for card in zoo.cards], folder)
    write_json({"families": described, "precision": precision}, folder / "base.json")


def base_lineage(family: str, settings: Mapping[str, Any], tasks: Sequence[TaskInfo]) -> tuple[Ancestor, ...]:
    """Return what the weights of a family's base descend from: published weights, their images, and the tasks."""
    lineage = _published_lineage(family, settings)
    for task in tasks:
        lineage = descend(lineage, task)
    return lineage


def _published_cards(family: str, settings: Mapping[str, Any]) -> list[ModelCard]:
    found = get_family(family)
    space = found.space(settings)
    preprocess = found.preprocess(space, (0.5,) * 3, (0.25,) * 3)
    architecture, lineage = space.describe(space.largest()), _published_lineage(family, settings)
    return [
        card_of(
            Made(f"{one.name}.{size}", family, architecture, f"base/{one.name}.safetensors"),
            preprocess.model_copy(update={"image_size_px": size}),
            lineage,
            home_task=one.images or one.name,
            source=_sources(lineage),
        )
        for one in found.base_weights(space)
        for size in found.sizes_px(space)
    ]


def _published_lineage(family: str, settings: Mapping[str, Any]) -> tuple[Ancestor, ...]:
    found = get_family(family)
    lineage: list[Ancestor] = []
    for one in found.base_weights(found.space(settings)):
        lineage.append(Ancestor(kind="weights", name=one.name, source=one.source, licence=one.licence))
        if one.images:
            lineage.append(Ancestor(kind="task", name=one.images, source=one.source, licence=one.images_licence))
    return tuple(lineage)


def _sources(lineage: Sequence[Ancestor]) -> str:
    return ", ".join(dict.fromkeys(one.source for one in lineage))


def _mixed(begun: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    return {
        name: torch.lerp(value, begun[name], share) if value.is_floating_point() else value
        for name, value in trained.items()
    }


def _features(network: Supernet) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.startswith("classifier.")}


def _mean_statistics(infos: Sequence[TaskInfo]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    mean, std = (np.mean([getattr(info, name) for info in infos], axis=0).tolist() for name in ("mean", "std"))
    return tuple(mean), tuple(std)
