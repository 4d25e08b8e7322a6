"""The process that watches server and runner, without either."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.processes import MOST_ENDS, Program
from flows.serve import HOST, free_port, main, only_service, run, settings
from tans_core.errors import ParamsError, TansError
from tests.factories.processes import alive, wait_until_gone
from tests.factories.service import wait


def test_port_in_use_is_refused_with_a_way_out() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ParamsError, match=f"port {port} .* --port {port + 1}"):
            free_port(port)
    assert free_port(port) == port


def test_port_zero_gives_a_free_one() -> None:
    assert 1024 <= free_port(0) <= 65535


@pytest.mark.parametrize("port", [-1, 65536])
def test_impossible_port_is_refused(port: int) -> None:
    with pytest.raises(ParamsError, match="want 0 to 65535"):
        free_port(port)


def test_folder_without_a_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        run(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_error_is_a_message_and_an_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.serve", "--root", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("ParamsError: ")
    assert "Traceback" not in done.stderr


def test_help_needs_no_prefect() -> None:
    code = "import sys, flows.serve; print('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0


def test_nothing_leaves_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    chosen = settings(tmp_path, 4300)
    assert chosen["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"
    assert chosen["DO_NOT_TRACK"] == "1"
    assert chosen["NO_PROXY"] == "example.org,127.0.0.1,localhost"


# A child that leaves an orphan, which ignores SIGTERM.
ORPHANS = """
import os, subprocess, sys
from pathlib import Path
from flows import processes
processes.STOP_TIMEOUT_S = 2.0
stubborn = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
parent = (
    "import subprocess, sys;"
    f"p = subprocess.Popen([sys.executable, '-c', {stubborn!r}], stdout=subprocess.PIPE, start_new_session=True);"
    "p.stdout.readline(); print(p.pid, flush=True)"
)
with processes.reaping() as programs:
    child = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    orphan = child.stdout.readline().strip()
    child.wait()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    sleeper = processes.Program("sleeper", command, Path("."), os.environ, lambda: True, Path(os.devnull))
    programs.append(sleeper)
    sleeper.start()
    print(orphan, sleeper.process.pid, flush=True)
    sys.stdin.readline()
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and prctl")


def orphanage() -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHANS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


@linux
def test_orphans_of_what_was_started_are_ended_too() -> None:
    process, pids = orphanage()
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    process.communicate("\n", timeout=30)
    assert process.returncode == 0
    assert all(wait_until_gone(pid) for pid in pids)


def test_program_that_ends_again_and_again_is_given_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit(4)"]
    program = Program("clock", command, tmp_path, os.environ, lambda: True, tmp_path / "log")

    def ended() -> bool:
        program.start()
        assert program.process is not None
        program.process.wait()
        return program.ended()

    assert all(ended() for _ in range(MOST_ENDS))
    with pytest.raises(TansError, match=r"the clock ended 6 times within 10 minutes, .* exit code 4; see .*log"):
        ended()


def test_halted_program_goes_on_afterwards(tmp_path: Path) -> None:
    program = Program("sleeper", ["sleep", "600"], tmp_path, os.environ, lambda: True, tmp_path / "log")
    program.start()
    assert program.process is not None
    process = psutil.Process(program.process.pid)
    try:
        with program.halted():
            assert wait(lambda: process.status() == psutil.STATUS_STOPPED, 10)
        assert wait(lambda: process.status() != psutil.STATUS_STOPPED, 10)
    finally:
        program.process.kill()
        program.process.wait()


def test_project_that_is_served_already_is_not_served_twice(tmp_path: Path) -> None:
    first, second = only_service(tmp_path, tmp_path), only_service(tmp_path, tmp_path)
    with first, pytest.raises(ParamsError, match="is served already"), second:
        pass
    with only_service(tmp_path, tmp_path):
        pass


@linux
def test_what_was_started_does_not_outlive_a_killed_watcher() -> None:
    process, (orphan, sleeper) = orphanage()
    try:
        process.kill()
        process.communicate(timeout=30)
        assert wait_until_gone(sleeper)
    finally:
        os.kill(orphan, signal.SIGKILL)
