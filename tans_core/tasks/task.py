"""A task in memory and on disk.

Axes: N images, K classes, H = W = `image_size_px`, 3 channels (RGB).
On disk a task is a folder of `images.parquet` (the layout that Hugging Face `datasets` reads) and `task.json`.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tans_core.errors import DataError
from tans_core.io import atomic_folder, read_json, write_json

SPLITS = ("train", "val", "test")
Role = Literal["meta-train", "meta-test", "user"]


@dataclass(frozen=True)
class TaskInfo:
    """What `task.json` holds: all that is needed to use the images, and where they came from."""

    name: str
    source: str
    licence: str
    role: Role
    class_names: tuple[str, ...]
    image_size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    counts: dict[str, int]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Task:
    """A labelled image-classification data set at its working size.

    Attributes:
        info: names, licence, normalisation, counts.
        images: (N, 3, H, W) uint8, RGB.
        labels: (N,) int64 in [0, K), indices into `info.class_names`.
        splits: (N,) str, each one of `SPLITS`.
        sha256: N content hashes of the files the images came from.
        paths: N names of those files, for people.
        sizes: (N, 2) int32, width and height of the originals in pixels.
    """

    info: TaskInfo
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    sha256: tuple[str, ...]
    paths: tuple[str, ...]
    sizes: npt.NDArray[np.int32]

    def split(self, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return the images (n, 3, H, W) uint8 and labels (n,) int64 of one split."""
        if name not in SPLITS:
            raise ValueError(f"split {name!r}: want one of {', '.join(SPLITS)}")
        mask = self.splits == name
        return self.images[mask], self.labels[mask]


def write_task(task: Task, folder: Path) -> None:
    """Write `images.parquet` and `task.json`; the folder appears whole or not at all."""
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(task.info.class_names)},
        **{name: {"dtype": kind, "_type": "Value"} for name, kind in _PLAIN_COLUMNS.items()},
    }
    encoded = [{"bytes": _encode_png(image), "path": path} for image, path in zip(task.images, task.paths, strict=True)]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array(encoded, type=image_type),
            "label": pa.array(task.labels, type=pa.int64()),
            "split": pa.array(task.splits.tolist(), type=pa.string()),
            "sha256": pa.array(task.sha256, type=pa.string()),
            "width": pa.array(task.sizes[:, 0], type=pa.int32()),
            "height": pa.array(task.sizes[:, 1], type=pa.int32()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    with atomic_folder(folder) as temporary:
        pq.write_table(table, temporary / "images.parquet", compression="none")
        write_json(asdict(task.info), temporary / "task.json")


def read_info(folder: Path) -> TaskInfo:
    """Read `task.json`.

    Raises:
        DataError: the file is missing or lacks a field.
    """
    path = folder / "task.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file. Run `dvc repro` to build the tasks of params.yaml.")
    raw: dict[str, Any] = read_json(path)
    try:
        for key in ("class_names", "mean", "std"):
            raw[key] = tuple(raw[key])
        return TaskInfo(**raw)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a task of this version ({error}). Run `dvc repro` to build it again.") from error


def read_task(folder: Path) -> Task:
    """Read a task that `write_task` wrote.

    Raises:
        DataError: a file is missing, or the images do not match `task.json`.
    """
    info = read_info(folder)
    table = pq.read_table(folder / "images.parquet")
    size = info.image_size_px
    images = np.empty((len(table), 3, size, size), dtype=np.uint8)
    cells = cast("list[dict[str, Any]]", table["image"].to_pylist())
    for index, cell in enumerate(cells):
        with Image.open(io.BytesIO(cell["bytes"]), formats=["PNG"]) as picture:
            if picture.size != (size, size) or picture.mode != "RGB":
                raise DataError(
                    f"{folder / 'images.parquet'}, row {index}: got {picture.size} {picture.mode}, want {size}x{size} RGB."
                )
            images[index] = np.asarray(picture).transpose(2, 0, 1)
    return Task(
        info=info,
        images=images,
        labels=table["label"].to_numpy(),
        splits=np.array(table["split"].to_pylist(), dtype=np.str_),
        sha256=tuple(table["sha256"].to_pylist()),
        paths=tuple(cell["path"] for cell in cells),
        sizes=np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1),
    )


_PLAIN_COLUMNS = {"split": "string", "sha256": "string", "width": "int32", "height": "int32"}


def _encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
