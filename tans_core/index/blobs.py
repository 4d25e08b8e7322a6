"""Files of releases: stored once by content hash, written under one lock."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from tans_core.errors import StoreError, WeightsError
from tans_core.io import atomic_path, read_json, sha256_file, writing

LOCK_TIMEOUT_S = 120.0


def inside(relative: str) -> Path:
    """Return a relative path, checked to stay below the folder that it is joined to.

    Raises:
        WeightsError: the path is absolute, empty or leads outside.
    """
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in relative:
        raise WeightsError(f"weights {relative!r}: want a path below data/.")
    return Path(*path.parts)


def store_blob(serving: Path, source: Path) -> str:
    """Copy a file to `serving/blobs/<sha256>`, unless an intact copy is there, and return its SHA-256.

    Raises:
        StoreError: the file changed during the copy.
    """
    sha256 = sha256_file(source)
    blob = serving / "blobs" / sha256
    damaged = blob.is_file() and file_digest(blob) != sha256
    if damaged or not blob.is_file():
        with atomic_path(blob) as temporary:
            shutil.copyfile(source, temporary)
            if sha256_file(temporary) != sha256:
                raise StoreError(f"{source}: changed while it was copied. Run the command again.")
        # Releases share it, so it is read-only.
        blob.chmod(0o444)
    if damaged:
        # Hard links in releases share the damage.
        for description in (serving / "releases").glob("[!.]*/release.json"):
            for name, own in read_json(description)["files"].items():
                if own == sha256:
                    mend(serving, sha256, description.parent / name)
    return sha256


def file_digest(path: Path) -> str:
    """Return a file's SHA-256, cached until the file changes."""
    status = path.stat()
    return _digest(path, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=4096)
def _digest(path: Path, *_touched: int) -> str:
    return sha256_file(path)


def mend(serving: Path, sha256: str, target: Path) -> None:
    """Restore a release's file from the stored one if it was changed or removed."""
    if not target.is_file() or file_digest(target) != sha256:
        target.unlink(missing_ok=True)
        link_blob(serving, sha256, target)


def link_blob(serving: Path, sha256: str, target: Path) -> None:
    """Link a stored file into a release; copy it where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(serving / "blobs" / sha256, target)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Make a hard link, or a copy where there can be none."""
    try:
        os.link(source, target)
    except OSError:
        # No hard links here, or too many.
        shutil.copyfile(source, target)


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold a lock file; the operating system releases it when this process ends for any reason.

    Raises:
        StoreError: another process holds it for longer than `LOCK_TIMEOUT_S`, or the folder is not writable.
    """
    with contextlib.ExitStack() as stack:
        try:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(path, timeout=LOCK_TIMEOUT_S))
        except Timeout:
            raise StoreError(
                f"{path}: another process has held it for {LOCK_TIMEOUT_S:.0f} s. Try again later."
            ) from None
        yield


@contextlib.contextmanager
def writers_lock(serving: Path) -> Iterator[None]:
    """Hold the lock for writing releases."""
    with hold_lock(serving / ".lock"):
        # Unfinished files of a killed writer.
        for leftover in (serving / "releases").glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for pattern in (".*.tmp", "blobs/.*.tmp"):
            for leftover in serving.glob(pattern):
                leftover.unlink(missing_ok=True)
        yield
