"""Images that the zoo was trained on: an accuracy measured on them does not hold for new images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tans_core.errors import StoreError

if TYPE_CHECKING:
    from tans_core.tasks.task import Task

logger = logging.getLogger(__name__)

# Fewer may be chance: a white picture is in many data sets.
_LEAST, _LEAST_SHARE = 3, 0.01


def known_images(root: Path, digests: Sequence[bytes]) -> dict[str, int]:
    """Return, by meta-train task of the project, how many of the images are in it; tasks with very few are left out.

    The stage `embed` wrote the hashes of the tasks' images. If they are missing where there are tasks, a warning says
    so.

    Args:
        root: the project's folder.
        digests: hashes of the images' pixels, at their stored size (`SquareImages.digests`).
    """
    from tans_core.embeddings.images import count_in, hashes_of, read_hashes

    try:
        tasks = read_hashes(root / "data/store")
    except StoreError as error:
        if (root / "data/tasks").is_dir():
            logger.warning("whether the zoo was trained on these images is unknown: %s", error)
        return {}
    images = hashes_of(digests)
    counts = {name: count_in(images, hashes) for name, hashes in tasks.items()}
    least = max(_LEAST, _LEAST_SHARE * len(images))
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
