"""What a run keeps of a fine-tuning besides weights and card: how to predict, and how it did on each image.

Axes: n images of a split, K classes.
"""

from __future__ import annotations

from pathlib import Path

from scipy.special import softmax

from tans_core.finetuning.finetune import FinetuneResult, logits_of
from tans_core.finetuning.run import tuned_card
from tans_core.io import write_csv, write_json
from tans_core.networks.family import Network
from tans_core.runtime import device
from tans_core.tasks.task import Task
from tans_core.use.calibration import fit_temperature
from tans_core.use.model import IMAGES_FILE, USE_FILE, UseCard
from tans_core.zoo.card import ModelCard


def write_outcome(folder: Path, network: Network, result: FinetuneResult, task: Task, home: ModelCard) -> UseCard:
    """Write `predict.json` and `images.csv`.

    Args:
        folder: `runs/<id>`.
        network: with the kept weights.
        result: of its fine-tuning.
        task: that it was tuned on.
        home: the card of the network that it started from.
    """
    preprocess, card = result.preprocess, tuned_card(folder.name, result, task, home)
    logits = {}
    for split in ("val", "test"):
        images = preprocess.pixels(task, split).to(device())
        outputs = logits_of(network, images, mean=preprocess.mean, std=preprocess.std)
        logits[split] = outputs.cpu().double().numpy()
    temperature = fit_temperature(logits["val"], task.labels[task.where("val")])
    use = UseCard(
        family=card.family,
        architecture=card.architecture,
        class_names=task.info.class_names,
        preprocess=preprocess,
        stored_size_px=task.info.stored_size_px,
        temperature=temperature,
        model=home.id,
        task=task.info.name,
        val_accuracy=result.best_val_accuracy,
        test_accuracy=result.test_accuracy,
        licence=card.licence,
    )
    names = task.info.class_names
    rows = [
        {"path": path, "label": names[label], "split": str(split), "predicted": "", "probability": "", "pixels": pixels}
        for path, label, split, pixels in zip(
            task.paths, task.labels.tolist(), task.splits, (one.hex() for one in task.images.digests), strict=True
        )
    ]
    for split, of_split in logits.items():
        likely = softmax(of_split / temperature, axis=1)
        for row, answer in zip(task.where(split).tolist(), likely, strict=True):
            rows[row] |= {"predicted": names[answer.argmax()], "probability": f"{answer.max():.4f}"}
    write_csv(rows, folder / IMAGES_FILE)
    write_json(use.model_dump(mode="json"), folder / USE_FILE)
    return use
