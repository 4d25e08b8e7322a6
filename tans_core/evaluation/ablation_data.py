"""Data of an ablation's variants: the built tables, or tables made again from other inputs.

Axes: M models, E functional width.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tans_core.embeddings.functional import Anchors
from tans_core.embeddings.query import embed_tasks, load_backbone
from tans_core.embeddings.scores import ScoreRows
from tans_core.embeddings.store import FeatureRows, ModelRows, digest_of
from tans_core.errors import StoreError, TansError
from tans_core.evaluation.ablation import FULL, Inputs, Study, Variant, is_full, make_study
from tans_core.io import atomic_path, sha256_bytes
from tans_core.runtime import progress
from tans_core.space.data import SpaceData
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.fit import source_folds
from tans_core.space.measure import orders_elsewhere
from tans_core.space.objective import SpaceRecipe
from tans_core.tasks.task import read_task
from tans_core.zoo.weights import load_model

_VERSION = 3
_BACKBONES = ("resnet18", "resnet50", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny")
"""Torchvision's networks to try, if their weights are on this machine."""

AS_BUILT = "it is what is built"


@dataclass(frozen=True)
class Built:
    """The tables of a project, with their inputs.

    Attributes:
        data: the folder of tasks, base and weights.
        models, features, scores: the tables.
        tasks: the meta-train tasks.
        inputs: of the tables, with no part None.
        projection_seed, projection_dim: of the functional embeddings.
        assemble: combines the tables.
    """

    data: Path
    models: ModelRows
    features: FeatureRows
    scores: ScoreRows
    tasks: Sequence[str]
    inputs: Inputs
    projection_seed: int
    projection_dim: int
    assemble: Callable[[ModelRows, FeatureRows, ScoreRows], SpaceData]

    def remade(self, inputs: Inputs, done: Path) -> SpaceData:
        """Assemble the data from other inputs.

        Args:
            inputs: those that differ.
            done: a folder for computed results, for the caller to remove.

        Raises:
            TansError: weights or images are missing.
        """
        models, features = self.models, self.features
        form = self.projection_dim, self.projection_seed
        folders = [self.data / "tasks" / name for name in self.tasks]
        if inputs.anchors_per_task:
            anchors = Anchors.of_tasks(map(read_task, folders), inputs.anchors_per_task, *form)
            models = replace(models, functional=embed_functional(models, anchors, self.data, done))
        if inputs.noise_images:
            anchors = Anchors.of_noise(inputs.noise_images, *form)
            models = replace(models, functional=embed_functional(models, anchors, self.data, done))
        if inputs.backbone:
            backbone = load_backbone(inputs.backbone, self.data / "base")
            features = embed_tasks(folders, backbone, self.inputs.images_per_class or 1, done)
        if inputs.images_per_class:
            features = first_of_each_class(features, inputs.images_per_class)
        return self.assemble(models, features, self.scores)

    def cannot(self, inputs: Inputs) -> str | None:
        """Return why these inputs cannot be studied, without computing anything; None if they can."""
        changed = {name: value for name, value in vars(inputs).items() if value is not None}
        if changed and changed.items() <= vars(self.inputs).items():
            return AS_BUILT
        stored = self.inputs.images_per_class or 0
        if inputs.images_per_class and inputs.images_per_class > stored:
            return f"data/store holds {stored} images a class"
        return None


def embed_functional(models: ModelRows, anchors: Anchors, data: Path, done: Path) -> npt.NDArray[np.float32]:
    """Embed networks by other anchors, in the order of the rows.

    Args:
        models: M networks.
        anchors: images that they are run on.
        data: the folder of their weights and the base.
        done: a folder where the embeddings are kept, so that they are computed once.

    Returns:
        (M, E) float32.

    Raises:
        WeightsError: weights are missing or damaged.
    """
    made_from = [_VERSION, digest_of(models.to_table()), anchors.digest()]
    path = done / f"functional.{sha256_bytes(json.dumps(made_from).encode())[:32]}.npz"
    # A damaged file, for example after a power loss, is computed again.
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path) as file:
        stored: npt.NDArray[np.float32] = file["functional"]
        return stored
    cards = progress(models.cards, f"embedding networks by {len(anchors.inputs)} images")
    functional = np.stack([anchors.embed(load_model(card, data / card.weights), card.preprocess) for card in cards])
    with atomic_path(path, sync=False) as temporary, temporary.open("wb") as output:
        np.savez(output, functional=functional)
    return functional


def first_of_each_class(features: FeatureRows, count: int) -> FeatureRows:
    """Keep the first images of each class, task and split, as `query_features` does for the same count."""
    kept = np.zeros(len(features.tasks), dtype=bool)
    for task in np.unique(features.tasks):
        for split in np.unique(features.splits):
            rows = (features.tasks == task) & (features.splits == split)
            for label in np.unique(features.labels[rows]):
                kept[np.flatnonzero(rows & (features.labels == label))[:count]] = True
    return FeatureRows(features.tasks[kept], features.labels[kept], features.splits[kept], features.features[kept])


def backbones_here(built_in: str) -> list[str]:
    """Return the other networks that can compute query features without a download."""
    from torchvision import models

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    files = {name: Path(models.get_model_weights(name).DEFAULT.url).name for name in _BACKBONES}
    downloaded = [name for name, file in files.items() if (folder / file).is_file()]
    return [name for name in ("base", *downloaded) if name != built_in]


def make_studies(
    variants: Sequence[Variant], recipe: SpaceRecipe, built: Built, done: Path
) -> tuple[list[Study], dict[str, str]]:
    """Make the data of each variant.

    Args:
        variants: the full objective first.
        recipe: of the full objective.
        built: tables.
        done: a folder for computed results, for the caller to remove.

    Returns:
        The studies; and by name why other variants are left out.

    Raises:
        StoreError: nothing can be measured: fewer than two sources, or too few trials on other tasks.
    """
    data = built.assemble(built.models, built.features, built.scores)
    full = make_study(variants[0], recipe, data)
    assert full.variant.name == FULL
    judged_tasks(data)
    studies, left_out = [full], {}
    for variant in variants[1:]:
        if reason := built.cannot(variant.inputs):
            left_out[variant.name] = reason
            continue
        try:
            variant_data = data if variant.inputs == Inputs() else built.remade(variant.inputs, done)
        except TansError as error:
            left_out[variant.name] = str(error)
            continue
        study = make_study(variant, recipe, variant_data)
        if study.data.functional.shape[1] == 0:
            left_out[variant.name] = "functional embeddings have no such part"
        elif is_full(study, full):
            left_out[variant.name] = AS_BUILT
        else:
            studies.append(study)
    return studies, left_out


def judged_tasks(data: SpaceData) -> int:
    """Count the tasks with enough trials of networks of other sources to measure an order.

    Raises:
        StoreError: there are none, or all tasks are of one source.
    """
    if len(set(data.sources)) < 2 or not source_folds(data.sources, 2):
        raise StoreError(
            f"an ablation leaves whole sources out: {len(set(data.sources))} sources are too few. Add tasks."
        )
    blank = CrossModalSpace(data.queries.shape[1], data.topology.shape[1], data.functional.shape[1], 1, len(data.tasks))
    count = len(orders_elsewhere(blank, data, range(len(data.tasks))))
    if count == 0:
        raise StoreError(
            "no task has 4 networks of other sources that were both fine-tuned and probed on it. "
            "Raise transfer.networks_per_task in params.yaml and run `tans build transfer`."
        )
    return count
