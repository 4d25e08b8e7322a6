"""Hashes of the images of all meta-train tasks. The stage `embed` writes them; a request compares its images with them.

Axes: N images of a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tans_core.errors import StoreError
from tans_core.io import atomic_path
from tans_core.tasks.task import Task

FILE = "task_images.safetensors"
_BYTES = 16

Hashes = npt.NDArray[np.uint8]


def hashes_of(digests: Sequence[bytes]) -> Hashes:
    """Return the hashes (N, 16) of images by their digests (`SquareImages.digests`)."""
    return np.frombuffer(b"".join(digest[:_BYTES] for digest in digests), dtype=np.uint8).reshape(-1, _BYTES)


def noting(tasks: Iterable[Task], noted: dict[str, Hashes]) -> Iterator[Task]:
    """Pass tasks on, one in memory at a time, and note the hashes of their images by name."""
    for task in tasks:
        noted[task.info.name] = hashes_of(task.images.digests)
        yield task


def write_hashes(hashes: Mapping[str, Hashes], store: Path) -> None:
    """Write them; the same images give the same bytes."""
    store.mkdir(parents=True, exist_ok=True)
    with atomic_path(store / FILE) as temporary:
        save_file(dict(sorted(hashes.items())), temporary)


def read_hashes(store: Path) -> dict[str, Hashes]:
    """Read the hashes by task.

    Raises:
        StoreError: the file is missing, as after a build by an older TANS, or damaged.
    """
    try:
        return dict(load_file(store / FILE))
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{store / FILE}: not readable ({error}). Run `tans build`.") from error


def count_in(hashes: Hashes, others: Hashes) -> int:
    """Return how many of the images are among the others."""
    one, other = (np.ascontiguousarray(some).view(f"V{_BYTES}").ravel().tolist() for some in (hashes, others))
    return sum(map(set(other).__contains__, one))
