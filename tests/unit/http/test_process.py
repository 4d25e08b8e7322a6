"""`tans api` as a process: the examples of its page, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.factories.http_service import zipped

PAGE = Path(__file__).resolve().parents[3] / "docs/service.md"


@contextmanager
def program(project: Path, temporary: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `tans api` on a free port; yield the process and its address."""
    command = [sys.executable, "-m", "tans_core.cli", "api", "--port", "0", "--root", str(project)]
    variables = {**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    variables.pop("TANS_API_TOKEN", None)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), process.stderr and process.stderr.read()
            yield process, line.split()[0]
        finally:
            process.kill()


def examples() -> list[str]:
    """The shell blocks of the page that call the service."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "curl" in block]


def answers(text: str) -> list[dict[str, Any]]:
    """The JSON values in the output of the examples, one after the other."""
    found, place = [], 0
    while (place := text.find("{", place)) >= 0:
        value, place = json.JSONDecoder().raw_decode(text, place)
        found.append(value)
    return found


def test_examples_of_the_page_work_and_the_end_leaves_nothing(project: Path, photos: Path, tmp_path: Path) -> None:
    temporary, home = tmp_path / "temporary", tmp_path / "home"
    temporary.mkdir()
    home.mkdir()
    (home / "photos.zip").write_bytes(zipped(photos))
    photos.rename(home / "photos")
    (home / "tans").write_text(f'#!/bin/sh\nexec {sys.executable} -m tans_core.cli "$@" --root {project}\n')
    (home / "tans").chmod(0o755)
    (home / "token.txt").write_text("none is wanted on loopback\n")
    script = "\n".join(examples()).replace("http://127.0.0.1:8000", "$ADDRESS")
    assert script.count("curl") == 5
    with program(project, temporary) as (process, address):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=home,
            env={**os.environ, "PATH": f"{home}:{os.environ['PATH']}", "ADDRESS": address},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        scanned, found, again, refused, listed = answers(done.stdout)
        assert scanned["passed"] is True
        assert len(found["candidates"]) == 3
        assert again["candidates"] == found["candidates"]
        assert refused["advice"] == ["max_parms_m: unknown key (did you mean 'max_params_m'?)"]
        assert listed["release"] == found["release"]
        assert [path.name for spool in temporary.iterdir() for path in spool.iterdir()] == ["in-use.lock"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert list(temporary.iterdir()) == []


def test_folder_that_a_killed_service_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    from tans_core.http.uploads import Spool

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    running = Spool()
    left, other = tmp_path / "tans-api-left", tmp_path / "another-program"
    for folder in (left, other):
        (folder / "room").mkdir(parents=True)
    second = Spool()
    assert sorted(tmp_path.iterdir()) == sorted([other, running.folder, second.folder])
    assert running.folder.stat().st_mode & 0o77 == 0
    running.close()
    second.close()
    assert list(tmp_path.iterdir()) == [other]
