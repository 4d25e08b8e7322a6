"""Query features: the features that a backbone computes from a task's images.

Axes: N images, n chosen images, K classes, F feature width.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tans_core.embeddings.store import FeatureRows
from tans_core.errors import ParamsError, TooFewImagesError, WeightsError, did_you_mean
from tans_core.io import atomic_path, sha256_bytes, sha256_file
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import get_family, network_digest
from tans_core.runtime import device, progress
from tans_core.tasks.task import Task, read_info, read_task
from tans_core.zoo.weights import Base

_EMBEDDED = ("train", "val")
_VERSION = 2
"""Raise it when features of the same images and weights change."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A network that turns images into query features.

    Attributes:
        name: `base`, or the name of a base's published weights or of a torchvision network.
        features: maps normalised images (n, 3, S, S) float32 to features (n, F), on the images' device.
        preprocess: how its input images are prepared.
        digest: changes with the weights.
        device: the device for the images.
    """

    name: str
    features: Callable[[Tensor], Tensor]
    preprocess: Preprocess
    digest: str = ""
    device: str = "cpu"


def load_backbone(name: str, base_folder: Path) -> Backbone:
    """Load the backbone that `embed.backbone` names.

    It is `base`, the largest member of the first family's base supernet; the published network that a base started
    from; or a torchvision network with its weights.

    Raises:
        ParamsError: torchvision has no network of this name.
        WeightsError: the weights are not on this machine and cannot be downloaded.
    """
    backbone_device = str(device())
    if name == "base":
        base = Base.open(base_folder)
        family = next(iter(base.families))
        network = base.load(family).to(backbone_device)
        # Mean and std given here are unused if the family takes those of the task.
        preprocess = get_family(family).preprocess(base.space(family), IMAGENET_MEAN, IMAGENET_STD)
        return Backbone(name, network.features, preprocess, sha256_file(base.path(family)), backbone_device)
    # A library's network needs no base.
    published = Base.open(base_folder).published(name) if (base_folder / "base.json").is_file() else None
    if published is not None:
        published_network, preprocess, path = published
        return Backbone(
            name, published_network.to(backbone_device).features, preprocess, sha256_file(path), backbone_device
        )
    return _torchvision_backbone(name)


@torch.no_grad()
def query_features(
    task: Task, backbone: Backbone, images_per_class: int, split: str = "train", batch_size: int = 256
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Embed the same number of images of each class.

    The images are chosen by a hash of their pixels, independent of their order and file format.

    Args:
        task: the task.
        backbone: from `load_backbone`.
        images_per_class: maximum; all images of a smaller class are used.
        split: the split to choose from.
        batch_size: images per forward pass.

    Returns:
        Features (n, F) float32 and labels (n,) int64, ordered by label, then by pixel hash.

    Raises:
        TooFewImagesError: the split has no image.
    """
    members = task.where(split)
    if len(members) == 0:
        raise TooFewImagesError(f"task {task.info.name!r}: its {split} split has no image to embed.")
    chosen = task.few_of_each(split, np.unique(task.labels[members]), images_per_class)
    # Without TF32, so that a query has the same features on a GPU as on the CPU.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        parts = [
            backbone.features(backbone.preprocess.chosen(task, chosen[start : start + batch_size]).to(backbone.device))
            for start in range(0, len(chosen), batch_size)
        ]
    return torch.cat(parts).float().cpu().numpy(), task.labels[chosen]


def _torchvision_backbone(name: str) -> Backbone:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ParamsError(
            f"embed.backbone: got {name!r}, want 'base', weights that a base starts from, or a torchvision network"
            f"{did_you_mean(name, known)}."
        )
    weights = models.get_model_weights(name).DEFAULT
    try:
        network = models.get_model(name, weights=weights)
    except (URLError, OSError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"embed.backbone {name!r}: its weights are not on this machine and could not be downloaded ({error}).\n"
            f"  Put {Path(weights.url).name} into {folder}, or use `backbone: base`, which needs no download."
        ) from error
    _drop_last_linear(network)
    backbone_device = str(device())
    network.eval().to(backbone_device)
    # Published weights were trained on ImageNet's statistics, not on this task's.
    preprocess = Preprocess(
        image_size_px=weights.transforms().crop_size[0], mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear"
    )
    return Backbone(name, lambda images: network(images).flatten(start_dim=1), preprocess, weights.url, backbone_device)


def _drop_last_linear(network: nn.Module) -> None:
    """Replace the last linear layer of a classifier by the identity."""
    path = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, leaf = path.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Identity())


def embed_tasks(
    folders: Sequence[Path], backbone: Backbone, images_per_class: int, done: Path | None = None
) -> FeatureRows:
    """Embed the training and validation images of tasks on disk, one task in memory at a time.

    Args:
        folders: one per task.
        backbone: from `load_backbone`.
        images_per_class: maximum, for each split.
        done: a folder that caches each task's features; None computes all.
    """
    names, labels, splits, features = [], [], [], []
    code = network_digest() if done else ""
    for folder in progress(folders, "embedding tasks"):
        for split in _EMBEDDED:
            task_features, classes = _embed_once(folder, split, backbone, images_per_class, done, code)
            names += [read_info(folder).name] * len(task_features)
            splits += [split] * len(task_features)
            labels.append(classes)
            features.append(task_features)
    return FeatureRows(
        np.array(names, dtype=np.str_),
        np.concatenate(labels),
        np.array(splits, dtype=np.str_),
        np.concatenate(features),
    )


def _embed_once(
    folder: Path, split: str, backbone: Backbone, images_per_class: int, done: Path | None, code: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    if done is None:
        return query_features(read_task(folder), backbone, images_per_class, split)
    made_from = [sha256_file(folder / name) for name in ("images.parquet", "task.json")]
    backbone_key = [backbone.name, backbone.digest, backbone.preprocess.model_dump(mode="json")]
    key = json.dumps([_VERSION, code, made_from, backbone_key, images_per_class, split])
    path = done / f"{sha256_bytes(key.encode())[:32]}.npz"
    # A file damaged by a power loss is computed again.
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path) as cached:
        return cached["features"], cached["labels"]
    features, labels = query_features(read_task(folder), backbone, images_per_class, split)
    with atomic_path(path, sync=False) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features, labels=labels)
    return features, labels
