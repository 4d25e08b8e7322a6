"""Build one task of params.yaml from its source."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tans_core.classes import require_classes
from tans_core.errors import DataError
from tans_core.runtime import derive_seed
from tans_core.sources import get_source
from tans_core.sources.base import Sample, stated_licence
from tans_core.tasks.assemble import assemble
from tans_core.tasks.decode import fit_box
from tans_core.tasks.duplicates import contradictory, find_copies
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.splits import Splittable, plan_splits
from tans_core.tasks.task import SPLITS, Role, Task

logger = logging.getLogger(__name__)

_CHUNK = 256


@dataclass(frozen=True)
class Prepared:
    """A sample at its stored size; `image` is (3, s, s) uint8, `content` a hash of what it was made from."""

    image: npt.NDArray[np.uint8]
    label: str
    group: str
    path: str
    split: str | None
    content: str
    width: int
    height: int


def prepare(sample: Sample, stored_size_px: int) -> Prepared:
    """Bring a sample to its stored size and hash its content."""
    height, width = sample.image.shape[:2]
    content = sample.sha256
    if content is None:
        pixels = np.ascontiguousarray(sample.image)
        content = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    image = fit_box(sample.image, stored_size_px)
    return Prepared(image, sample.label, sample.group, sample.path, sample.split, content, width, height)


def build_task(
    name: str,
    source: str,
    options: Mapping[str, Any],
    role: Role,
    *,
    stored_size_px: int,
    max_train: int,
    max_val: int,
    max_test: int,
    min_images_per_class: int,
    seed: int,
    workers: int = 0,
) -> Task:
    """Read a source, scale its images to their stored size, split them, and limit the size of each split.

    Args:
        name: the task's name. It enters the seed, so two tasks of one source differ.
        source: a key of `tans_core.sources.SOURCES`.
        options: the source's own options.
        role: "meta-train" or "meta-test".
        stored_size_px: the largest side of the square images that are kept; smaller ones keep their size.
        max_train: the most images of the train split; likewise `max_val`, `max_test`.
        min_images_per_class: a class with fewer images is refused.
        seed: the same seed gives the same bytes, whatever `workers` is.
        workers: threads that scale images; 0 for none.

    Raises:
        ParamsError: the source or one of its options is unknown.
        SourceUnavailableError: the source's package is not installed.
        DataError: a class has too few images, or none in one of the splits.
    """
    origin = get_source(source)
    task_seed = derive_seed(seed, "task", name)
    samples = origin.load(options, task_seed)
    prepared = list(_prepare_all(samples, stored_size_px, workers))
    kept, _ = contradictory(prepared, [image.content for image in prepared])
    consistent = [prepared[index] for index in kept]
    rows = [consistent[index] for index in find_copies(consistent).kept]
    if len(rows) < len(prepared):
        logger.info(
            "%s: left out %d images, %d of them under two labels",
            name,
            len(prepared) - len(rows),
            len(prepared) - len(kept),
        )
    task = assemble(
        rows,
        planned(name, rows, min_images_per_class, task_seed),
        lambda chosen: SquareImages.of(rows[index].image for index in chosen),
        name=name,
        source=origin.name,
        licence=stated_licence(origin, options),
        role=role,
        stored_size_px=stored_size_px,
        limits=(max_train, max_val, max_test),
        seed=task_seed,
    )
    check_coverage(task)
    return task


def planned(name: str, rows: Sequence[Splittable], min_images_per_class: int, seed: int) -> npt.NDArray[np.str_]:
    """Return the split of each row of a task, (N,).

    Raises:
        NoClassesError: there are fewer than two classes.
        TooFewImagesError: a class has too few images.
        DataError: the source's own splits lack train, or have other names.
    """
    require_classes(f"task {name!r}", Counter(row.label for row in rows), min_images_per_class)
    splits = plan_splits(rows, seed)
    if not {"train"} <= {*splits.tolist()} <= {*SPLITS}:
        got = sorted({*splits.tolist()})
        raise DataError(f"task {name!r}: its source puts images in splits {got}; want train and test, or none.")
    return splits


def _prepare_all(samples: Iterator[Sample], stored_size_px: int, workers: int) -> Iterator[Prepared]:
    if workers == 0:
        for sample in samples:
            yield prepare(sample, stored_size_px)
        return
    # Pillow and hashlib release the interpreter's lock. Chunks limit how many full-size images are in memory.
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(itertools.islice(samples, _CHUNK)):
            yield from pool.map(lambda sample: prepare(sample, stored_size_px), chunk)


def check_coverage(task: Task) -> None:
    """Raise DataError unless each split has an image of every class."""
    for split in SPLITS:
        counts = Counter(task.labels[task.where(split)].tolist())
        missing = [name for index, name in enumerate(task.info.class_names) if counts[index] == 0]
        if missing:
            raise DataError(
                f"task {task.info.name!r}: no {split} image for {len(missing)} of {task.info.num_classes} classes: "
                f"{', '.join(missing[:8])}. They have too few groups for all splits. Leave them out, or add groups."
            )
