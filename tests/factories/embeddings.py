"""Embeddings with a known answer: each task is a point, and its models have similar functional embeddings."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pyarrow as pa

from tans_core.embeddings.scores import ScoreRows
from tans_core.embeddings.store import FeatureRows, ModelRows, vectors
from tans_core.space.objective import SpaceRecipe
from tans_core.zoo.card import ModelCard
from tests.factories.project import PARAMS

_LATENTS = 10
ARCHITECTURE = {"stem_width": 16, "widths": [24], "strides": [2], "stages": [[{"kernel": 3, "ratio": 1.0}]]}


def card(model_id: str, home_task: str, source: str = "source", licence: str = "MIT", **changes: object) -> ModelCard:
    """Return a card of version 1. Its weights descend from images of its home task only, under one licence."""
    values: dict[str, object] = {
        "id": model_id,
        "family": "elastic-residual",
        "architecture": ARCHITECTURE,
        "home_task": home_task,
        "source": source,
        "licences": {"code": "Apache-2.0", "weights": licence, "data": licence},
        "lineage": [{"kind": "task", "name": home_task, "source": source, "licence": licence}],
        "class_names": ("a", "b"),
        "preprocess": {"image_size_px": 16, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "statistics": "task"},
        "params_m": 0.1,
        "macs_m": 1.0,
        "val_accuracy": 0.5,
        "test_accuracy": 0.5,
        "weights": f"zoo/{home_task}/elastic-residual.safetensors",
    }
    return ModelCard.model_validate({**values, **changes})


def clustered_index(rows: int, dim: int = 64, spread: float = 0.8, seed: int = 0) -> pa.Table:
    """Return an index of random models in clusters, 50 of each home task, as large as needed.

    Args:
        rows: how many models.
        dim: of the space.
        spread: standard deviation of a model's value; the default zoo has .85.
        seed: of all numbers.
    """
    rng = np.random.default_rng(seed)
    homes = rng.integers(max(rows // 50, 2), size=rows)
    # As in the default zoo: cosines around .6 within a home task, and around .16 between them.
    places = (0.4 + rng.standard_normal((homes.max() + 1, dim), dtype=np.float32))[homes]
    places += 0.7 * rng.standard_normal((rows, dim), dtype=np.float32)
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    capacity, start = (spread * 0.7 * rng.standard_normal(rows, dtype=np.float32) for _ in range(2))
    texts = {"family": "elastic-residual", "source": "source", "licence": "MIT"}
    return pa.table(
        {
            "id": [f"m.{number:08d}" for number in range(rows)],
            "home_task": pa.array(np.char.add("task-", homes.astype(np.str_))),
            **{name: pa.repeat(text, rows) for name, text in texts.items()},
            **{name: rng.random(rows) for name in ("params_m", "macs_m", "val_accuracy")},
            "capacity": capacity,
            "start": start,
            "vector": vectors(places),
        }
    )


def linked_tables(tasks: int = 12, models: int = 8, sources: int = 4, seed: int = 0) -> tuple[ModelRows, FeatureRows]:
    """Tables in which a task's images and models share a latent vector. Accuracy follows the first topology slot."""
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(tasks, _LATENTS)).astype(np.float32)
    to_features, to_functional = rng.normal(size=(_LATENTS, 24)), rng.normal(size=(_LATENTS, 30))
    cards, topology, functional = [], [], []
    names, labels, splits, features = [], [], [], []
    for task in range(tasks):
        for number in range(models):
            code = rng.integers(0, 2, size=6).astype(np.float32)
            level = 0.3 + 0.04 * task  # how easy a task is says nothing about its models
            value = level + 0.1 * code[0] + 0.05 * code[1] + 0.01 * rng.normal()
            source = f"source-{task % sources}"
            cards.append(card(f"m.task-{task:02d}.{number:03d}", f"task-{task:02d}", source, val_accuracy=float(value)))
            topology.append(code)
            functional.append(latents[task] @ to_functional + 0.3 * rng.normal(size=30))
        for split in ("train", "val"):
            for image in range(20):
                names.append(f"task-{task:02d}")
                labels.append(image % 2)
                splits.append(split)
                features.append(latents[task] @ to_features + rng.normal(size=24))
    return (
        ModelRows(tuple(cards), np.stack(topology), np.stack(functional).astype(np.float32)),
        FeatureRows(np.array(names), np.array(labels), np.array(splits), np.stack(features).astype(np.float32)),
    )


def linked_scores(models: ModelRows, tasks: int = 12, seeds: int = 2, seed: int = 0) -> ScoreRows:
    """Trials of all of `linked_tables`' models on all of its tasks, their homes included.

    A fine-tuning depends on the model's capacity (its first topology slot) and on how near its home's latent vector is
    to the task's. A probe depends on the nearness only. Capacity has a somewhat larger weight.
    """
    latents = np.random.default_rng(seed).normal(size=(tasks, _LATENTS))  # the first that linked_tables draws
    latents /= np.linalg.norm(latents, axis=1, keepdims=True)
    rng = np.random.default_rng(seed + 1)
    rows: list[tuple[str, str, str, int, float]] = []
    for task in range(tasks):
        for code, one in zip(models.topology, models.cards, strict=True):
            near = float(latents[task] @ latents[int(one.home_task.rpartition("-")[2])])
            level = 0.3 + 0.03 * task + 0.1 * float(code[0]) + 0.1 * near
            name = f"task-{task:02d}"
            tuned = [level + 0.01 * rng.normal() for _ in range(seeds)]
            rows += [(name, one.id, "finetune", number, value) for number, value in enumerate(tuned)]
            rows.append((name, one.id, "probe", 0, 0.2 + 0.2 * near + 0.02 * rng.normal()))
    names, ids, kinds, numbers, values = zip(*rows, strict=True)
    return ScoreRows(np.array(names), np.array(ids), np.array(kinds), np.array(numbers), np.array(values))


def space_recipe(**changes: float) -> SpaceRecipe:
    """The recipe of the small project, changed."""
    plain = {field.name: PARAMS["space"][field.name] for field in fields(SpaceRecipe)}
    return SpaceRecipe(**{**plain, **changes})
