"""Source `medmnist`: the 2-D data sets of MedMNIST, from the `.npz` files that its package keeps in the user's home.

The file is read as a zip of arrays, image by image. Nothing in it is trusted or unpickled.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tans_core.errors import DataError, ParamsError, SourceUnavailableError, did_you_mean
from tans_core.runtime import derive_seed
from tans_core.sources.base import Sample, check_options

NAMES = (
    "bloodmnist", "breastmnist", "chestmnist", "dermamnist", "octmnist", "organamnist", "organcmnist", "organsmnist",
    "pathmnist", "pneumoniamnist", "retinamnist", "tissuemnist",
)  # fmt: skip
SIZES_PX = (28, 64, 128, 224)
SPLITS = ("train", "val", "test")

_MAX_SIDE_PX = 1024
_MAX_ROWS = 5_000_000
_DAMAGED = (zipfile.BadZipFile, OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError)


class MedMnist:
    """Options: dataset (one of NAMES) or path (.npz file), size_px, root (folder), images (random number; 0: all)."""

    name = "medmnist"
    package = ""
    # Only DermaMNIST is not for commercial use.
    licence = "CC-BY-4.0 AND CC-BY-NC-4.0"
    defaults: Mapping[str, Any] = {"dataset": "", "path": "", "size_px": 28, "root": "", "images": 10_000}

    def licence_of(self, options: Mapping[str, Any]) -> str:
        dataset = _dataset({**self.defaults, **options})
        if dataset not in NAMES:
            return self.licence
        return "CC-BY-NC-4.0" if dataset == "dermamnist" else "CC-BY-4.0"

    def missing(self, options: Mapping[str, Any]) -> str | None:
        chosen = {**self.defaults, **options}
        if not chosen["path"] and chosen["dataset"] not in NAMES:
            return "set options.dataset to one of its data sets, or options.path to a file"
        path = _path(chosen)
        return None if path.is_file() else f"put {path.name} into {path.parent}; `pip install medmnist` can download it"

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        if not chosen["path"]:
            _check_name(chosen["dataset"])
            if chosen["size_px"] not in SIZES_PX:
                raise ParamsError(
                    f"source {self.name!r}: options.size_px: got {chosen['size_px']}, "
                    f"want one of {', '.join(map(str, SIZES_PX))}"
                )
        if chosen["images"] < 0:
            raise ParamsError(f"source {self.name!r}: options.images: got {chosen['images']}, want 0 (all) or more")
        path = _path(chosen)
        if not path.is_file():
            raise SourceUnavailableError(f"medmnist: {path}: no such file. {self.missing(chosen)}.")
        names = _class_names(_dataset(chosen))
        try:
            with zipfile.ZipFile(path) as archive:
                labels = {split: _read_labels(archive, path, split) for split in SPLITS}
                total = sum(map(len, labels.values()))
                share = min(1.0, chosen["images"] / max(total, 1)) if chosen["images"] else 1.0
                for split in SPLITS:
                    rng = np.random.default_rng(derive_seed(seed, split))
                    count = len(labels[split])
                    picked = set(rng.choice(count, size=round(share * count), replace=False).tolist())
                    for index, image in enumerate(_images(archive, path, split, count)):
                        if index in picked:
                            label = int(labels[split][index])
                            name = f"{path.stem}/{split}/{index:06d}"
                            yield Sample(image, names.get(label, str(label)), "", name, split)
        except _DAMAGED as error:
            raise DataError(f"{path}: not an .npz file of MedMNIST, or damaged: {error}. Download it again.") from error


def _check_name(dataset: str) -> None:
    if dataset.endswith("3d"):
        raise ParamsError(f"source 'medmnist': options.dataset: {dataset!r} contains volumes, want one of images")
    if dataset not in NAMES:
        raise ParamsError(
            f"source 'medmnist': options.dataset: got {dataset!r}, want one of {', '.join(NAMES)}"
            f"{did_you_mean(dataset, NAMES)}; or give options.path"
        )


def _path(chosen: Mapping[str, Any]) -> Path:
    if chosen["path"]:
        return Path(chosen["path"]).expanduser()
    root = chosen["root"] or os.environ.get("MEDMNIST_ROOT") or "~/.medmnist"
    size = "" if chosen["size_px"] == 28 else f"_{chosen['size_px']}"
    return Path(root).expanduser() / f"{chosen['dataset']}{size}.npz"


def _dataset(chosen: Mapping[str, Any]) -> str:
    return re.sub(r"_\d+$", "", Path(chosen["path"]).stem) if chosen["path"] else str(chosen["dataset"])


def _class_names(dataset: str) -> dict[int, str]:
    """Return the package's class names; without the package, none: classes then have numbers as names."""
    if importlib.util.find_spec("medmnist") is None:
        return {}
    labels = importlib.import_module("medmnist").INFO.get(dataset, {}).get("label", {})
    return {int(index): str(name) for index, name in labels.items()}


def _read_labels(archive: zipfile.ZipFile, path: Path, split: str) -> npt.NDArray[np.int64]:
    """Return (N,) labels."""
    with archive.open(f"{split}_labels.npy") as file:
        shape, dtype = _header(file)
        if len(shape) == 2 and shape[1] > 1:
            raise DataError(
                f"{path}: {split}_labels: got {shape[1]} labels per image, want one: multi-label data sets are not "
                "supported. Take another data set."
            )
        if not 1 <= len(shape) <= 2 or dtype.kind not in "iu" or math.prod(shape) > _MAX_ROWS:
            raise DataError(
                f"{path}: {split}_labels: got {dtype} {shape}, want whole numbers (N, 1), N <= {_MAX_ROWS:,}."
            )
        data = _read_exactly(file, math.prod(shape) * dtype.itemsize)
        return np.frombuffer(data, dtype).astype(np.int64)


def _images(archive: zipfile.ZipFile, path: Path, split: str, count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield (H, W) or (H, W, 3) images, one at a time."""
    with archive.open(f"{split}_images.npy") as file:
        shape, dtype = _header(file)
        if len(shape) == 5 or (len(shape) == 4 and shape[3] != 3):
            raise DataError(f"{path}: {split}_images: got volumes {shape}, want images (N, H, W) or (N, H, W, 3).")
        sides_fit = len(shape) in (3, 4) and all(1 <= side <= _MAX_SIDE_PX for side in shape[1:3])
        if not sides_fit or dtype != np.uint8 or shape[0] != count:
            raise DataError(
                f"{path}: {split}_images: got {dtype} {shape}, want uint8 ({count}, H, W[, 3]), "
                f"H and W at most {_MAX_SIDE_PX}."
            )
        for _ in range(count):
            yield np.frombuffer(_read_exactly(file, math.prod(shape[1:])), np.uint8).reshape(shape[1:])


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read an .npy header: shape and dtype. Arrays of objects are refused: they are pickles."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    if any(side < 0 for side in shape):
        raise ValueError(f"an array of shape {shape}")
    if dtype.hasobject or (fortran_order and len(shape) > 1 and shape[-1] > 1):
        raise ValueError(f"an array of {dtype} in {'Fortran' if fortran_order else 'C'} order is not read")
    return shape, dtype


def _read_exactly(file: Any, size: int) -> bytes:
    buffer = io.BytesIO()
    while size and (part := file.read(size)):
        buffer.write(part)
        size -= len(part)
    if size:
        raise EOFError("an array ends too early")
    return buffer.getvalue()
