"""Removes releases that nobody can need any more, and files of weights that no release has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tans_core.errors import StoreError
from tans_core.index.blobs import hold_lock, writers_lock
from tans_core.index.history import History, read_history
from tans_core.io import read_json, remove_whole, writing


@dataclass(frozen=True)
class Removal:
    """A file or folder that was removed, or would be.

    Attributes:
        kind: `release`, `weights`, or a kind of `tans_core.pruning`.
        path: its absolute path.
        size_bytes: what its removal frees. Weights that releases share are counted once, as `weights`.
    """

    kind: str
    path: Path
    size_bytes: int


def prune_releases(serving: Path, keep: int, before: datetime, dry_run: bool = False) -> list[Removal]:
    """Remove old releases, and stored weights that no release has, those of refused releases included.

    Kept are: the release in production; the `keep` releases that `rollback` would return to in turn; the `keep` that
    were in production last; those that were in production, or made, since `before`; and those that tell which
    newcomers were rolled back, since these newcomers stay out of production.

    Writers wait meanwhile. If this is interrupted, each release is still there whole or not at all, and the next call
    continues.

    Args:
        serving: the folder of releases.
        keep: a count, 0 or more.
        before: what was in production later is kept.
        dry_run: remove nothing.

    Returns:
        What was removed, or would be: releases, then weights.

    Raises:
        StoreError: the description of a release cannot be read, so its weights are not known. Nothing was removed.
    """
    if not serving.is_dir():
        return []
    with hold_lock(serving / ".lock") if dry_run else writers_lock(serving):
        described = _descriptions(serving)
        needed = _needed(read_history(serving), described, keep, before)
        used = {sha256 for name in needed for sha256 in described[name]["files"].values()}
        releases = [serving / "releases" / name for name in sorted(described.keys() - needed)]
        blobs = [path for path in sorted((serving / "blobs").glob("[!.]*")) if path.name not in used]
        removals = [
            *(Removal("release", folder, _own_size(folder)) for folder in releases),
            *(Removal("weights", blob, blob.stat().st_size) for blob in blobs),
        ]
        # Releases first: those that are left never lack a file.
        for removal in [] if dry_run else removals:
            with writing(removal.path):
                remove_whole(removal.path)
    return removals


def _descriptions(serving: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in (serving / "releases").glob("[!.]*/release.json"):
        try:
            content = read_json(path)
            if not all(isinstance(sha256, str) for sha256 in content["files"].values()):
                raise TypeError("files")
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise StoreError(
                f"{path}: cannot be read ({error}), so it is not known which weights the release has. Nothing was "
                "removed. Restore the file from a backup, or delete the folder of this release; then try again."
            ) from error
        found[path.parent.name] = content
    return found


def _needed(history: History, described: Mapping[str, Mapping[str, Any]], keep: int, before: datetime) -> set[str]:
    """Return the ids of the releases to keep."""
    backwards = [event.release for event in history.chain()]
    latest_first = [event.release for event in reversed(history.events)]
    needed = {release for pair in history.withdrawn_additions() for release in pair}
    for order in (backwards, latest_first):
        present = [name for name in dict.fromkeys(order) if name in described]
        needed |= set(present[: keep + 1])
    # A release was in production until the next event.
    until = dict(zip(latest_first[1:][::-1], (event.created for event in history.events[1:]), strict=True))
    for name, content in described.items():
        if _moment(until.get(name, str(content.get("created")))) >= before:
            needed.add(name)
    if history.live is not None:
        needed.add(history.live)
    return needed & described.keys()


def _moment(created: str) -> datetime:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _own_size(folder: Path) -> int:
    """Return the size of the files that no other folder shares, in bytes."""
    files = (Path(parent, name).lstat() for parent, _, names in os.walk(folder) for name in names)
    return sum(status.st_size for status in files if status.st_nlink == 1)
