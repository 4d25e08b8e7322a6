"""The gate after `tasks`: images, labels and splits of the built tasks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

from tans_core.gates import expect
from tans_core.gates.runner import Check, run_gate
from tans_core.params import load_params
from tans_core.tasks.task import SPLITS, TaskInfo, read_info

SCALARS = ["label", "split", "sha256", "width", "height"]


def check_tasks(folders: list[Path], root: Path) -> None:
    """Gate the tasks in `folders` (`data/tasks/<task>`).

    Raises:
        GateError: images or labels are wrong, splits share an image, a class lacks images in a split.
        DataError: `task.json` is missing or malformed.
    """
    minimum = load_params(root).gates.min_images_per_task
    checks = [check for folder in folders for check in task_checks(folder, root, minimum)]
    run_gate("tasks", checks, root, "Look at the task's source in params.yaml, then run `tans build` again.")


def task_checks(folder: Path, root: Path, min_images: int) -> list[Check]:
    """Return the checks of one task: its images, its classes, its description."""
    info = read_info(folder)
    path = folder / "images.parquet"
    where = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    images = _images(path)
    return [
        Check(
            what=f"images of {info.name}",
            where=where,
            frame=images,
            key="path",
            rows=(min_images, None),
            expectations=[
                expect.columns([*SCALARS, "path", "side_px"]),
                *expect.number("label", 0, info.num_classes - 1),
                expect.one_of("split", SPLITS),
                expect.matches("sha256", "^[0-9a-f]{64}$"),
                expect.between("splits_of_hash", 1, 1),
                *expect.number("width", 1, 1e6),
                *expect.number("height", 1, 1e6),
                *expect.number("side_px", 1, info.stored_size_px),
            ],
        ),
        Check(
            what=f"classes of {info.name}",
            where=where,
            frame=_classes(images, info),
            key="class",
            rows=(2, None),
            expectations=[expect.unique("class"), *(expect.between(split, 1, None) for split in SPLITS)],
        ),
        Check(
            what=f"description of {info.name}",
            where=where.replace("images.parquet", "task.json"),
            frame=_description(images, info),
            key="name",
            rows=(1, 1),
            expectations=[
                expect.between("licence_letters", 1, None),
                expect.one_of("role", ["meta-test", "meta-train", "user"]),
                expect.true("counts_match"),
                expect.between("channels", 3, 3),
                *expect.number("mean_low", 0, 1),
                *expect.number("mean_high", 0, 1),
                *expect.number("std_low", 0, 1, above=True),
            ],
        ),
    ]


def _images(path: Path) -> pd.DataFrame:
    table = pq.read_table(path)
    frame = pd.DataFrame({name: table[name].to_pylist() for name in SCALARS if name in table.column_names})
    if "image" in table.column_names:
        cells: list[dict[str, Any]] = table["image"].to_pylist()
        frame["path"] = [cell["path"] for cell in cells]
        frame["side_px"] = [_side_px(cell["bytes"]) for cell in cells]
    if {"sha256", "split"} <= set(frame.columns):
        # A file in two splits would be in training and test.
        frame["splits_of_hash"] = frame.groupby("sha256")["split"].transform("nunique")
    return frame


def _side_px(data: bytes) -> int:
    """Return the side of a square RGB image in pixels, or 0 for anything else; reads the header only."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            return picture.width if picture.width == picture.height and picture.mode == "RGB" else 0
    except (OSError, TypeError):
        return 0


def _classes(images: pd.DataFrame, info: TaskInfo) -> pd.DataFrame:
    counts: dict[str, Sequence[Any]] = {"class": list(info.class_names)}
    if {"label", "split"} <= set(images.columns):
        for split in SPLITS:
            by_label = images.loc[images["split"] == split, "label"].value_counts()
            counts[split] = [int(by_label.get(index, 0)) for index in range(info.num_classes)]
    return pd.DataFrame(counts)


def _description(images: pd.DataFrame, info: TaskInfo) -> pd.DataFrame:
    by_split = images["split"].value_counts() if "split" in images.columns else pd.Series(dtype=int)
    return pd.DataFrame(
        {
            "name": [info.name],
            "licence_letters": [len(info.licence.strip())],
            "role": [info.role],
            "counts_match": [all(info.counts.get(split) == int(by_split.get(split, 0)) for split in SPLITS)],
            "channels": [len(info.mean) if len(info.mean) == len(info.std) else 0],
            "mean_low": [min(info.mean, default=None)],
            "mean_high": [max(info.mean, default=None)],
            "std_low": [min(info.std, default=None)],
        }
    )
