"""Processes that a test starts: none beside it, whether they still run (from /proc), and one stopped during a scan."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Let this process and those that it starts use one core: stages then work in this process.

    Each process that a stage starts beside it imports torch for seconds, longer than the work of a small project.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    # Each process of pytest-xdist (gw0, gw1, ...) takes another one.
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(before)[number % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def alive(pid: int) -> bool:
    """A zombie that nobody has waited for is not alive."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until_gone(pid: int, limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


@contextlib.contextmanager
def halted_scan(command: Sequence[str], project: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a scan in a process group of its own, and stop it (SIGSTOP) when it has read some of the files and not all.

    On exit, its remaining processes are killed. If the scan ends before it is stopped (slow machine), it starts again.
    """
    kept = project / ".resume/scan"
    for _ in range(10):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as program:
            try:
                while program.poll() is None and not list(kept.glob("*/*.arrow")):
                    time.sleep(0.005)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGSTOP)
                # A finished scan deletes its checkpoints.
                if program.poll() is None and list(kept.glob("*/*.arrow")):
                    yield program
                    return
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)
        shutil.rmtree(project / "runs", ignore_errors=True)
    raise AssertionError("the scan was through before it could be stopped")
