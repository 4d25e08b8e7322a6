"""Frees disk space: old releases, runs, reports, and checkpoints that nothing continues from."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tans_core.errors import ParamsError
from tans_core.io import read_json, remove_whole, writing
from tans_core.project import find_root
from tans_core.reporting import FINAL

if TYPE_CHECKING:
    from tans_core.index.prune import Removal

KEEP, DAYS = 5, 30
FOLDERS = ("serving", "runs", "reports", "quarantine", ".resume")

_RUN = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-(?P<kind>[a-z]+)-[0-9a-f]{6}")
_FRESH = timedelta(hours=1)
"""Whatever changed since may be in use."""
# Results of finished work, which later builds read, and a folder that belongs to the lock of the inbox.
_IN_USE = {"transfer", "features", "known", "admission", "benchmark", "ablate", "bench-transfer"}
_DIVIDED = {"scan", "base", "zoo", "jobs"}


@dataclass(frozen=True)
class Pruning:
    """The result of a prune.

    Attributes:
        removed: what was removed, or would be by a dry run.
        before_bytes: size of each folder of `FOLDERS` before; shared files are counted once.
        after_bytes: the same after it; of a dry run, as it would be.
        dry_run: nothing was removed.
    """

    removed: tuple[Removal, ...]
    before_bytes: Mapping[str, int]
    after_bytes: Mapping[str, int]
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `tans prune --json` prints them."""
        removed = [{**asdict(one), "path": str(one.path)} for one in self.removed]
        sizes = {"before_bytes": dict(self.before_bytes), "after_bytes": dict(self.after_bytes)}
        return {"dry_run": self.dry_run, "removed": removed, **sizes}


def prune(
    root: str | Path | None = None,
    *,
    keep: int = KEEP,
    days: int = DAYS,
    finetuned: bool = False,
    quarantine: bool = False,
    dry_run: bool = False,
) -> Pruning:
    """Remove what is old and not needed any more. What serves, and what a rollback returns to, stays.

    Removed are releases (`keep` and `days`), stored weights that no release has, and, if they have not changed for
    `days`: runs of scans and retrievals, the reports of newcomers and of comparisons, checkpoints of killed stages,
    and jobs of `tans api` that have ended. It may run beside a service, a build and a publish. If it is interrupted,
    the next call continues.

    Args:
        root: the project's folder; None takes the nearest one that holds params.yaml, from here upwards.
        keep: how many releases before the one in production can still be returned to.
        days: what is younger is kept; 0 keeps no release for its age. The rest is always kept for an hour.
        finetuned: also remove old runs of fine-tunings: their weights are nowhere else.
        quarantine: also remove what has been in quarantine for `days`.
        dry_run: remove nothing.

    Raises:
        ParamsError: `keep` or `days` is below 0.
        StoreError: a release cannot be read, or a folder is not writable.
    """
    from tans_core.index.prune import Removal, prune_releases

    for name, value in (("keep", keep), ("days", days)):
        if value < 0:
            raise ParamsError(f"{name}: got {value}, want 0 or more.")
    project, now = find_root(root), datetime.now(UTC)
    age = timedelta(days=days)
    sizes = {name: _size(project / name) for name in FOLDERS}
    removed = prune_releases(project / "serving", keep, now - age, dry_run)
    unchanged_since = (now - max(age, _FRESH)).timestamp()
    for kind, path in _candidates(project, finetuned, quarantine):
        if _changed(path) < unchanged_since:
            removed.append(Removal(kind, path, _size(path)))
            if not dry_run:
                with writing(path):
                    remove_whole(path)
    if not dry_run:
        _sweep(project)
        return Pruning(tuple(removed), sizes, {name: _size(project / name) for name in FOLDERS}, dry_run)
    left = dict(sizes)
    for one in removed:
        left[one.path.relative_to(project).parts[0]] -= one.size_bytes
    return Pruning(tuple(removed), sizes, left, dry_run)


def _candidates(root: Path, finetuned: bool, quarantine: bool) -> Iterator[tuple[str, Path]]:
    """Yield kind and path of everything that may be removed once it is old."""
    for path in sorted((root / "runs").glob("*/")):
        match = _RUN.fullmatch(path.name)
        if match and (finetuned or match["kind"] != "finetune"):
            yield "run", path
    for pattern in ("gates/arrival-*", "releases/*.png"):
        yield from (("report", path) for path in sorted((root / "reports").glob(pattern)))
    if quarantine:
        yield from (("quarantine", path) for path in sorted((root / "quarantine").glob("[!.]*/")))
    for path in sorted((root / ".resume").glob("[!.]*/")):
        if path.name not in _IN_USE:
            parts = sorted(path.glob("[!.]*/")) if path.name in _DIVIDED else [path]
            yield from (("resume", part) for part in parts if path.name != "jobs" or _has_ended(part))


def _has_ended(job: Path) -> bool:
    try:
        return read_json(job / "job.json")["state"] in FINAL
    except (OSError, ValueError, LookupError, TypeError):  # a service of another version may know it
        return False


def _changed(path: Path) -> float:
    """Return when a file, or anything in a folder, last changed, in seconds since 1970."""
    moments = []
    for one in (path, *_below(path)):
        try:
            moments.append(one.lstat().st_mtime)
        except FileNotFoundError:  # its owner just removed it: it is in use
            moments.append(time.time())
    return max(moments)


def _size(path: Path) -> int:
    """Return the size of a file, or of all files of a folder, in bytes; hard links to one file count once."""
    files = {}
    for one in (path, *_below(path)):
        try:
            status = one.lstat()
        except OSError:
            continue
        if not one.is_dir() or one.is_symlink():
            files[status.st_dev, status.st_ino] = status.st_size
    return sum(files.values())


def _below(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder; links are not followed."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *names))


def _sweep(root: Path) -> None:
    """Remove what an interrupted prune left."""
    for pattern in ("runs/.*.removed", "quarantine/.*.removed", ".resume/.*.removed", ".resume/*/.*.removed"):
        for leftover in root.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)
