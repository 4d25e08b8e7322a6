"""The gate after `tasks`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tans_core.errors import GateError
from tans_core.gates.runner import run_gate
from tans_core.gates.tasks import task_checks
from tans_core.io import read_json, write_json
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.task import Task, TaskInfo, write_task

CLASSES = ("ash", "elm", "oak")
SIZE = 16
Replace = Callable[[pa.Table, str, int, object], pa.Table]


def make_task(name: str = "leaves", seed: int = 0) -> Task:
    """Return a task of 3 classes with 4 train, 2 val and 2 test images each."""
    generator = np.random.default_rng(seed)
    per_class = ("train",) * 4 + ("val",) * 2 + ("test",) * 2
    count = len(CLASSES) * len(per_class)
    sides = SIZE - np.arange(count) % 3  # images are kept at their own size
    return Task(
        info=TaskInfo(
            name=name,
            source="made",
            licence="CC0-1.0",
            role="meta-train",
            class_names=CLASSES,
            stored_size_px=SIZE,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            counts={"train": 12, "val": 6, "test": 6},
        ),
        images=SquareImages.of([generator.integers(0, 256, (3, side, side), dtype=np.uint8) for side in sides]),
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


def gate(folder: Path, root: Path, min_images: int = 20) -> None:
    run_gate("tasks-leaves", task_checks(folder, root, min_images), root)


def rewrite(folder: Path, column: str, row: int, value: object, replace: Replace) -> None:
    path = folder / "images.parquet"
    table = pq.read_table(path)
    if column == "image":
        cells = table["image"].to_pylist()
        cells[row] = value
        changed = pa.array(cells, type=table.schema.field("image").type)
        table = table.set_column(table.column_names.index("image"), "image", changed)
    else:
        table = replace(table, column, row, value)
    pq.write_table(table, path)


def encoded(size: tuple[int, int], mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format="PNG")
    return buffer.getvalue()


def test_good_task_passes(task_folder: Path, tmp_path: Path) -> None:
    gate(task_folder, tmp_path)
    assert read_json(tmp_path / "reports/gates/tasks-leaves.json")["passed"] is True


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("label", 3, "label: 1 of 24 not at least 0 and at most 2, for example 0.png (3)"),
        ("split", "spare", "split: 1 of 24 not in test, train, val, for example 0.png (spare)"),
        ("sha256", "short", "sha256: 1 of 24 not of the form"),
        ("sha256", f"{4:064x}", "splits_of_hash: 2 of 24 not exactly 1"),
        ("width", 0, "width: 1 of 24 not at least 1"),
        ("height", None, "height: 1 of 24 null or NaN, for example 0.png"),
        (
            "image",
            {"bytes": encoded((SIZE, SIZE + 1)), "path": "odd.png"},
            "side_px: 1 of 24 not at least 1 and at most 16, for example odd.png (0)",
        ),
        ("image", {"bytes": encoded((SIZE + 1, SIZE + 1)), "path": "large.png"}, "for example large.png (17)"),
        ("image", {"bytes": encoded((SIZE, SIZE), "L"), "path": "grey.png"}, "for example grey.png (0)"),
        ("image", {"bytes": b"no picture", "path": "bad.png"}, "for example bad.png (0)"),
    ],
)
def test_bad_row_fails(
    task_folder: Path, tmp_path: Path, replace: Replace, column: str, value: object, words: str
) -> None:
    rewrite(task_folder, column, 0, value, replace)
    with pytest.raises(GateError) as caught:
        gate(task_folder, tmp_path)
    assert words in str(caught.value)
    assert "data/tasks/leaves/images.parquet" in str(caught.value)


def test_too_few_images_fail(task_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"images of leaves .*: got 24 rows, want at least 25"):
        gate(task_folder, tmp_path, min_images=25)


def without_test_images_of_oak(task: Task) -> Task:
    splits = np.where((task.labels == 2) & (task.splits == "test"), "val", task.splits)
    return dataclasses.replace(task, splits=splits)


def without_licence(task: Task) -> Task:
    return dataclasses.replace(task, info=dataclasses.replace(task.info, licence=" "))


def without_spread(task: Task) -> Task:
    return dataclasses.replace(task, info=dataclasses.replace(task.info, std=(0.2, 0.0, 0.2)))


def with_wrong_counts(task: Task) -> Task:
    return dataclasses.replace(task, info=dataclasses.replace(task.info, counts={"train": 11, "val": 6, "test": 6}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            without_test_images_of_oak,
            "classes of leaves (data/tasks/leaves/images.parquet): test: 1 of 3 not at least 1, for example oak (0)",
        ),
        (without_licence, "licence_letters: 1 of 1 not at least 1"),
        (without_spread, "std_low: 1 of 1 not above 0"),
        (with_wrong_counts, "counts_match: 1 of 1 not True"),
    ],
)
def test_bad_description_fails(tmp_path: Path, change: Callable[[Task], Task], words: str) -> None:
    folder = tmp_path / "data/tasks/leaves"
    write_task(change(make_task()), folder)
    with pytest.raises(GateError) as caught:
        gate(folder, tmp_path)
    assert words in str(caught.value)


def test_single_class_fails(task_folder: Path, tmp_path: Path) -> None:
    raw = read_json(task_folder / "task.json")
    write_json({**raw, "class_names": ["ash"]}, task_folder / "task.json")
    with pytest.raises(GateError, match="got 1 rows, want at least 2"):
        gate(task_folder, tmp_path)
