"""What a run keeps of a fine-tuning besides weights and card: how to predict, and how it did on each image.

Axes: n images of a split, K classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from tans_core.finetuning.finetune import FinetuneResult
from tans_core.finetuning.measure import logits_of
from tans_core.finetuning.run import tuned_card
from tans_core.io import write_csv, write_json
from tans_core.networks.family import Network
from tans_core.runtime import device
from tans_core.tasks.pixels import Pixels
from tans_core.tasks.task import SPLITS, Task, write_task
from tans_core.use.calibration import fit_temperature
from tans_core.use.judge import Judgement, judge
from tans_core.use.model import IMAGES_FILE, SAMPLES, USE_FILE, UseCard
from tans_core.zoo.card import ModelCard

TEST_FILE = "test.json"
SAMPLE_IMAGES = 100
"""Images of the test split that a run keeps, to compare exports on. They are in random order."""


class Outcome(NamedTuple):
    """How a run did.

    Attributes:
        card: the content of `predict.json`.
        judgement: on the test split.
        mistakes: the worst ones: image (3, s, s) uint8, true class, predicted class, probability, path.
    """

    card: UseCard
    judgement: Judgement
    mistakes: list[tuple[Pixels, str, str, float, str]]


def write_outcome(folder: Path, network: Network, result: FinetuneResult, task: Task, home: ModelCard) -> Outcome:
    """Write `predict.json`, `test.json`, `images.csv` and `samples/`.

    Args:
        folder: `runs/<id>`.
        network: with the kept weights.
        result: of its fine-tuning.
        task: that it was tuned on.
        home: the card of the network that it started from.
    """
    preprocess, card = result.preprocess, tuned_card(folder.name, result, task, home)
    images = preprocess.pixels(task, "val").to(device())
    of_val = logits_of(network, images, mean=preprocess.mean, std=preprocess.std)
    logits = {"val": of_val.cpu().double().numpy(), "test": result.test_logits.double().numpy()}
    temperature = fit_temperature(logits["val"], task.labels[task.where("val")])
    members = task.where("test")
    judgement = judge(logits["test"], task.labels[members], task.info.class_names, temperature)
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
    write_task(_part(task, members[:SAMPLE_IMAGES]), folder / SAMPLES)
    write_json(judgement.to_dict(), folder / TEST_FILE)
    write_json(use.model_dump(mode="json"), folder / USE_FILE)
    mistakes = []
    for row in members[list(judgement.mistakes)].tolist():
        said, probability = rows[row]["predicted"], float(rows[row]["probability"])
        mistakes.append((task.images[row], names[task.labels[row]], said, probability, task.paths[row]))
    return Outcome(use, judgement, mistakes)


def _part(task: Task, rows: npt.NDArray[np.int64]) -> Task:
    """Return a task of some of its images."""
    info = replace(task.info, counts={split: int((task.splits[rows] == split).sum()) for split in SPLITS})
    chosen = rows.tolist()
    names = ([texts[row] for row in chosen] for texts in (task.sha256, task.paths))
    sha256, paths = (tuple(texts) for texts in names)
    return Task(info, task.images.take(chosen), task.labels[rows], task.splits[rows], sha256, paths, task.sizes[rows])
