"""Turns a library's network and a weights file into a newcomer in the inbox: a card, and safetensors."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tans_core.errors import DataError, WeightsError
from tans_core.io import atomic_folder, write_json
from tans_core.licences import normalise
from tans_core.networks.family import load_state
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import family_of_package
from tans_core.networks.tensor_file import read_tensors
from tans_core.tasks.task import TaskInfo, read_info
from tans_core.zoo.admission import CARD_FILE, MAX_MACS_M, WEIGHTS_FILE
from tans_core.zoo.card import UNKNOWN_LINEAGE, Ancestor, NetworkEntry, card_of, descend
from tans_core.zoo.claims import accuracies_at_home
from tans_core.zoo.weights import save_tensors

_PLAIN = Preprocess(image_size_px=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Used where the package does not define any preprocessing."""


@dataclass(frozen=True)
class HandIn:
    """A user's description of a library's network and its weights.

    Attributes:
        package: `timm` or `torchvision`.
        name: its name in the package.
        weights: a file of tensors, safetensors or written by `torch.save`, under the package's names.
        home_task: the task that its classifier is for; None adds only the features, for any task.
        size_px: side of the input; None uses the package's.
        licence: of the weights, an SPDX expression or prose; None if unknown.
        images: the training images, where these are not a task of the project.
        images_licence: of these images, likewise.
    """

    package: str
    name: str
    weights: Path
    home_task: str | None = None
    size_px: int | None = None
    licence: str | None = None
    images: str = "ImageNet-1k"
    images_licence: str = "LicenseRef-imagenet-terms"


def hand_in(request: HandIn, inbox: Path, tasks: Path) -> Path:
    """Write a newcomer into the inbox, whole or not at all, and return its folder.

    Args:
        request: the network.
        inbox: of the project.
        tasks: the folder `data/tasks`.

    Raises:
        WeightsError: the package has no such network, or the file does not contain its weights.
        DataError: the home task is not built.
    """
    family = family_of_package(request.package)
    architecture: dict[str, Any] = {"package": request.package, "name": request.name}
    published = family.published_preprocess(architecture)
    if published is None and request.size_px is None:
        raise WeightsError(f"{request.name}: {request.package} defines no input size for it. Pass --size-px.")
    tensors = family.translate(architecture, read_tensors(request.weights))
    info = _home(request.home_task, tasks)
    classifier = {name: tensors.pop(name) for name in list(tensors) if name.startswith("classifier.")}
    outputs = 1 if info is None else info.num_classes
    # On the meta device: shapes and names alone.
    outline = family.outline(architecture, outputs)
    if info is not None:
        tensors |= classifier
    else:
        tensors |= {name: value for name, value in outline.state_dict().items() if name.startswith("classifier.")}
    load_state(outline, {name: value.to("meta") for name, value in tensors.items()}, str(request.weights))
    size = request.size_px or (published.image_size_px if published else 0)
    preprocess = (published or _PLAIN).model_copy(update={"image_size_px": size})
    lineage, texts = _lineage(request, info)
    model_id = f"{request.package}-{re.sub(r'[^A-Za-z0-9_.-]', '-', request.name)}-{size}"
    try:
        card = card_of(
            NetworkEntry(model_id, family.name, architecture, WEIGHTS_FILE),
            preprocess,
            lineage,
            home_task=info.name if info else request.images,
            source=request.package,
            texts=texts,
            class_names=info.class_names if info else (),
        )
    except Exception as error:  # a library's network may support one input size only, and fail on others in any way
        raise WeightsError(
            f"{request.name}: cannot read images of {size} pixels ({type(error).__name__}: {error})."
        ) from error
    if card.macs_m > MAX_MACS_M:
        raise WeightsError(
            f"{request.name}: {card.macs_m:,.0f} M MACs an image of {size} pixels, want at most {MAX_MACS_M:,.0f} M."
        )
    # A hidden folder, which a concurrent refresh of the inbox ignores. Remains of an earlier call are removed.
    folder = inbox / f".{card.id}"
    shutil.rmtree(folder, ignore_errors=True)
    if info is None:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("classifier.")}
    inbox.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        save_tensors(tensors, temporary / WEIGHTS_FILE)
        if info is not None:
            measured = accuracies_at_home(card, temporary / WEIGHTS_FILE, tasks) or {}
            card = card.model_copy(update={f"{split}_accuracy": measured.get(split, 0.0) for split in ("val", "test")})
        write_json(card.to_dict(), temporary / CARD_FILE)
    return folder


def _home(name: str | None, tasks: Path) -> TaskInfo | None:
    if name is None:
        return None
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name) or not (tasks / name / "task.json").is_file():
        raise DataError(f"{name!r}: no task of this name is built. `tans tasks list` shows them.")
    return read_info(tasks / name)


def _lineage(request: HandIn, info: TaskInfo | None) -> tuple[tuple[Ancestor, ...], dict[str, str]]:
    stated = normalise(request.licence or UNKNOWN_LINEAGE)
    name = f"{request.package} {request.name}"
    weights = Ancestor(kind="weights", name=name, source=request.weights.name, licence=stated.expression)
    if info is not None:
        return descend((weights,), info), {**stated.texts, **info.licence_texts}
    of_images = normalise(request.images_licence)
    images = Ancestor(kind="task", name=request.images, source=request.package, licence=of_images.expression)
    return (weights, images), {**stated.texts, **of_images.texts}
