"""What a model's card claims, held against what its network does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from tans_core.errors import WeightsError
from tans_core.networks.preprocess import batch_of, normalise
from tans_core.tasks.task import read_info, read_task
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model

_NOISE_IMAGES = 16


def accuracies_at_home(card: ModelCard, weights: Path, tasks: Path) -> Mapping[str, float] | None:
    """Measure a model on the splits `val` and `test` of its home task, as its weights are.

    Args:
        card: of the model.
        weights: its file.
        tasks: the folder `data/tasks`.

    Returns:
        Accuracies in 0..1 of the splits that have images; None where the home task, by name and classes, is not here.

    Raises:
        WeightsError: the weights are damaged, or not the card's.
    """
    folder = tasks / card.home_task
    if not (folder / "task.json").is_file() or read_info(folder).class_names != card.class_names:
        return None
    task, network = read_task(folder), load_model(card, weights)
    preprocess, found = card.preprocess.on(task.info), {}
    for split in ("val", "test"):
        members = task.where(split)
        right = 0
        for part in torch.from_numpy(members).split(batch_of(preprocess.image_size_px)):
            with torch.inference_mode():
                named = network(preprocess.chosen(task, part.tolist())).argmax(dim=1)
            right += int((named == torch.from_numpy(task.labels[part.numpy()])).sum())
        if len(members):
            found[split] = right / len(members)
    return found


@torch.no_grad()
def spread_of_answers(card: ModelCard, weights: Path) -> float:
    """Return by how much a model's answers to noise differ: the largest deviation of a class's logit over some images.

    Zero where it answers the same whatever it sees.

    Raises:
        WeightsError: an answer is not finite, or the weights cannot be loaded.
    """
    size = card.preprocess.image_size_px
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_NOISE_IMAGES, 3, size, size), generator=generator, dtype=torch.uint8)
    logits = load_model(card, weights)(normalise(images, card.preprocess.mean, card.preprocess.std))
    if not bool(logits.isfinite().all()):
        raise WeightsError("the network answers images with NaN or infinity: its weights are damaged.")
    return float(logits.std(dim=0).max())
