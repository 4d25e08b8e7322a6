"""`tans tasks scan` on unreadable files, files that vanish while they are read, and malicious archives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tans_core.errors import DataError, EmptyClassError, GateError
from tests.factories.archives import PER_CLASS
from tests.factories.hostile import healthy
from tests.factories.hostile_archives import HOSTILE
from tests.factories.images import write_class_folders
from tests.factories.processes import halted_scan
from tests.unit.cli.conftest import Tans

PROJECT = Path(__file__).resolve().parents[3]

# root reads everything because of these capabilities. Without them permissions apply to it, too.
_DAC_OVERRIDE, _DAC_READ_SEARCH, _DROP = 1, 2, 24
AS_ANYBODY = f"""
import ctypes, os, sys
for capability in ({_DAC_OVERRIDE}, {_DAC_READ_SEARCH}):
    ctypes.CDLL(None).prctl({_DROP}, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def command(*arguments: object) -> list[str]:
    return ["-m", "tans_core.cli", "tasks", "scan", *map(str, arguments), "--json"]


def as_anybody(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program as a user to whom permissions apply."""
    starter = [sys.executable, "-c", AS_ANYBODY]
    return subprocess.run(
        [*starter, *command(*arguments)], capture_output=True, text=True, check=False, timeout=120, cwd=PROJECT
    )


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A file without read permission."""
    path = tmp_path / "closed"
    path.write_bytes(b"x")
    path.chmod(0)
    read = subprocess.run(
        [sys.executable, "-c", AS_ANYBODY, "-c", f"open({str(path)!r})"], capture_output=True, check=False
    )
    if read.returncode == 0:
        pytest.skip("this user reads everything")
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_ends_with_its_code_and_leaves_nothing_behind(
    name: str, tans: Tans, fresh: Path, tmp_path: Path
) -> None:
    case = HOSTILE[name]
    (tmp_path / "inner").mkdir()
    path = case.make(tmp_path / "inner")
    done = tans("tasks", "scan", path, "--json", "--root", fresh)
    assert "Traceback" not in done.err
    if case.error is not None:
        assert (done.code, done.out) == (case.error.exit_code, "")
        assert f"{case.error.__name__}: " in done.err and case.is_said_in(done.err) and str(path) in done.err
    else:
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert found["used"] >= 2 * PER_CLASS - 1 and found["gate"]["passed"]
        assert any(case.is_said_in(reason) for _, reason in found["bad"]) if case.words else not found["bad"]
    # Nothing beside the archive, and nothing where the names of hostile entries lead.
    assert list((tmp_path / "inner").iterdir()) == [path] and {*tmp_path.iterdir()} == {tmp_path / "inner", fresh}
    assert not any(folder.joinpath("escape.png").exists() for folder in (*tmp_path.parents, Path("/tmp")))
    assert not list(fresh.rglob("*.png"))


def test_what_may_not_be_read_is_listed(closed: Path, fresh: Path, tmp_path: Path) -> None:
    root = healthy(tmp_path / "x")
    (root / "ash/3.png").chmod(0)
    (root / "elm/closed").mkdir()
    (root / "elm/4.png").rename(root / "elm/closed/4.png")
    (root / "elm/closed").chmod(0)
    done = as_anybody(root, "--root", fresh)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found["bad"]) == [["ash/3.png", "Permission denied"], ["elm/closed", "Permission denied"]]
    assert found["classes"] == {"ash": 19, "elm": 19, "oak": 20}
    assert "Permission denied" in (Path(found["folder"]) / "scan.html").read_text(encoding="utf-8")


def test_a_class_that_may_not_be_read_stops_the_scan(closed: Path, fresh: Path, tmp_path: Path) -> None:
    root = healthy(tmp_path / "x")
    (root / "oak").chmod(0)
    done = as_anybody(root, "--root", fresh)
    assert done.returncode == EmptyClassError.exit_code and "Traceback" not in done.stderr
    assert "'oak' (0 of 1: 1 x Permission denied)" in done.stderr


@pytest.mark.parametrize("name", ["folder", "a.zip", "labels.csv", "images.parquet"])
def test_a_path_that_may_not_be_read_is_said_so(name: str, closed: Path, fresh: Path, tmp_path: Path) -> None:
    path = tmp_path / "x" / name
    path.parent.mkdir()
    if name == "folder":
        healthy(path)
    else:
        path.write_bytes(b"x" * 600)
    path.chmod(0)
    done = as_anybody(path, "--root", fresh)
    assert done.returncode == DataError.exit_code and "Traceback" not in done.stderr
    assert f"{path}: Permission denied" in done.stderr


def test_a_class_that_goes_while_it_is_read_is_listed(fresh: Path, tmp_path: Path) -> None:
    each = 1600
    root = write_class_folders(tmp_path / "x", {"ash": each, "elm": each, "yew": each})
    with halted_scan([sys.executable, *command(root, "--root", fresh)], fresh) as program:
        shutil.rmtree(root / "yew")
        os.killpg(program.pid, signal.SIGCONT)
        out, err = program.communicate(timeout=120)
    assert "Traceback" not in err and program.returncode in (0, GateError.exit_code, DataError.exit_code), err
    found = json.loads(out)
    gone = [name for name, reason in found["bad"] if reason == "No such file or directory"]
    assert all(name.startswith("yew/") for name in gone) and len(gone) == len(found["bad"])
    assert gone
    assert found["classes"] == {"ash": each, "elm": each, "yew": each - len(gone)}
    assert found["gate"]["passed"] == (program.returncode == 0)
