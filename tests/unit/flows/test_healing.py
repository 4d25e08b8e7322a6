"""Which processes belong to a run, and which of an earlier service are ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.common import RUNNER
from flows.healing import FLOW_RUN, PROJECT, processes_of_runs
from flows.processes import Program, end_noted, note
from tans_core.io import read_json, write_json
from tests.factories.processes import alive, wait_until_gone

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
PARENT = f"import subprocess; subprocess.run({SLEEP!r})"


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def sleeper(command: list[str], **variables: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def test_processes_are_found_by_run_and_only_those_of_the_project(
    sleepers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    mine = {PROJECT: str(tmp_path), FLOW_RUN: "one"}
    # A run whose program has the same environment; a run of another project; a program outside of runs.
    run = sleeper([sys.executable, "-c", PARENT], **mine)
    other = sleeper(SLEEP, **{**mine, PROJECT: str(tmp_path / "other")})
    outside = sleeper(SLEEP, **{PROJECT: str(tmp_path)})
    sleepers += [run, other, outside]
    found = processes_of_runs(tmp_path)
    assert list(found) == ["one"]
    children = {one.pid for one in psutil.Process(run.pid).children(recursive=True)}
    assert {one.pid for one in found["one"]} == {run.pid, *children} and len(children) == 1
    for process in found["one"]:
        process.kill()
    run.wait()
    # The child has no parent here that waits for it.
    assert all(wait_until_gone(process.pid) for process in found["one"])
    assert processes_of_runs(tmp_path) == {}


def test_run_ends_with_its_runner_even_if_that_died_before_it_began() -> None:
    code = "from flows.common import tie_to_runner; tie_to_runner(); print('goes on')"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for runner, says in ((os.getpid(), "goes on\n"), (gone.pid, "")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, RUNNER: str(runner)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == says, done.stderr


def test_noted_process_is_ended_and_one_that_took_its_id_is_not(
    sleepers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    file = tmp_path / "serving.json"
    end_noted(file)  # there is none yet
    for changed, ends in ((-1.0, False), (0.0, True)):
        process = sleeper(SLEEP)
        sleepers.append(process)
        program = Program("server", SLEEP, tmp_path, os.environ, lambda: True, tmp_path / "log", process=process)  # type: ignore[arg-type]
        note(file, "http://127.0.0.1:1", [program])
        noted = read_json(file)
        noted["processes"][0]["created"] += changed
        write_json(noted, file)
        end_noted(file)
        assert wait_until_gone(process.pid, 5.0) if ends else alive(process.pid)
