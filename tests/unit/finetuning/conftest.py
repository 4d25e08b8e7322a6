"""Inputs of the fine-tuning tests: tasks of coloured squares, and a network small enough to train in a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tans_core.networks.elastic import ElasticNetwork
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.task import Task, TaskInfo
from tests.factories.networks import tiny_network

MakeTask = Callable[..., Task]


@pytest.fixture
def make_task() -> MakeTask:
    """Return a maker of tasks: every class is a brightness, so that a network can learn it."""

    def make(train: int = 64, val: int = 24, test: int = 24, classes: int = 3, noise: float = 40.0) -> Task:
        rng = np.random.default_rng(5)
        splits = np.array(["train"] * train + ["val"] * val + ["test"] * test)
        labels = np.arange(len(splits), dtype=np.int64) % classes
        level = (labels * 200 / classes)[:, None, None, None]
        images = np.clip(level + rng.normal(30, noise, (len(splits), 3, 16, 16)), 0, 255).astype(np.uint8)
        names = tuple(str(index) for index in range(len(splits)))
        counts = {"train": train, "val": val, "test": test}
        class_names = tuple(f"shade {index}" for index in range(classes))
        info = TaskInfo("shades", "made", "CC0-1.0", "meta-test", class_names, 16, (0.4,) * 3, (0.3,) * 3, counts)
        return Task(
            info, SquareImages.of(images), labels, splits, names, names, np.full((len(splits), 2), 16, dtype=np.int32)
        )

    return make


@pytest.fixture
def make_network() -> Callable[..., ElasticNetwork]:
    """Return a maker of fresh networks, the same for the same seed."""

    def make(num_classes: int = 3, seed: int = 0) -> ElasticNetwork:
        return tiny_network(num_classes, seed).train()

    return make
