"""Images that the zoo was trained on: an accuracy measured on them does not hold for new images."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tans_core.errors import DataError, StoreError
from tans_core.io import atomic_path
from tans_core.project import task_infos

if TYPE_CHECKING:
    from tans_core.tasks.task import Task

_BYTES = 16
# Fewer may be chance: a white picture is in many data sets.
_LEAST, _LEAST_SHARE = 3, 0.01


def known_images(root: Path, digests: Sequence[bytes]) -> dict[str, int]:
    """Return, by meta-train task of the project, how many of the images are in it; tasks with very few are left out.

    Args:
        root: the project's folder.
        digests: hashes of the images' pixels, at their stored size (`SquareImages.digests`).
    """
    short = [digest[:_BYTES] for digest in digests]
    names = [info.name for info in task_infos(root) if info.role == "meta-train"]
    counts = {name: sum(map(_digests(root, name).__contains__, short)) for name in names}
    least = max(_LEAST, _LEAST_SHARE * len(short))
    return {name: number for name, number in counts.items() if number >= least}


def known_of(root: Path, task: Task) -> dict[str, int]:
    """Do as `known_images`, for a task. Those of the project need no search: unseen ones have sources of their own."""
    if task.info.role == "user":
        return known_images(root, task.images.digests)
    return {task.info.name: len(task.labels)} if task.info.role == "meta-train" else {}


def say_known(known: Mapping[str, int], images: int, measured: str = "accuracy on them") -> str:
    """Return a warning about images that the zoo was trained on; `measured` is what is too high because of it."""
    tasks = ", ".join(f"{number:,} are in the task {name!r}" for name, number in known.items())
    return (
        f"The zoo was trained on images of this data set: of {images:,}, {tasks}. So {measured} is too high: test on "
        "other images."
    )


def _digests(root: Path, name: str) -> set[bytes]:
    """Return the hashes of a task's images; cached on disk, since reading the images takes about a second."""
    from tans_core.tasks.task import read_task

    folder = root / "data/tasks" / name
    try:
        status = (folder / "images.parquet").stat()
        cache = root / ".resume/known" / f"{name}-{status.st_size}-{status.st_mtime_ns}"
        if not cache.is_file():
            hashes = b"".join(digest[:_BYTES] for digest in read_task(folder).images.digests)
            with contextlib.suppress(StoreError), atomic_path(cache, sync=False) as temporary:
                temporary.write_bytes(hashes)
        else:
            hashes = cache.read_bytes()
    except (OSError, ValueError, DataError):  # the task is missing or damaged: the build reports it
        return set()
    return {hashes[start : start + _BYTES] for start in range(0, len(hashes), _BYTES)}
