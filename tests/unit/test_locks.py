"""Locks of the pipeline and the inbox: who waits says for whom, a killed holder frees it, only one run waits."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tans_core.locks import inbox_lock, is_building, pipeline_lock

HOLDER = """
import sys, time
from pathlib import Path
from tans_core.locks import pipeline_lock
with pipeline_lock(Path(sys.argv[1]), "the flow `retrain`", lambda line: print(line, flush=True)):
    print("held", flush=True)
    time.sleep(60)
"""


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True)


def test_killed_holder_frees_the_lock_and_a_waiting_one_ends_at_once(tmp_path: Path) -> None:
    holder = start(tmp_path)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert is_building(tmp_path)
    waiting = start(tmp_path)
    assert waiting.stdout is not None
    said = waiting.stdout.readline()
    assert said.startswith(f"waiting for the flow `retrain` (pid {holder.pid}, since 20")
    assert str(tmp_path / ".resume/repro.lock") in said
    started = time.monotonic()
    waiting.send_signal(signal.SIGTERM)
    waiting.communicate(timeout=30)
    assert time.monotonic() - started < 5
    holder.kill()
    holder.communicate(timeout=30)
    lines: list[str] = []
    with pipeline_lock(tmp_path, "`tans build`", lines.append) as is_held:
        assert is_held
    assert lines == [] and not is_building(tmp_path)


@pytest.mark.parametrize("lock", [pipeline_lock, inbox_lock])
def test_one_run_waits_and_the_others_join_it(lock: Callable[..., Any], tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def wait() -> None:
        def said(line: str) -> None:
            order.append(line)
            waits.set()

        with lock(tmp_path, "second", said, join=True) as is_held:
            assert is_held
            order.append("second works")

    with lock(tmp_path, "first", join=True):
        # The same thread may enter it again, as a flow that calls `tans build` does.
        with lock(tmp_path, "inner"):
            pass
        second = threading.Thread(target=wait)
        second.start()
        assert waits.wait(30)
        with lock(tmp_path, "third", join=True) as is_held:
            assert not is_held
        order.append("first ends")
    second.join(30)
    assert [line.split(" (")[0] for line in order] == ["waiting for first", "first ends", "second works"]
