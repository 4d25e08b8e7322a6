"""Programs that `tans serve` starts, watches, starts again, and ends with all that they started."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tans_core.errors import TansError
from tans_core.io import read_json, write_json

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 15.0
# A program that ends by itself more often than this is not started again.
MOST_ENDS, WITHIN_S = 5, 600.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

logger = logging.getLogger(__name__)


@dataclass
class Program:
    """A program that is started again when it ends by itself.

    Attributes:
        name: for messages.
        command: with arguments.
        folder: where it runs.
        environment: all its variables.
        ready: whether it is ready to be used.
        log: its output goes there, if it has one; messages name it.
        own_output: whether its output goes to this process's stderr instead.
    """

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    ready: Callable[[], bool]
    log: Path
    own_output: bool = False
    process: subprocess.Popen[bytes] | None = None
    _ends: deque[float] = field(default_factory=deque)

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            TansError: it ended, or was not ready in time.
        """
        with self.log.open("a", encoding="utf-8") as output:
            # In its own session: Ctrl-C reaches only this process, which ends the others in order.
            self.process = subprocess.Popen(
                list(self.command),
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=None if self.own_output else output,
                stderr=None if self.own_output else subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.ready():
            if self.process.poll() is not None:
                raise TansError(f"the {self.name} ended with exit code {self.process.returncode}; see {self.log}.")
            if time.monotonic() > deadline:
                raise TansError(f"the {self.name} was not ready within {START_TIMEOUT_S:.0f} s; see {self.log}.")
            time.sleep(0.2)

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """Stop its process in this block (SIGSTOP): it does not see what happens meanwhile."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def ended(self) -> bool:
        """Return whether it ended by itself; the end is logged and counted.

        Raises:
            TansError: it ends too often.
        """
        assert self.process is not None
        if self.process.poll() is None:
            return False
        now = time.monotonic()
        self._ends.append(now)
        while self._ends[0] < now - WITHIN_S:
            self._ends.popleft()
        code = self.process.returncode
        if len(self._ends) > MOST_ENDS:
            raise TansError(
                f"the {self.name} ended {len(self._ends)} times within {WITHIN_S / 60:.0f} minutes, the last time with "
                f"exit code {code}; see {self.log}."
            )
        logger.warning("the %s ended with exit code %s: starting it again", self.name, code)
        return True


def note(file: Path, url: str, programs: Sequence[Program]) -> None:
    """Write down which processes serve the project."""
    started = [(one.name, one.process.pid) for one in programs if one.process is not None]
    processes = []
    for name, pid in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append({"name": name, "pid": pid, "created": psutil.Process(pid).create_time()})
    write_json({"url": url, "pid": os.getpid(), "processes": processes}, file)


def end_noted(file: Path) -> None:
    """End the processes that an earlier service wrote down and did not end, as when it was killed."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        for noted in read_json(file)["processes"]:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(noted["pid"])
                # A process id is used again, with another time.
                if process.create_time() == noted["created"]:
                    logger.warning("ending the %s that an earlier service left (%s)", noted["name"], process.pid)
                    process.kill()
                    process.wait(STOP_TIMEOUT_S)


@contextlib.contextmanager
def reaping() -> Iterator[list[Program]]:
    """Yield a list for programs. On exit, end them and all their descendants, the last started first."""
    # Runs are children of the runner. If it dies first, they become children of this process, not of init.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    programs: list[Program] = []
    try:
        yield programs
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for program in reversed(programs):
            if program.process is not None:
                end(program.process.pid)
        # Processes that outlived their parents.
        while orphans := children():
            for child in orphans:
                end(child, grace_s=5.0)


def children() -> list[int]:
    """Return the ids of this process's running children; those that ended are reaped."""
    running = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                process.wait()
            else:
                running.append(process.pid)
    return running


def end(pid: int, grace_s: float = STOP_TIMEOUT_S) -> None:
    """Ask a child to end; after `grace_s` kill it and its process group."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(grace_s)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    # If this process is killed, the server must not keep the port, nor the runner go on.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
