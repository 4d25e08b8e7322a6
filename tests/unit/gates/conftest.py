"""Small tables and folders that every gate passes; tests break one thing at a time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tans_core.tasks.task import Task, TaskInfo, write_task
from tans_core.zoo.card import ModelCard

CLASSES = ("ash", "elm", "oak")
SIZE = 16


def make_task(name: str = "leaves", seed: int = 0) -> Task:
    """Return a task of 3 classes with 4 train, 2 val and 2 test images each."""
    generator = np.random.default_rng(seed)
    per_class = ("train",) * 4 + ("val",) * 2 + ("test",) * 2
    count = len(CLASSES) * len(per_class)
    return Task(
        info=TaskInfo(
            name=name,
            source="made",
            licence="CC0-1.0",
            role="meta-train",
            class_names=CLASSES,
            image_size_px=SIZE,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            counts={"train": 12, "val": 6, "test": 6},
        ),
        images=generator.integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8),
        labels=np.repeat(np.arange(len(CLASSES)), len(per_class)),
        splits=np.array(per_class * len(CLASSES)),
        sha256=tuple(f"{index:064x}" for index in range(count)),
        paths=tuple(f"{index}.png" for index in range(count)),
        sizes=np.full((count, 2), 20, dtype=np.int32),
    )


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data/tasks/leaves"
    write_task(make_task(), folder)
    return folder


def make_card(index: int, task: str = "leaves", **changes: Any) -> ModelCard:
    card = ModelCard(
        id=f"{task}-{index}",
        space="elastic",
        architecture={"depths": [1]},
        home_task=task,
        source="made",
        licence="CC0-1.0",
        class_names=CLASSES,
        image_size_px=SIZE,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        params_m=0.1 + index / 100,
        macs_m=1.0 + index,
        val_accuracy=0.8,
        test_accuracy=0.75,
        weights=f"zoo/{task}/supernet.safetensors",
    )
    return dataclasses.replace(card, **changes)


def card_table(cards: list[ModelCard]) -> pa.Table:
    """Return cards as `models.parquet` has them, one a row."""
    beside = ("id", "params_m", "macs_m", "val_accuracy", "test_accuracy")
    columns = {name: [getattr(card, name) for card in cards] for name in beside}
    return pa.table({**columns, "card": [json.dumps(card.to_dict()) for card in cards]})


def replace(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    """Return the table with one cell changed."""
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(column), column, pa.array(values))
