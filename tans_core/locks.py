"""Locks of a project: files that the operating system unlocks when their process ends, for whatever reason.

Who waits says for whom: beside each lock, `<lock>.holder` names the work and the process that hold it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from tans_core.io import writing

logger = logging.getLogger(__name__)
PIPELINE = ".resume/repro.lock"
INBOX = "inbox/.lock"
_NEXT, _NEXT_IF_NEEDED, _NEXT_REFRESH = (f".resume/{name}.next.lock" for name in ("repro", "retrain", "refresh"))
_POLL_S = 0.1


@contextlib.contextmanager
def pipeline_lock(
    root: Path,
    work: str,
    on_wait: Callable[[str], None] = logger.warning,
    *,
    join: bool = False,
    may_skip: bool = False,
) -> Iterator[bool]:
    """Hold the lock of a project's pipeline: of what changes data/ and metrics/, or publishes them.

    A thread that holds it may enter it again. Waiting can be interrupted by a signal at any time.

    Args:
        root: the project's folder.
        work: who holds it, for those who wait.
        on_wait: called with a line for each holder that is waited for.
        join: do not wait if another one with `join` and the same `may_skip` waits already.
        may_skip: it may find nothing to do, so who must work does not join it.

    Yields:
        Whether the lock is held: False if another one waits, which will do the same work.

    Raises:
        StoreError: the folder is not writable.
    """
    first_in_line = root / (_NEXT_IF_NEEDED if may_skip else _NEXT)
    with _hold_or_join(root / PIPELINE, first_in_line, work, on_wait, join) as is_held:
        yield is_held


@contextlib.contextmanager
def inbox_lock(
    root: Path, work: str, on_wait: Callable[[str], None] = logger.warning, *, join: bool = False
) -> Iterator[bool]:
    """Hold the lock of a project's inbox: of what admits newcomers, hands them in or takes them in.

    Arguments, what it yields, and errors are those of `pipeline_lock`.
    """
    with _hold_or_join(root / INBOX, root / _NEXT_REFRESH, work, on_wait, join) as is_held:
        yield is_held


@contextlib.contextmanager
def _hold_or_join(
    path: Path, first_in_line: Path, work: str, on_wait: Callable[[str], None], join: bool
) -> Iterator[bool]:
    """Hold a lock, or yield False if `join` and another one with `join` waits for it already."""
    line = _lock(first_in_line)
    if join and not _acquired(line, 0):
        yield False
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(path, work, on_wait))
        finally:
            line.release()
        yield True


def is_building(root: Path) -> bool:
    """Return whether a process holds the lock of the project's pipeline."""
    # The other lock is not tried: whoever asks for it in that moment would take this call for one that waits.
    lock = _lock(root / PIPELINE)
    is_held = not _acquired(lock, 0)
    if not is_held:
        lock.release()
    return is_held


@contextlib.contextmanager
def hold(path: Path, work: str, on_wait: Callable[[str], None] = logger.warning) -> Iterator[None]:
    """Hold a lock file. A thread that holds it may enter it again.

    Args:
        path: of the lock.
        work: who holds it, for those who wait.
        on_wait: called with a line for each holder that is waited for.

    Raises:
        StoreError: the folder is not writable.
    """
    lock, note = _lock(path), path.with_name(f"{path.name}.holder")
    entered = lock.is_locked
    wait_s: float = 0
    told: str | None = None
    while not _acquired(lock, wait_s):
        holder = _read(note)
        # Whoever got the lock this moment has not yet said so.
        if holder != told and (holder or wait_s):
            on_wait(f"waiting for {holder or 'another process'}, which holds {path}")
            told = holder
        wait_s = 1.0
    try:
        if not entered:
            moment = datetime.now(UTC).isoformat(timespec="seconds")
            with contextlib.suppress(OSError):  # it only serves those who wait
                note.write_text(json.dumps({"work": work, "pid": os.getpid(), "since": moment}), encoding="utf-8")
        yield
    finally:
        if not entered:
            note.unlink(missing_ok=True)
        lock.release()


def _lock(path: Path) -> FileLock:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, is_singleton=True)


def _acquired(lock: FileLock, wait_s: float) -> bool:
    with writing(Path(lock.lock_file)):
        try:
            lock.acquire(timeout=wait_s, poll_interval=_POLL_S)
        except Timeout:
            return False
    return True


def _read(note: Path) -> str:
    """Return who holds a lock, in words; empty if that is not known."""
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        return f"{holder['work']} (pid {holder['pid']}, since {holder['since']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""
