"""Run a program that ends when its parent process ends, for whatever reason.

A killed `dvc repro` leaves its stage running. The stage would then write to the same files as the next run.

    python -m tans_core.leash PROGRAM ARGUMENTS…
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Let the kernel kill this process when its parent ends. Only on Linux; elsewhere nothing happens.

    Args:
        parent: the parent's process id, if this process may have lost it before this call.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the setting took effect
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  the kernel keeps the setting over an exec
