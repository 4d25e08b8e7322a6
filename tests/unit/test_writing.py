"""Full disks, and folders without write permission."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tans_core
from tans_core.errors import StoreError
from tans_core.finetuning import checkpoint
from tans_core.finetuning import finetune as finetuning
from tans_core.io import write_text
from tans_core.options import FinetuneOptions
from tans_core.reporting import Progress
from tests.factories.images import write_class_folders
from tests.factories.processes import one_core
from tests.factories.project import UNSEEN


@contextmanager
def _full_disk(bytes_left: int) -> Iterator[None]:
    """A limit on file sizes fails like a full disk: during a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("save", "where"), [(None, "runs/"), ("mine", "data/scanned/mine")])
def test_a_disk_that_is_full_during_a_scan_is_said_and_leaves_nothing_half(
    save: str | None, where: str, fresh_project: Path, tmp_path: Path
) -> None:
    photos = write_class_folders(tmp_path / "photos", {"ash": 30, "oak": 30}, side=64)
    with one_core(), _full_disk(150_000 if save else 3_000), pytest.raises(StoreError) as caught:
        tans_core.scan(photos, save=save, root=fresh_project)
    said = str(caught.value)
    assert "cannot be written: File too large" in said and "`ulimit -f`" in said
    assert where in said or "reports/" in said or ".resume" in said
    assert not list(fresh_project.rglob("*.tmp")) and not (fresh_project / "data/scanned/mine").exists()


@pytest.mark.parametrize(("from_path", "bytes_left"), [(False, 2_000), (True, 32_000)])
def test_a_disk_that_is_full_after_a_fine_tuning_is_said_and_leaves_no_run(
    from_path: bool, bytes_left: int, project: Path, tmp_path: Path
) -> None:
    dataset = str(write_class_folders(tmp_path / "photos", {"ash": 20, "oak": 20})) if from_path else UNSEEN
    model = tans_core.list_models(project)[0].id
    before = set(project.glob("runs/*"))
    with one_core(), _full_disk(bytes_left), pytest.raises(StoreError) as caught:
        tans_core.finetune(dataset, model, epochs=1, root=project)
    said = str(caught.value)
    assert said.count("cannot be written") == 1 and "File too large. No partial file is left" in said
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
    with pytest.raises(StoreError, match=r"cannot be written: Read-only file system.* Mount the disk for writing"):
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
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match=r"cannot be written: Permission denied.*Make the folder writable"):
            write_text("x", tmp_path / "a")
    finally:
        os.seteuid(0)


@pytest.fixture
def fresh_project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_bytes((Path(__file__).resolve().parents[2] / "params.yaml").read_bytes())
    return root
