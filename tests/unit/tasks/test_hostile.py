"""All problems of real image folders: row by row, and all at once.

Elsewhere: archives (`inputs/test_archive.py`); kills and many files (`test_scan.py`); a last batch of one image and
splits without an image (`finetuning/test_batches.py`, `test_finetune.py`); tables without a row
(`gates/test_runner.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tans_core
from tans_core.errors import NoClassesError, TansError
from tans_core.gates.query import QueryThresholds, check_query
from tans_core.tasks.chunks import Chunks
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.scan import scan
from tans_core.views.summary import summary
from tests.factories.hostile import PASSING, REFUSED, Found, everything, everything_in_splits, healthy
from tests.factories.processes import one_core
from tests.unit.cli.conftest import Tans, tans

__all__ = ["tans"]

SIZE = 32
PROJECT = Path(__file__).resolve().parents[3]


def judged(root: Path, **arguments: Any) -> Found:
    """Scan, judge and take the task, as every command does."""
    limits = {"min_images_per_class": 2, "max_bad_share": 0.5}
    drop = bool(arguments.get("drop_empty_classes"))
    with scan(root, stored_size_px=SIZE, **arguments) as found:
        verdict = check_query(found.report, QueryThresholds(), drop_empty_classes=drop, **limits)  # type: ignore[arg-type]
        verdict.raise_on_failure()
        return Found(found.report, found.manifest, found.task("x"), verdict.warnings)


@pytest.mark.parametrize("name", PASSING)
def test_what_can_be_used_is_used_and_the_rest_is_said(tmp_path: Path, name: str) -> None:
    found = judged(PASSING[name].folder(tmp_path / "x"))
    check = PASSING[name].check
    assert check is not None
    check(found)
    found.check_account()
    json.dumps(found.report.to_dict(), ensure_ascii=False).encode()
    assert summary(found.report)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    row = REFUSED[name]
    assert row.error is not None
    with pytest.raises(TansError) as caught:
        judged(row.folder(tmp_path / "x"))
    assert type(caught.value) is row.error and row.words in str(caught.value)
    # A long path is cut in the middle.
    assert f"{tmp_path.name[-12:]}/x" in str(caught.value)


@pytest.mark.parametrize("name", ["empty class folder", "class of unreadable files"])
def test_classes_without_an_image_can_be_dropped(tmp_path: Path, name: str) -> None:
    found = judged(REFUSED[name].folder(tmp_path / "x"), drop_empty_classes=True)
    assert found.task.info.class_names == ("ash", "elm", "oak")
    assert all(number for number in found.report.classes.values())


def test_zero_rows_never_pass_for_a_data_set(tmp_path: Path) -> None:
    root = REFUSED["nothing left after filtering"].folder(tmp_path / "x")
    with pytest.raises(NoClassesError, match="No class has a usable image"):
        judged(root, drop_empty_classes=True)


@pytest.fixture(scope="module")
def all_at_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return everything(tmp_path_factory.mktemp("hostile") / "all at once")


def scanned(root: Path, project: Path, program: Callable[..., Any]) -> Found:
    """Scan and save with the command; what it printed, wrote and saved must agree."""
    shutil.copy(PROJECT / "params.yaml", project)
    done = program("tasks", "scan", root, "--save", "all", "--json", "--root", project)
    assert done["gate"]["passed"] and not done["gate"]["failures"]
    folder = Path(done["folder"])
    assert json.loads((folder / "scan.json").read_text(encoding="utf-8"))["used"] == done["used"]
    page = (folder / "scan.html").read_text(encoding="utf-8")
    assert "passed" in page and "<script>alert" not in page
    found = Found.saved(folder, project)
    found.check_account()
    return found


def program(*arguments: object) -> Any:
    command = [sys.executable, "-m", "tans_core.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_all_at_once_through_the_command(all_at_once: Path, tmp_path: Path) -> None:
    found = scanned(all_at_once, tmp_path, program)
    for row in PASSING.values():
        if not row.alone and row.check is not None:
            row.check(found)


@pytest.fixture(scope="module")
def all_in_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return everything_in_splits(tmp_path_factory.mktemp("hostile") / "all in splits")


def test_all_at_once_and_what_only_splits_can_have(tans: Tans, all_in_splits: Path, tmp_path: Path) -> None:
    with one_core():
        found = scanned(all_in_splits, tmp_path, lambda *arguments: json.loads(tans(*arguments).out))
    assert ("train/elm/0.png", "test/elm/repeated.png") in found.report.leaks
    assert found.report.splits["test"]["oak"] == 0 and found.report.splits["test"]["few"] == 2
    assert any("will have no test image" in warning for warning in found.warnings)
    assert all(found.label(path) == path.split("/")[1] for path in found.task.paths if path.isascii())


@pytest.mark.parametrize("images", ["all_at_once", "all_in_splits"])
@one_core()
def test_a_search_with_all_at_once_finds_models(images: str, project: Path, request: pytest.FixtureRequest) -> None:
    assert len(tans_core.retrieve(request.getfixturevalue(images), root=project)) > 0


def facts_after(root: Path, change: Any) -> dict[str, str | None]:
    """List a folder, change it, then read what was listed: the reason of each file."""
    source = open_input(root)
    change()
    chunks = Chunks(source.entries, SIZE, None)
    chunks.fill(source, 2)
    reasons = chunks.facts()["reason"].to_pylist()
    return dict(zip((entry.name for entry in source.entries), reasons, strict=True))


def test_what_goes_or_turns_into_something_else_while_it_is_read_is_listed(tmp_path: Path) -> None:
    root = healthy(tmp_path)
    (root / "ash" / "below").mkdir()
    for number in range(5):
        (root / "ash" / f"{number}.png").rename(root / "ash" / "below" / f"{number}.png")

    def change() -> None:
        shutil.rmtree(root / "ash" / "below")
        (root / "elm" / "3.png").unlink()
        (root / "elm" / "4.png").unlink()
        (root / "elm" / "4.png").mkdir()
        (root / "elm" / "5.png").unlink()
        (root / "elm" / "5.png").symlink_to("5.png")
        (root / "oak" / "6.png").write_bytes(b"")

    reasons = {name: reason for name, reason in facts_after(root, change).items() if reason}
    gone = "No such file or directory"
    assert reasons == {
        **{f"ash/below/{number}.png": gone for number in range(5)},
        "elm/3.png": gone,
        "elm/4.png": "no longer a plain file",
        "elm/5.png": "Too many levels of symbolic links",
        "oak/6.png": "empty file",
    }


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder of a user to whom permissions apply, even if root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="tans-hostile-"))
    nobody = 65534
    try:
        if os.geteuid() == 0:
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
        yield folder
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)


def test_what_may_not_be_read_is_listed(ordinary_user: Path) -> None:
    root = healthy(ordinary_user / "x")
    (root / "ash" / "3.png").chmod(0)
    (root / "elm" / "closed").mkdir()
    (root / "elm" / "4.png").rename(root / "elm" / "closed" / "4.png")
    (root / "elm" / "closed").chmod(0)
    with scan(root, stored_size_px=SIZE, workers=0) as found:
        assert set(found.report.bad) == {("ash/3.png", "Permission denied"), ("elm/closed", "Permission denied")}
        assert found.report.classes == {"ash": 19, "elm": 19, "oak": 20}
