"""A task in memory and on disk.

Axes: N images, n of these, K classes, S = side in pixels, 3 channels (RGB).
On disk a task is a folder of `images.parquet` (the layout that Hugging Face `datasets` reads) and `task.json`.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tans_core.errors import DataError
from tans_core.io import atomic_folder, read_json, write_json
from tans_core.licences import normalise
from tans_core.tasks.pixels import SquareImages

SPLITS = ("train", "val", "test")
Role = Literal["meta-train", "meta-test", "user"]


@dataclass(frozen=True)
class TaskInfo:
    """The content of `task.json`: what is needed to use the images, and their origin.

    Attributes:
        licence: an SPDX expression; `licence_texts` has the terms of each `LicenseRef-` in it that is not of TANS.
        stored_size_px: the largest side that images are kept at; smaller ones stay as they are.
        mean, std: of the training images, a channel, in 0..1.
        counts: images a split.
    """

    name: str
    source: str
    licence: str
    role: Role
    class_names: tuple[str, ...]
    stored_size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    counts: dict[str, int]
    licence_texts: dict[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Task:
    """A labelled data set for image classification; images are kept once, at their own size up to `stored_size_px`.

    Attributes:
        info: names, licence, normalisation, counts.
        images: N of them.
        labels: (N,) int64 in [0, K), indices into `info.class_names`.
        splits: (N,) str, each one of `SPLITS`.
        sha256: N content hashes of the files the images came from.
        paths: N names of those files, for reports.
        sizes: (N, 2) int32, width and height of the originals in pixels.
    """

    info: TaskInfo
    images: SquareImages
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    sha256: tuple[str, ...]
    paths: tuple[str, ...]
    sizes: npt.NDArray[np.int32]
    _scaled: dict[tuple[Any, ...], npt.NDArray[np.uint8]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def where(self, split: str) -> npt.NDArray[np.int64]:
        """Return the numbers (n,) of one split's images."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: want one of {', '.join(SPLITS)}")
        return np.flatnonzero(self.splits == split)

    def few_of_each(self, split: str, classes: npt.NDArray[np.int64], most: int) -> list[int]:
        """Return the numbers of at most `most` images of each class in a split: those of the lowest pixel hashes."""
        members, digests = self.where(split), self.images.digests
        labels = self.labels[members]
        return [
            index
            for label in classes
            for index in sorted(members[labels == label].tolist(), key=digests.__getitem__)[:most]
        ]

    def pixels(
        self, size_px: int, interpolation: str = "bicubic", crop: float = 1.0, split: str | None = None
    ) -> npt.NDArray[np.uint8]:
        """Return the images of a split, or all, at the size that a network reads. They are cached.

        Args:
            size_px: S.
            interpolation: a key of `tans_core.tasks.pixels.INTERPOLATIONS`.
            crop: share of the side that is kept around the centre.
            split: one of `SPLITS`; None for all images.

        Returns:
            (n, 3, S, S) uint8; read-only by agreement.
        """
        key = (size_px, interpolation, crop, split)
        if key not in self._scaled:
            indices = None if split is None else self.where(split)
            self._scaled[key] = self.images.at(size_px, interpolation, crop, indices)
        return self._scaled[key]

    def __getstate__(self) -> dict[str, Any]:
        # Without the cache: a receiving process scales again.
        return {**self.__dict__, "_scaled": {}}


def write_task(task: Task, folder: Path) -> None:
    """Write `images.parquet` and `task.json`; the folder appears only when it is complete."""
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
        raise DataError(f"{path}: no such file. Run `tans build` to build the tasks of params.yaml.")
    try:
        raw: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}): it is damaged. Run `tans build` again.") from error
    if "image_size_px" in raw:  # an older version, in which all images of a task had one size
        raw["stored_size_px"] = raw.pop("image_size_px")
        described = normalise(raw.get("licence", ""))
        raw |= {"licence": described.expression, "licence_texts": described.texts}
    try:
        for key in ("class_names", "mean", "std"):
            raw[key] = tuple(raw[key])
        return TaskInfo(**raw)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a task of this version ({error}). Run `tans build` to build it again.") from error


def read_task(folder: Path) -> Task:
    """Read a task that `write_task` wrote.

    Raises:
        DataError: a file is missing, or the images do not match `task.json`.
    """
    info = read_info(folder)
    table = pq.read_table(folder / "images.parquet")
    images = []
    cells = cast("list[dict[str, Any]]", table["image"].to_pylist())
    for index, cell in enumerate(cells):
        with Image.open(io.BytesIO(cell["bytes"]), formats=["PNG"]) as picture:
            width, height = picture.size
            if width != height or width > info.stored_size_px or picture.mode != "RGB":
                raise DataError(
                    f"{folder / 'images.parquet'}, row {index}: got {width}x{height} {picture.mode}, want a square of "
                    f"at most {info.stored_size_px} pixels, RGB."
                )
            images.append(np.asarray(picture).transpose(2, 0, 1))
    return Task(
        info=info,
        images=SquareImages.of(images),
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
