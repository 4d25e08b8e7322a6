"""`tans tasks scan` on real folders: its output, files and exit code."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from tans_core.errors import DataError, NoClassesError
from tests.factories.hostile import PASSING, REFUSED, Found, healthy
from tests.factories.images import encoded, noise, write_class_folders
from tests.factories.processes import halted_scan
from tests.unit.cli.conftest import Tans

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_ends_with_its_code_and_says_why(tans: Tans, fresh: Path, tmp_path: Path, name: str) -> None:
    row = REFUSED[name]
    assert row.error is not None
    done = tans("tasks", "scan", row.folder(tmp_path / "x"), "--save", "x", "--root", fresh)
    assert done.code == row.error.exit_code
    assert f"{row.error.__name__}: " in done.err and row.words in done.err
    assert "Traceback" not in done.err
    assert not list(fresh.rglob("task.json"))
    # Where there was something to judge, a page shows it.
    pages = list(fresh.rglob("scan.html"))
    assert bool(pages) == ("Details: " in done.err)
    assert all("refused" in page.read_text(encoding="utf-8") for page in pages)


@pytest.mark.parametrize("name", ["empty class folder", "labels that contradict"])
def test_refusal_of_the_program_itself(fresh: Path, tmp_path: Path, name: str) -> None:
    row = REFUSED[name]
    assert row.error is not None
    command = [sys.executable, "-m", "tans_core.cli", "tasks", "scan", row.folder(tmp_path / "x"), "--root", fresh]
    done = subprocess.run([*command, "--json"], capture_output=True, check=False, timeout=120)
    assert done.returncode == row.error.exit_code
    assert row.words in done.stderr.decode() and b"Traceback" not in done.stderr
    # The gate's refusals come with what was found.
    if done.stdout:
        assert not json.loads(done.stdout)["gate"]["passed"]


@pytest.mark.parametrize("name", PASSING)
def test_what_can_be_used_is_used_and_the_rest_is_said(tans: Tans, fresh: Path, tmp_path: Path, name: str) -> None:
    done = tans("tasks", "scan", PASSING[name].folder(tmp_path / "x"), "--save", "x", "--root", fresh)
    assert done.code == 0 and "Traceback" not in done.err, done.err
    assert "Saved as task x" in done.out
    (page,) = fresh.rglob("scan.html")
    assert f"page: {page}" in done.out and "refused" not in page.read_text(encoding="utf-8")
    found = Found.saved(page.parent, fresh)
    check = PASSING[name].check
    assert check is not None
    check(found)
    found.check_account()
    # What is a warning is on the screen, too.
    assert all(f"warning: {warning}" in done.out for warning in found.warnings)


def test_what_was_left_out_is_said_by_name(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    root = PASSING["truncated JPEG, zero bytes, half a PNG"].folder(tmp_path / "x")
    done = tans("tasks", "scan", root, "--root", fresh)
    assert done.code == 0, done.err
    assert "7 files left out, unreadable:" in done.out and "ash/zero.png: empty file" in done.out
    (page,) = fresh.rglob("scan.html")
    assert f"page: {page}" in done.out and "half.jpg" in page.read_text(encoding="utf-8")


def test_what_is_passed_over_is_said_once(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    root = PASSING["hidden folders"].folder(tmp_path / "x")
    done = tans("tasks", "scan", root, "--root", fresh)
    assert done.out.count("hidden or system file") == 1 and "passed over: 6 x hidden or system file" in done.out


def on_a_terminal(command: list[object]) -> str:
    """Run a program to its end; return what it drew on stderr."""
    ours, theirs = pty.openpty()
    # Whatever terminal the tests themselves run on.
    wide = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=theirs, env=wide) as program:
        os.close(theirs)
        late = Timer(240, program.kill)
        late.start()
        drawn = b""
        # Reading a terminal fails after its last program has ended.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 2**16):
                drawn += part
        late.cancel()
    os.close(ours)
    assert program.returncode == 0
    return drawn.decode()


def test_a_killed_scan_goes_on_where_it_was_and_says_so(fresh: Path, tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "x", {"ash": 1500, "elm": 1500}, side=8)
    command: list[object] = [sys.executable, "-m", "tans_core.cli", "tasks", "scan", root, "--root", fresh]
    with halted_scan([str(part) for part in command], fresh) as program:
        os.killpg(program.pid, signal.SIGKILL)
    drawn = on_a_terminal(command)
    (left,) = {int(one) for one, all_ in re.findall(r"(\d+)/(\d+)", drawn) if one == all_ != "0"}
    assert "Reading images" in drawn and 0 < left < 3000
    (report,) = fresh.rglob("scan.json")
    assert json.loads(report.read_text(encoding="utf-8"))["used"] == 3000
    assert not list((fresh / ".resume").glob("scan/*"))


def test_empty_classes_are_dropped_on_demand(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    root = REFUSED["class of unreadable files"].folder(tmp_path / "x")
    done = tans("tasks", "scan", root, "--drop-empty-classes", "--save", "x", "--root", fresh)
    assert done.code == 0, done.err
    assert "Saved as task x" in done.out and "'yew'" in done.out


def test_a_class_folder_without_a_file_is_dropped_on_demand(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    root = REFUSED["empty class folder"].folder(tmp_path / "x")
    done = tans("tasks", "scan", root, "--drop-empty-classes", "--save", "x", "--root", fresh)
    assert done.code == 0 and "60 images in 3 classes" in done.out, done.err


def test_a_class_of_one_image_goes_to_train_where_that_is_allowed(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    params = fresh / "params.yaml"
    params.write_text(params.read_text().replace("min_images_per_class: 2", "min_images_per_class: 1"))
    root = REFUSED["one image in a class"].folder(tmp_path / "x")
    done = tans("tasks", "scan", root, "--save", "x", "--root", fresh)
    assert done.code == 0, done.err
    for split in ("val", "test"):
        assert f"1 class will have no {split} image" in done.out and "'rare' (1)" in done.out
    (page,) = fresh.rglob("scan.html")
    task = Found.saved(page.parent, fresh).task
    assert task.splits[task.labels == task.info.class_names.index("rare")].tolist() == ["train"]


def test_names_cannot_steer_the_terminal(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    root = healthy(tmp_path / "x")
    (root / "oak/\x1b[2Jgone.png").write_bytes(b"")
    (root / "oak/\x1b[2Jgif.png").write_bytes(encoded(noise(seed=9), "GIF"))
    done = tans("tasks", "scan", root, "--root", fresh)
    assert done.code == 0 and "\x1b" not in done.out + done.err
    assert r"oak/\x1b[2Jgone.png: empty file" in done.out and r"oak/\x1b[2Jgif.png: GIF" in done.out


def test_names_in_errors_cannot_steer_the_terminal(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    root = tmp_path / "\x1b[31mroot"
    write_class_folders(root / "only", {"\x1b[2Jone": 3})
    done = tans("tasks", "scan", root, "--root", fresh)
    assert done.code == NoClassesError.exit_code and "\x1b" not in done.err
    assert "only one class, 'only'" in done.err and r"\x1b[31mroot" in done.err


@pytest.mark.parametrize("command", [("tasks", "scan"), ("tasks", "add", "--name", "x"), ("retrieve",), ("finetune",)])
def test_no_path_is_not_the_current_folder(tans: Tans, project: Path, command: tuple[str, ...]) -> None:
    done = tans(*command, "", "--root", project)
    assert done.code == DataError.exit_code and "is empty. Want a folder of class folders" in done.err


def test_links_that_lead_outside_are_followed_on_demand(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    root, outside = healthy(tmp_path / "x"), write_class_folders(tmp_path / "outside", {"yew": 20}, seed=5)
    (root / "yew").symlink_to(outside / "yew")
    done = tans("tasks", "scan", root, "--root", fresh)
    assert done.code == 0 and "60 images in 3 classes" in done.out
    assert "1 x link that leads outside (`tans tasks scan --follow-links` follows it)" in done.out
    done = tans("tasks", "scan", root, "--follow-links", "--save", "x", "--root", fresh)
    assert done.code == 0 and "80 images in 4 classes" in done.out, done.err
