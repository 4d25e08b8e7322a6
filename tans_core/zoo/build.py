"""One task's part of the zoo: its supernet, fine-tuned from the base, and measured subnets.

Axes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from tans_core.io import atomic_path, read_json
from tans_core.networks.elastic import Architecture, ElasticNetwork, ElasticSpace
from tans_core.networks.preprocess import balanced_indices
from tans_core.runtime import derive_seed, progress
from tans_core.tasks.task import Task
from tans_core.zoo.card import ModelCard
from tans_core.zoo.supernet import SupernetRecipe, TrainingData, train_supernet
from tans_core.zoo.weights import CALIBRATION_FILE, calibration_of, fresh_classifier, load_base, save_tensors

SUPERNET_FILE = "supernet.safetensors"
CARDS_FILE = "models.parquet"


def build_base(
    space: ElasticSpace, tasks: Sequence[Task], recipe: SupernetRecipe, seed: int, resume_folder: Path | None
) -> tuple[ElasticNetwork, list[float]]:
    """Train the supernet that every task's zoo starts from, on all tasks together with a head each.

    Returns:
        The supernet (its classifier is of no use), re-calibrated, and the training loss of each step.
    """
    torch.manual_seed(derive_seed(seed, "base"))
    network = space.build(space.largest(), num_classes=2)
    heads = [nn.Linear(network.feature_dim, task.info.num_classes) for task in tasks]
    data = [TrainingData.of(task, "train") for task in tasks]
    losses = train_supernet(network, heads, data, recipe, derive_seed(seed, "base"), resume_folder, "base supernet")
    # The stored statistics are those of the largest subnet, which also embeds queries.
    generator = torch.Generator().manual_seed(derive_seed(seed, "base", "calibration"))
    share = max(1, 1024 // len(data))
    images = torch.cat([d.normalised()[balanced_indices(d.labels, share, generator)] for d in data])
    calibrate(network.cpu(), images)
    return network, losses


def build_zoo(
    task: Task,
    base_folder: Path,
    recipe: SupernetRecipe,
    subnets: int,
    calibration_images: int,
    seed: int,
    resume_folder: Path | None = None,
) -> tuple[ElasticNetwork, list[ModelCard], dict[str, Tensor]]:
    """Fine-tune the base supernet on one task, then sample, calibrate and measure its subnets.

    Args:
        task: a meta-train task.
        base_folder: where the base supernet lies.
        recipe: of the fine-tuning.
        subnets: how many models to make: the smallest, the largest, and distinct random ones.
        calibration_images: size of the shuffled, class-balanced sample that BatchNorm is re-calibrated on.
        seed: of everything random.
        resume_folder: where checkpoints are kept while it runs.

    Returns:
        The supernet, one card a model, and the calibration of each, named `<model id>/<buffer>`.
    """
    info = task.info
    generator = torch.Generator().manual_seed(derive_seed(seed, "zoo", info.name))
    network = fresh_classifier(load_base(base_folder, 2), info.num_classes, generator)
    train = TrainingData.of(task, "train")
    train_supernet(
        network, [network.classifier], [train], recipe, derive_seed(seed, "zoo", info.name), resume_folder, info.name
    )
    network = network.cpu()
    sample = train.normalised()[balanced_indices(train.labels, calibration_images, generator)]
    val, test = TrainingData.of(task, "val"), TrainingData.of(task, "test")
    val_images, test_images = val.normalised(), test.normalised()
    cards: list[ModelCard] = []
    calibrations: dict[str, Tensor] = {}
    architectures = sample_architectures(network.space, subnets, derive_seed(seed, "subnets", info.name))
    for number, architecture in enumerate(progress(architectures, f"{info.name}: measuring")):
        subnet = network.extract(architecture)
        calibrate(subnet, sample)
        card = describe(subnet, task, f"elastic.{info.name}.{number:03d}", f"zoo/{info.name}/{SUPERNET_FILE}")
        cards.append(
            replace(
                card,
                val_accuracy=accuracy(subnet, val_images, val.labels),
                test_accuracy=accuracy(subnet, test_images, test.labels),
            )
        )
        calibrations |= {f"{card.id}/{name}": value for name, value in calibration_of(subnet).items()}
    return network, cards, calibrations


def write_zoo(
    network: ElasticNetwork, cards: Sequence[ModelCard], calibrations: dict[str, Tensor], folder: Path
) -> None:
    """Write the supernet, the calibrations and the cards, one a row."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(dict(network.state_dict()), folder / SUPERNET_FILE)
    save_tensors(calibrations, folder / CALIBRATION_FILE)
    columns = {
        "id": [card.id for card in cards],
        "params_m": [card.params_m for card in cards],
        "macs_m": [card.macs_m for card in cards],
        "val_accuracy": [card.val_accuracy for card in cards],
        "test_accuracy": [card.test_accuracy for card in cards],
        "card": [card.to_json() for card in cards],
    }
    with atomic_path(folder / CARDS_FILE) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_cards(folder: Path) -> list[ModelCard]:
    """Read the cards of one task's zoo, in the order of their ids."""
    return [ModelCard.from_json(text) for text in pq.read_table(folder / CARDS_FILE)["card"].to_pylist()]


def read_all_cards(data: Path, tasks: Sequence[str]) -> list[ModelCard]:
    """Read the cards of the tasks' zoos and of all arrivals; folders of tasks that params no longer list are left alone."""
    cards = [card for task in tasks for card in read_cards(data / "zoo" / task)]
    arrivals = sorted((data / "arrivals").glob("*/card.json"))
    return cards + [ModelCard.from_dict(read_json(path)) for path in arrivals]


def sample_architectures(space: ElasticSpace, count: int, seed: int) -> list[Architecture]:
    """Return the smallest, the largest, and distinct random members; fewer than `count` where the space is smaller."""
    rng = np.random.default_rng(seed)
    chosen = [space.smallest(), space.largest()]
    for _ in range(100 * count):
        if len(chosen) >= count:
            break
        candidate = space.sample(rng)
        if candidate not in chosen:
            chosen.append(candidate)
    return chosen[:count]


def describe(network: ElasticNetwork, task: Task, model_id: str, weights: str) -> ModelCard:
    """Return the card of a network trained on a task, not measured yet (its accuracies are 0)."""
    info = task.info
    cost = network.space.cost(network.architecture, info.image_size_px, info.num_classes)
    return ModelCard(
        id=model_id,
        space=network.space.name,
        architecture=network.architecture.to_dict(),
        home_task=info.name,
        source=info.source,
        licence=info.licence,
        class_names=info.class_names,
        image_size_px=info.image_size_px,
        mean=info.mean,
        std=info.std,
        params_m=cost.params_m,
        macs_m=cost.macs_m,
        val_accuracy=0.0,
        test_accuracy=0.0,
        weights=weights,
    )


@torch.no_grad()
def calibrate(network: ElasticNetwork, images: Tensor) -> None:
    """Set the BatchNorm statistics of a network to those of `images` (N, 3, H, W), which must be shuffled; then eval mode.

    One batch of all the images, since the mean of small batches' variances is not the variance.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.momentum = 1.0
    network.features(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 256) -> float:
    """Return the share of images (N, 3, H, W), labels (N,), that a network in eval mode names rightly."""
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    right = sum(int((network(x).argmax(dim=1) == y).sum()) for x, y in batches)
    return right / len(labels)
