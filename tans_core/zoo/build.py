"""Builds one task's part of the zoo: a supernet for each family, fine-tuned from the base, and measured subnets.

Axes: N images, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from tans_core.io import atomic_path, read_json
from tans_core.networks.family import SearchSpace, Supernet
from tans_core.networks.preprocess import EVAL_BATCH, Preprocess, balanced_indices, calibrate
from tans_core.networks.registry import get_family
from tans_core.runtime import derive_seed, progress
from tans_core.tasks.task import Task
from tans_core.zoo.card import ModelCard, NetworkEntry, card_of, descend
from tans_core.zoo.select import extend_front
from tans_core.zoo.supernet import SupernetRecipe, TrainingData, train_supernet
from tans_core.zoo.weights import Base, calibration_file, calibration_of, save_tensors

CARDS_FILE = "models.parquet"


@dataclass(frozen=True)
class Sampling:
    """Which subnets become models.

    Attributes:
        subnets: their number: the smallest, the largest, and distinct random ones, at the input sizes in turn.
        select_from: number of candidate members, each at every input size. From these, `extend_front` selects the
            subnets for the front of accuracy against cost; 0 takes random ones instead.
        calibration_images: size of the shuffled, class-balanced sample that BatchNorm is re-calibrated on.
    """

    subnets: int
    select_from: int
    calibration_images: int


@dataclass(frozen=True)
class Zoo:
    """The models of one task and one family.

    Attributes:
        supernet: fine-tuned on the task.
        cards: one per model.
        calibrations: BatchNorm statistics of each model, named `<model id>/<buffer>`.
    """

    supernet: Supernet
    cards: list[ModelCard]
    calibrations: dict[str, Tensor]


def build_zoo(
    task: Task,
    base: Base,
    family: str,
    recipe: SupernetRecipe,
    sampling: Sampling,
    seed: int,
    resume_folder: Path | None = None,
) -> Zoo:
    """Fine-tune a family's base supernet on one task, then choose, calibrate and measure its subnets.

    Args:
        task: a meta-train task.
        base: the supernets to start from.
        family: one of the base's families.
        recipe: of the fine-tuning.
        sampling: which subnets become models.
        seed: of everything random.
        resume_folder: keeps checkpoints while it runs.
    """
    info, space, implementation = task.info, base.space(family), get_family(family)
    preprocess = preprocess_of(family, space, task)
    generator = torch.Generator().manual_seed(derive_seed(seed, "zoo", info.name))
    network = base.load(family)
    network.reset_classifier(info.num_classes, generator)
    train = TrainingData.of(task, "train", preprocess)
    training_seed = derive_seed(seed, "zoo", info.name)
    train_supernet(network, [network.classifier], [train], recipe, training_seed, resume_folder, info.name)
    network = network.cpu()
    sample = balanced_indices(train.labels, sampling.calibration_images, generator)
    sizes_px = implementation.sizes_px(space)
    images_of = {size: _SizedImages.of(task, preprocess_of(family, space, task, size), sample) for size in sizes_px}
    precision = recipe.precision
    measured: dict[int, tuple[dict[str, Tensor], dict[str, float]]] = {}

    def measure(index: int) -> float:
        member, size = candidates[index]
        subnet, images = network.extract(member), images_of[size]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            calibrate(subnet, images.sample)
            subnet.eval()
            accuracies = {split: accuracy_on_normalised(subnet, *part) for split, part in images.splits.items()}
        measured[index] = calibration_of(subnet), accuracies
        return accuracies["val"]

    sampling_seed = derive_seed(seed, "subnets", info.name)
    if sampling.select_from:
        candidates = list(itertools.product(sample_members(space, sampling.select_from, sampling_seed), sizes_px))
        described = [(space.describe(member), size) for member, size in candidates]
        codes = np.stack([implementation.topology(architecture, size) for architecture, size in described])
        log_macs = codes[:, -1].astype(np.float64)  # the last value of a code, without the classifier
        extend_front(codes.astype(np.float64), np.exp(log_macs).tolist(), measure, sampling.subnets)
    else:
        members = sample_members(space, sampling.subnets, sampling_seed)
        candidates = list(zip(members, itertools.cycle(sizes_px), strict=False))
        for index in progress(range(len(candidates)), f"{info.name}: measuring"):
            measure(index)
    cards: list[ModelCard] = []
    calibrations: dict[str, Tensor] = {}
    for number, (index, (calibration, accuracies)) in enumerate(measured.items()):
        member, size = candidates[index]
        model_id = f"{implementation.short}.{info.name}.{number:03d}"
        entry = NetworkEntry(model_id, family, space.describe(member), f"zoo/{info.name}/{family}.safetensors")
        card = card_of(
            entry,
            images_of[size].preprocess,
            descend(base.lineages[family], info),
            home_task=info.name,
            source=info.source,
            texts={**base.licence_texts, **info.licence_texts},
            class_names=info.class_names,
            accuracies=accuracies,
        )
        cards.append(card)
        calibrations |= {f"{model_id}/{name}": value for name, value in calibration.items()}
    return Zoo(network, cards, calibrations)


def write_zoo(zoos: Mapping[str, Zoo], folder: Path) -> None:
    """Write each family's supernet and calibrations, and all cards, one per row."""
    folder.mkdir(parents=True, exist_ok=True)
    for family, zoo in zoos.items():
        path = folder / f"{family}.safetensors"
        save_tensors(dict(zoo.supernet.state_dict()), path)
        save_tensors(zoo.calibrations, calibration_file(path))
    write_cards([card for zoo in zoos.values() for card in zoo.cards], folder)


def write_cards(cards: Sequence[ModelCard], folder: Path) -> None:
    """Write cards, one per row, with their numbers in separate columns."""
    plain = ("id", "params_m", "macs_m", "val_accuracy", "test_accuracy")
    columns = {name: [getattr(card, name) for card in cards] for name in plain}
    with atomic_path(folder / CARDS_FILE) as temporary:
        pq.write_table(pa.table({**columns, "card": [card.to_json() for card in cards]}), temporary)


def read_cards(folder: Path) -> list[ModelCard]:
    """Read the cards of one task's zoo or of the base, ordered by family, then by id."""
    return [ModelCard.from_json(text) for text in pq.read_table(folder / CARDS_FILE)["card"].to_pylist()]


def read_all_cards(data: Path, tasks: Sequence[str]) -> list[ModelCard]:
    """Read the cards of the base's networks, of the zoos of `tasks` alone, and of all arrivals."""
    folders = [data / "base"] if (data / "base" / CARDS_FILE).is_file() else []
    folders += [data / "zoo" / task for task in tasks]
    cards = [card for folder in folders for card in read_cards(folder)]
    arrivals = sorted((data / "arrivals").glob("*/card.json"))
    return cards + [ModelCard.from_dict(read_json(path)) for path in arrivals]


def sample_members(space: SearchSpace, count: int, seed: int) -> list[Any]:
    """Return the smallest, the largest, and distinct random members; fewer than `count` where the space is smaller."""
    rng = np.random.default_rng(seed)
    chosen = [space.smallest()]
    for candidate in itertools.chain([space.largest()], (space.sample(rng) for _ in range(100 * count))):
        if len(chosen) >= count:
            break
        if candidate not in chosen:
            chosen.append(candidate)
    return chosen


def preprocess_of(family: str, space: SearchSpace, task: Task, size_px: int | None = None) -> Preprocess:
    """Return the preprocessing of a task's images for a space's networks, at `size_px` or the training size."""
    preprocess = get_family(family).preprocess(space, task.info.mean, task.info.std).on(task.info)
    return preprocess if size_px is None else preprocess.model_copy(update={"image_size_px": size_px})


@dataclass(frozen=True)
class _SizedImages:
    """A task's images at one size: a sample for calibration, and the labelled splits that accuracy is measured on."""

    preprocess: Preprocess
    sample: Tensor
    splits: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, task: Task, preprocess: Preprocess, sample: Tensor) -> _SizedImages:
        measured = {split: TrainingData.of(task, split, preprocess) for split in ("val", "test")}
        chosen = task.where("train")[sample.numpy()].tolist()
        splits = {split: (data.normalised(), data.labels) for split, data in measured.items()}
        return cls(preprocess, preprocess.chosen(task, chosen), splits)


@torch.no_grad()
def accuracy_on_normalised(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of normalised images (N, 3, H, W) whose labels (N,) a network in eval mode predicts."""
    batches = zip(images.split(EVAL_BATCH), labels.split(EVAL_BATCH), strict=True)
    correct = sum(int((network(x).argmax(dim=1) == y).sum()) for x, y in batches)
    return correct / len(labels)
