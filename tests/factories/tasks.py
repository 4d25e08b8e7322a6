"""Tasks that a network can learn in seconds: every class is a grating of its own direction, under noise."""

from __future__ import annotations

import hashlib

import numpy as np

from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.task import Role, Task, TaskInfo


def grating_task(
    name: str = "gratings",
    classes: int = 3,
    train: int = 60,
    val: int = 30,
    test: int = 30,
    size: int = 16,
    noise: float = 30.0,
    seed: int = 0,
    role: Role = "meta-train",
) -> Task:
    """Make a task; rows are sorted by split and shuffled over classes."""
    rng = np.random.default_rng(seed)
    splits = np.array(["train"] * train + ["val"] * val + ["test"] * test)
    labels = rng.permutation(np.arange(len(splits), dtype=np.int64) % classes)
    angles = np.pi * labels / classes + 0.4 * seed
    y, x = np.mgrid[:size, :size]
    phase = rng.uniform(0, 2 * np.pi, len(splits))[:, None, None]
    waves = np.sin(np.cos(angles)[:, None, None] * x + np.sin(angles)[:, None, None] * y + phase)
    images = 128 + 80 * waves[:, None] + rng.normal(0, noise, (len(splits), 3, size, size))
    pixels = np.clip(images, 0, 255).astype(np.uint8)
    digests = tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in pixels)
    info = TaskInfo(
        name=name,
        source="gratings",
        licence="CC0-1.0",
        role=role,
        class_names=tuple(f"direction {index}" for index in range(classes)),
        stored_size_px=size,
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        counts={"train": train, "val": val, "test": test},
    )
    sizes = np.full((len(splits), 2), size, dtype=np.int32)
    return Task(
        info,
        SquareImages.of(pixels),
        labels,
        splits,
        digests,
        tuple(f"{index}.png" for index in range(len(splits))),
        sizes,
    )
