"""Full disks, and folders without write permission."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tans_core
from tans_core.errors import StoreError
from tans_core.finetuning import checkpoint
from tans_core.finetuning import finetune as finetuning
from tans_core.options import FinetuneOptions
from tans_core.reporting import Progress
from tests.factories.images import write_class_folders
from tests.factories.project import UNSEEN

# A limit on file sizes fails like a full disk: during a write.
_SMALL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, {bytes}));"
_RUN = """
import sys
{limit}
from tans_core.errors import StoreError
import tans_core
try:
    {call}
except StoreError as error:
    print(error)
    sys.exit(6)
"""


def _run(call: str, limit: str = "") -> subprocess.CompletedProcess[str]:
    script = _RUN.format(call=call, limit=limit)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("save", "where"), [(None, "runs/"), ("mine", "data/scanned/mine")])
def test_a_disk_that_is_full_during_a_scan_is_said_and_leaves_nothing_half(
    save: str | None, where: str, fresh_project: Path, tmp_path: Path
) -> None:
    photos = write_class_folders(tmp_path / "photos", {"ash": 30, "oak": 30}, side=64)
    limit = _SMALL.format(bytes=150_000 if save else 3_000)
    found = _run(f"tans_core.scan({str(photos)!r}, save={save!r}, root={str(fresh_project)!r})", limit)
    assert found.returncode == 6, found.stderr
    assert "cannot be written: File too large" in found.stdout and "Free some space" in found.stdout
    assert where in found.stdout or "reports/" in found.stdout or ".resume" in found.stdout
    assert not list(fresh_project.rglob("*.tmp")) and not (fresh_project / "data/scanned/mine").exists()


@pytest.mark.parametrize(("from_path", "bytes_left"), [(False, 2_000), (True, 32_000)])
def test_a_disk_that_is_full_after_a_fine_tuning_is_said_and_leaves_no_run(
    from_path: bool, bytes_left: int, project: Path, tmp_path: Path
) -> None:
    dataset = str(write_class_folders(tmp_path / "photos", {"ash": 20, "oak": 20})) if from_path else UNSEEN
    model = tans_core.list_models(project)[0].id
    before = set(project.glob("runs/*"))
    limit = _SMALL.format(bytes=bytes_left)
    found = _run(f"tans_core.finetune({dataset!r}, {model!r}, epochs=1, root={str(project)!r})", limit)
    assert found.returncode == 6, found.stderr
    assert found.stdout.count("cannot be written") == 1 and "File too large. No partial file is left" in found.stdout
    assert set(project.glob("runs/*")) == before and not list(project.rglob("*.tmp"))


def test_a_broken_off_fine_tuning_goes_on_when_the_same_is_asked_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = tans_core.list_models(project)[0].id, {"epochs": 3, "root": project}
    whole = tans_core.finetune(UNSEEN, model, **asked)
    steps: list[int] = []
    write = checkpoint.Checkpoint.on_train_batch_end

    def breaking(self: Any, trainer: Any, *arguments: Any) -> None:
        self.due = 0.0
        write(self, trainer, *arguments)
        steps.append(trainer.global_step)
        if steps == [1, 2, 3, 4, 5]:
            raise ConnectionError  # nothing handles it

    monkeypatch.setattr(checkpoint.Checkpoint, "on_train_batch_end", breaking)
    with pytest.raises(ConnectionError):
        tans_core.finetune(UNSEEN, model, **asked)
    assert len(list((project / ".resume/finetune").iterdir())) == 1
    other = tans_core.finetune(UNSEEN, model, **{**asked, "seed": 1})
    assert steps[5:] == list(range(1, 13)), "another seed is another fine-tuning"
    # It goes on with a report as without one.
    options = FinetuneOptions(model=model, epochs=3)
    again = tans_core.Service.open(project).finetune(UNSEEN, options, progress_file=tmp_path / "progress")
    assert steps[17:] == list(range(6, 13))
    told = Progress.read(tmp_path / "progress")
    assert (told.run, told.model, told.epochs, told.curve) == (again.folder.name, model, 3, again.curve)
    assert not list((project / ".resume/finetune").iterdir())
    kept = ("predict.json", "images.csv", "test.json")
    files = [[(run.folder / name).read_bytes() for name in kept] for run in (whole, again, other)]
    weights = [load_file(run.folder / "weights.safetensors") for run in (whole, again, other)]
    assert files[0] == files[1] != files[2]
    assert all(np.array_equal(value, weights[1][name]) for name, value in weights[0].items())
    assert (again.test_accuracy, again.best_val_accuracy) == (whole.test_accuracy, whole.best_val_accuracy)
    keys = ("step", "train_loss", "val_accuracy")
    assert [[p[key] for key in keys] for p in again.curve] == [[p[key] for key in keys] for p in whole.curve]


_REQUESTS: dict[str, Callable[[Path, Path], object]] = {
    "scan": lambda root, photos: tans_core.scan(photos, root=root),
    "scan and save": lambda root, photos: tans_core.scan(photos, save="mine", root=root),
    "retrieve": lambda root, photos: tans_core.retrieve(photos, root=root),
    "retrieve for a task": lambda root, photos: tans_core.retrieve(UNSEEN, root=root),
    "finetune": lambda root, photos: tans_core.finetune(UNSEEN, tans_core.list_models(root)[0].id, root=root),
    "publish": lambda root, photos: tans_core.publish(root),
    "rollback": lambda root, photos: tans_core.rollback(root=root),
    "admit": lambda root, photos: tans_core.admit(root),
}


@pytest.mark.parametrize("request_name", _REQUESTS)
def test_a_read_only_project_is_said_before_any_training(
    request_name: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_class_folders(tmp_path / "photos", {"ash": 9, "oak": 9})
    root = shutil.copytree(project, tmp_path / "project", ignore=shutil.ignore_patterns("runs", ".resume", "reports"))
    monkeypatch.setattr(finetuning, "finetune", None)  # never reached
    _make_read_only(root, monkeypatch)
    before = sorted(root.rglob("*"))
    with pytest.raises(StoreError, match=r"cannot be written: Read-only file system.* Make the folder writable"):
        _REQUESTS[request_name](root, photos)
    assert sorted(root.rglob("*")) == before


def _make_read_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse new files and folders below `root`, as a file system that is mounted read-only does, even for root."""
    make_folder, open_file = os.mkdir, os.open

    def refuse(path: object) -> None:
        if Path(str(path)).is_relative_to(root):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def refusing_mkdir(path: str, *arguments: Any, **named: Any) -> None:
        refuse(path)
        make_folder(path, *arguments, **named)

    def refusing_open(path: str, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            refuse(path)
        return open_file(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "mkdir", refusing_mkdir)
    monkeypatch.setattr(os, "open", refusing_open)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_a_folder_that_may_not_be_written_into_is_said(tmp_path: Path) -> None:
    call = (
        "import os, pathlib, tans_core.io as io; os.seteuid(65534); "
        f"io.write_text('x', pathlib.Path({str(tmp_path)!r}, 'a'))"
    )
    found = _run(call)
    assert found.returncode == 6, found.stderr[-2000:]
    assert "cannot be written: Permission denied" in found.stdout and "Make the folder writable" in found.stdout


@pytest.fixture
def fresh_project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_bytes((Path(__file__).resolve().parents[2] / "params.yaml").read_bytes())
    return root
