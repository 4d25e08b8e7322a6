"""A library's network, with weights from a file, made into a newcomer: a card, and safetensors of our names, in the inbox."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tans_core.errors import DataError, WeightsError
from tans_core.io import atomic_folder, write_json
from tans_core.networks.family import load_state
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import LIBRARY, get_family
from tans_core.networks.tensor_file import read_tensors
from tans_core.tasks.task import TaskInfo, read_info
from tans_core.zoo.admission import CARD_FILE, MAX_MACS_M, WEIGHTS_FILE
from tans_core.zoo.card import UNKNOWN_LINEAGE, Ancestor, Made, card_of, descend
from tans_core.zoo.claims import accuracies_at_home
from tans_core.zoo.weights import save_tensors

_PLAIN = Preprocess(image_size_px=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Where the package says nothing."""


@dataclass(frozen=True)
class HandIn:
    """What a person says of a library's network.

    Attributes:
        package: `timm` or `torchvision`.
        name: as the package calls it.
        weights: a file of tensors, safetensors or written by `torch.save`, under the package's names.
        home_task: the task whose classifier the file holds; None where it holds features for any task.
        size_px: side of the input; None takes what the package says.
        licence: of the weights, an SPDX expression; None where it is not known.
        images: what they were trained on, where that is no task of the project.
        images_licence: of these.
    """

    package: str
    name: str
    weights: Path
    home_task: str | None = None
    size_px: int | None = None
    licence: str | None = None
    images: str = "ImageNet-1k"
    images_licence: str = "LicenseRef-imagenet-terms"


def hand_in(said: HandIn, inbox: Path, tasks: Path) -> Path:
    """Write a newcomer into the inbox, whole or not at all, and return its folder.

    Args:
        said: the network.
        inbox: of the project.
        tasks: the folder `data/tasks`.

    Raises:
        WeightsError: the package has no such network, or the file holds other weights.
        DataError: the home task is not here.
    """
    family = get_family(LIBRARY)
    architecture: dict[str, Any] = {"package": said.package, "name": said.name}
    published = family.published_preprocess(architecture)
    if published is None and said.size_px is None:
        raise WeightsError(f"{said.name}: {said.package} does not say its input size. Pass --size-px.")
    tensors = family.translate(architecture, read_tensors(said.weights))
    info = _home(said.home_task, tasks)
    classifier = {name: tensors.pop(name) for name in list(tensors) if name.startswith("classifier.")}
    outputs = 1 if info is None else info.num_classes
    # On the meta device: shapes and names alone.
    outline = family.outline(architecture, outputs)
    if info is not None:
        tensors |= classifier
    else:
        tensors |= {name: value for name, value in outline.state_dict().items() if name.startswith("classifier.")}
    load_state(outline, {name: value.to("meta") for name, value in tensors.items()}, str(said.weights))
    size = said.size_px or (published.image_size_px if published else 0)
    preprocess = (published or _PLAIN).model_copy(update={"image_size_px": size})
    lineage, texts = _lineage(said, info)
    model_id = f"{said.package}-{re.sub(r'[^A-Za-z0-9_.-]', '-', said.name)}-{size}"
    try:
        card = card_of(
            Made(model_id, LIBRARY, architecture, WEIGHTS_FILE),
            preprocess,
            lineage,
            home_task=info.name if info else said.images,
            source=said.package,
            texts=texts,
            class_names=info.class_names if info else (),
        )
    except Exception as error:  # a library's network may be built for one size alone, and fail on others in any way
        raise WeightsError(
            f"{said.name}: cannot read images of {size} pixels ({type(error).__name__}: {error})."
        ) from error
    if card.macs_m > MAX_MACS_M:
        raise WeightsError(
            f"{said.name}: {card.macs_m:,.0f} M MACs an image of {size} pixels, want at most {MAX_MACS_M:,.0f} M."
        )
    # Hidden: whoever empties the inbox meanwhile leaves it to us. What an earlier call left goes.
    folder = inbox / f".{card.id}"
    shutil.rmtree(folder, ignore_errors=True)
    if info is None:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("classifier.")}
    inbox.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        save_tensors(tensors, temporary / WEIGHTS_FILE)
        if info is not None:
            found = accuracies_at_home(card, temporary / WEIGHTS_FILE, tasks) or {}
            card = card.model_copy(update={f"{split}_accuracy": found.get(split, 0.0) for split in ("val", "test")})
        write_json(card.to_dict(), temporary / CARD_FILE)
    return folder


def _home(name: str | None, tasks: Path) -> TaskInfo | None:
    if name is None:
        return None
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name) or not (tasks / name / "task.json").is_file():
        raise DataError(f"{name!r}: no task of this name is built. `tans tasks list` shows them.")
    return read_info(tasks / name)


def _lineage(said: HandIn, info: TaskInfo | None) -> tuple[tuple[Ancestor, ...], dict[str, str]]:
    licence = said.licence or UNKNOWN_LINEAGE
    own = Ancestor(kind="weights", name=f"{said.package} {said.name}", source=said.weights.name, licence=licence)
    if info is not None:
        return descend((own,), info), dict(info.licence_texts)
    images = Ancestor(kind="task", name=said.images, source=said.package, licence=said.images_licence)
    return (own, images), {}
