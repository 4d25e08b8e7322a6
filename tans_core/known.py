"""Images that the zoo was trained on: an accuracy that is measured on them says nothing of new ones."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tans_core.errors import DataError, StoreError
from tans_core.io import atomic_path
from tans_core.project import task_infos

_BYTES = 16
# Fewer are chance: a white picture is in many data sets.
_LEAST, _LEAST_SHARE = 3, 0.01


def known_images(root: Path, digests: Sequence[bytes]) -> dict[str, int]:
    """Return, by meta-train task of the project, how many images are its own; tasks of next to none are left out.

    Args:
        root: the project's folder.
        digests: hashes of the images' pixels, at the size that they are kept at (`SquareImages.digests`).
    """
    short = [digest[:_BYTES] for digest in digests]
    names = [info.name for info in task_infos(root) if info.role == "meta-train"]
    counts = {name: sum(map(_digests(root, name).__contains__, short)) for name in names}
    least = max(_LEAST, _LEAST_SHARE * len(short))
    return {name: number for name, number in counts.items() if number >= least}


def say_known(known: Mapping[str, int], images: int) -> str:
    """Return a sentence about images that are known."""
    tasks = ", ".join(f"{number:,} of the task {name!r}" for name, number in known.items())
    return f"The zoo was trained on images of these {images:,}: {tasks}. What is measured on them is too good: test on others."


def _digests(root: Path, name: str) -> set[bytes]:
    """Return the hashes of a task's images; kept, since reading all of them takes a second or so."""
    from tans_core.tasks.task import read_task

    folder = root / "data/tasks" / name
    try:
        status = (folder / "images.parquet").stat()
        kept = root / ".resume/known" / f"{name}-{status.st_size}-{status.st_mtime_ns}"
        if not kept.is_file():
            found = b"".join(digest[:_BYTES] for digest in read_task(folder).images.digests)
            with contextlib.suppress(StoreError), atomic_path(kept, sync=False) as temporary:
                temporary.write_bytes(found)
        else:
            found = kept.read_bytes()
    except (OSError, ValueError, DataError):  # gone, or damaged: the build says so
        return set()
    return {found[start : start + _BYTES] for start in range(0, len(found), _BYTES)}
