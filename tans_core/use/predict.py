"""Predicts the classes of images, read by the same road as the training's: one decoder, one stored size, one scaling.

Axes: n images of a batch, K classes, s = an image's stored side, S = side of the input, in pixels.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tans_core.errors import DataError, ParamsError
from tans_core.networks.preprocess import EVAL_BATCH, Preprocess
from tans_core.runtime import cores, keep_freed_memory
from tans_core.tasks.chunks import Chunks, square
from tans_core.tasks.decode import UnreadableImageError, decode, fit, planes
from tans_core.tasks.pixels import Pixels, SquareImages
from tans_core.tasks.task import SPLITS
from tans_core.use.images import list_images
from tans_core.use.model import IMAGES_FILE, TunedModel
from tans_core.use.predictions import Predictions

_ELSEWHERE = "not of this split of the run's images"
_SHOWN = 3


def predict(model: TunedModel, path: Path, split: str | None = None, workers: int | None = None) -> Predictions:
    """Predict the class of every image of a path. Images that cannot be read are rows with an error.

    Args:
        model: of a run.
        path: an image file; a folder or archive of any layout; a CSV of paths; Parquet with images; with labels or
            without (`tans_core.use.images`).
        split: `train`, `val` or `test`: only the images that were in this split of the run, recognised by their
            pixels, each once.
        workers: number of jobs decoded at a time; None for one a core.

    Raises:
        ParamsError: no such split, or the run does not tell its splits.
        DataError: the path cannot be read, or none of its images; ArchiveError: the archive is refused.
    """
    keep_freed_memory()
    wanted = _labels_of_split(model, split) if split is not None else None
    source = list_images(path, frozenset(model.class_names))
    names: list[str] = []
    errors: list[str | None] = []
    truths: list[str | None] = []
    rows: list[int] = []
    batch: list[Pixels] = []
    answers: list[npt.NDArray[np.float32]] = []
    skipped = Counter(source.skipped)

    def add(name: str, error: str | None, truth: str | None) -> None:
        names.append(name)
        errors.append(error)
        truths.append(truth if truth in model.class_names else None)

    chunks = Chunks(source.entries, model.card.stored_size_px, None)
    for entries, table in chunks.stream(source, cores() if workers is None else workers):
        reasons, pixels = table["reason"].to_pylist(), table["pixels"]
        for position, (entry, reason) in enumerate(zip(entries, reasons, strict=True)):
            if reason is not None:
                add(entry.name, reason, entry.label)
                continue
            image, truth = square(pixels[position]), entry.label
            if wanted is not None:
                of_split = wanted.get(_digest(image))
                if not of_split:
                    skipped[_ELSEWHERE] += 1
                    continue
                truth = of_split.pop()
            rows.append(len(names))
            add(entry.name, None, truth)
            batch.append(np.array(image))  # a copy: the chunk is freed
            if len(batch) == EVAL_BATCH:
                answers.append(_answer(model, batch))
                batch = []
    if batch:
        answers.append(_answer(model, batch))
    for name, reason in source.bad:
        add(name, reason, None)
    if not rows:
        raise _nothing(path, list(zip(names, errors, strict=True)), skipped, split)
    probabilities = np.full((len(names), len(model.class_names)), np.nan, dtype=np.float32)
    probabilities[rows] = np.concatenate(answers)
    missing = sum(map(len, wanted.values())) if wanted is not None else 0
    return Predictions(model.class_names, names, errors, truths, probabilities, dict(+skipped), missing)


def read_inputs(model: TunedModel, path: Path, most: int) -> Tensor:
    """Return the first readable images of a path as the network sees them: (n, 3, S, S) uint8 on the CPU, n <= `most`.

    Raises:
        DataError: the path cannot be read, or none of its images.
    """
    source = list_images(path)
    images: list[Pixels] = []
    chunks = Chunks(source.entries[:most], model.card.stored_size_px, None)
    for _, table in chunks.stream(source, cores()):
        usable = [reason is None for reason in table["reason"].to_pylist()]
        images += [np.array(square(table["pixels"][row])) for row in np.flatnonzero(usable).tolist()]
    if not images:
        raise _nothing(path, [], Counter(source.skipped), None)
    return torch.from_numpy(SquareImages.of(images).at(*model.preprocess.form).copy())


def prepare(picture: Image.Image | bytes, stored_size_px: int, preprocess: Preprocess) -> Tensor:
    """Return a picture as a network sees it: (3, S, S) uint8; see `TunedModel.prepare`."""
    try:
        image = picture.convert("RGB") if isinstance(picture, Image.Image) else decode(picture).image
    except UnreadableImageError as error:
        raise DataError(f"picture: {error}. Want the content of an image file, such as JPEG or PNG.") from error
    return torch.from_numpy(SquareImages.of([planes(fit(image, stored_size_px))]).at(*preprocess.form)[0].copy())


def _answer(model: TunedModel, batch: list[Pixels]) -> npt.NDArray[np.float32]:
    images = torch.from_numpy(SquareImages.of(batch).at(*model.preprocess.form))
    with torch.inference_mode():
        answers: npt.NDArray[np.float32] = model.probabilities(images.to(model.device)).cpu().numpy()
    return answers


def _digest(image: Pixels) -> str:
    return SquareImages.of([image]).digests[0].hex()


def _labels_of_split(model: TunedModel, split: str) -> dict[str, list[str]]:
    """Return the labels of a split's images, by the hash of their stored pixels."""
    if split not in SPLITS:
        raise ParamsError(f"split: got {split!r}, want one of {', '.join(SPLITS)}.")
    path = model.folder / IMAGES_FILE
    if not path.is_file():
        raise ParamsError(f"{path}: no such file; it tells which images were in which split. Leave out --split.")
    labels: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                labels[row["pixels"]].append(row["label"])
    return labels


def _nothing(path: Path, bad: list[tuple[str, Any]], skipped: Counter[str], split: str | None) -> DataError:
    reasons = [f"{name}: {error}" for name, error in bad[:_SHOWN]]
    reasons += [f"{count:,} x {reason}" for reason, count in skipped.items()]
    said = "; ".join(reasons) or "no file with an image"
    what = f"no image of the run's {split} split" if split else "no image that can be read"
    return DataError(f"{path}: {what}: {said}. Want an image, or a folder, an archive or a table of them.")
