"""Checks the claims of a model's card by running its network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import torch

from tans_core.errors import TansError, WeightsError
from tans_core.networks.preprocess import batch_of, normalise, statistics_of
from tans_core.networks.registry import get_family
from tans_core.tasks.task import Task, read_info, read_task
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model

logger = logging.getLogger(__name__)

_NOISE_IMAGES = 16
_HOME_IMAGES = 200
"""Maximum per split: enough to detect a claim that is .05 or more too high."""
_BATCH_VALUES_M = 100.0
"""Maximum values of the largest layer for a batch, in millions."""


def accuracies_at_home(card: ModelCard, weights: Path, tasks: Path) -> Mapping[str, float] | None:
    """Measure a model, without training, on up to 200 images of its home task's splits `val` and `test` each.

    Args:
        card: of the model.
        weights: its file.
        tasks: the folder `data/tasks`.

    Returns:
        Accuracies in 0..1 of the splits that have images; None where no task with the card's home name and classes is
        built, or it cannot be read.

    Raises:
        WeightsError: the weights are damaged, or not the card's.
    """
    task = _home(card, tasks)
    if task is None:
        return None
    network, preprocess, accuracies = load_model(card, weights), card.preprocess.on(task.info), {}
    cost = get_family(card.family).cost(card.architecture, preprocess.image_size_px, card.outputs)
    batch = max(1, min(batch_of(preprocess.image_size_px), int(_BATCH_VALUES_M / max(cost.largest_layer_m, 1e-3))))
    digests = task.images.digests
    for split in ("val", "test"):
        # Chosen by a hash of the pixels, so independent of their order.
        members = sorted(task.where(split).tolist(), key=digests.__getitem__)[:_HOME_IMAGES]
        correct = 0
        for start in range(0, len(members), batch):
            chunk = members[start : start + batch]
            with torch.inference_mode():
                predicted = network(preprocess.chosen(task, chunk)).argmax(dim=1)
            correct += int((predicted == torch.from_numpy(task.labels[chunk])).sum())
        if members:
            accuracies[split] = correct / len(members)
    return accuracies


def _home(card: ModelCard, tasks: Path) -> Task | None:
    folder = tasks / card.home_task
    try:
        if not (folder / "task.json").is_file():
            return None
        return read_task(folder) if read_info(folder).class_names == card.class_names else None
    except (TansError, OSError, ValueError, KeyError, pa.ArrowException) as error:
        # A task that is being built, or is of an earlier version, must not block a newcomer.
        logger.warning("%s: the claims of %s are not measured: %s", folder, card.id, error)
        return None


@torch.no_grad()
def spread_of_answers(card: ModelCard, weights: Path) -> float:
    """Return how much a model's outputs differ between noise images: the largest deviation of a logit.

    Without a classifier it is that of a feature. BatchNorm takes its statistics from the images, as it will on a new
    task. Zero means that the outputs do not depend on the input.

    Raises:
        WeightsError: an output is not finite, or the weights cannot be loaded.
    """
    size = card.preprocess.image_size_px
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_NOISE_IMAGES, 3, size, size), generator=generator, dtype=torch.uint8)
    network, pixels = load_model(card, weights), normalise(images, card.preprocess.mean, card.preprocess.std)
    run = network.features if card.general else network
    as_stored = run(pixels)
    with statistics_of(network, pixels):
        outputs = run(pixels)
    if not bool((as_stored.isfinite() & outputs.isfinite()).all()):
        raise WeightsError(
            f"{card.id}: on random images its outputs are NaN or infinite: {weights.name} is damaged. Save the weights "
            "again, then hand them in again."
        )
    return float(outputs.std(dim=0).max())
