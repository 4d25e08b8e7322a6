"""Writes the folder `runs/<id>` of one fine-tuning: settings, results, and weights that can be used elsewhere."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tans_core.finetuning.finetune import FinetuneResult
from tans_core.finetuning.plot import save_curve
from tans_core.io import atomic_folder, write_csv, write_json
from tans_core.tasks.task import Task
from tans_core.zoo.admission import card_problems
from tans_core.zoo.card import Licences, ModelCard, descend
from tans_core.zoo.weights import save_tensors

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "weights.safetensors"
_PACKAGES = ("tans", "torch", "pytorch-lightning", "numpy", "safetensors")


def write_run(
    folder: Path,
    *,
    result: FinetuneResult,
    task: Task,
    card: ModelCard,
    settings: Mapping[str, Any],
    release: str | None = None,
    known: Mapping[str, int] | None = None,
) -> ModelCard:
    """Write all files of one fine-tuning; the folder appears whole or not at all.

    Files: `weights.safetensors` (its metadata holds class names and preprocessing), `card.json` (a model card: with the
    weights, it is all that the zoo's inbox needs), `curve.csv`, `curve.png`, `params.json`, `provenance.json`. Existing
    files of the folder, such as a scan report, are kept.

    Args:
        folder: `runs/<id>`; its name becomes the new model's id.
        result: of `finetune`.
        task: the task of the fine-tuning.
        card: of the zoo's model that it started from.
        settings: the fine-tuning's settings, seed included.
        release: id of the release that the model came from.
        known: by task of the zoo, how many of the images the zoo was trained on.

    Returns:
        The new model's card.
    """
    new_card = tuned_card(folder.name, result, task, card)
    for problem in card_problems(new_card):
        logger.warning("%s: the zoo will refuse this model: card.json: %s", folder, problem)
    info = task.info
    provenance = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "release": release,
        "model": card.id,
        "model_licence": card.licence,
        "model_lineage": [ancestor.model_dump(mode="json") for ancestor in card.lineage],
        "task": info.name,
        "task_licence": info.licence,
        "known": dict(known or {}),
        "seed": settings.get("seed"),
        "best_step": result.best_step,
        "seconds": result.seconds,
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }
    described = {
        "class_names": json.dumps(info.class_names, ensure_ascii=False),
        "preprocess": result.preprocess.model_dump_json(),
        "family": new_card.family,
        "architecture": json.dumps(new_card.architecture, sort_keys=True),
        "home_model": card.id,
        "licence": new_card.licence,
    }
    with atomic_folder(folder) as temporary:
        if folder.is_dir():
            shutil.copytree(folder, temporary, dirs_exist_ok=True)
        save_tensors(result.state_dict, temporary / WEIGHTS_FILE, described)
        write_json(new_card.to_dict(), temporary / "card.json")
        write_json(dict(settings), temporary / "params.json")
        write_json(provenance, temporary / "provenance.json")
        write_csv(result.curve, temporary / "curve.csv")
        save_curve(result.curve, result.best_step, f"{card.id} on {info.name}", temporary / "curve.png")
    return new_card


def tuned_card(model_id: str, result: FinetuneResult, task: Task, home: ModelCard) -> ModelCard:
    """Return the card of a fine-tuned model: the architecture of its home model, the classes and results of its task.

    Its lineage is that of its home model plus the task's images; all their licences apply.
    """
    info = task.info
    lineage = descend(home.lineage, info)
    texts = {**home.licences.texts, **info.licence_texts}
    changes = {
        "id": model_id,
        "home_task": info.name,
        "source": info.source,
        "licences": Licences.of_lineage(lineage, texts, home.licences),
        "lineage": lineage,
        "class_names": info.class_names,
        "preprocess": result.preprocess,
        "params_m": result.params_m,
        "macs_m": result.macs_m,
        "val_accuracy": result.best_val_accuracy,
        "test_accuracy": result.test_accuracy,
        "weights": WEIGHTS_FILE,
    }
    return home.model_copy(update=changes)
