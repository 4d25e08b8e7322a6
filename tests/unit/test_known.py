"""Requests with images of the zoo's own tasks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tans_core
from tans_core.embeddings.images import FILE, read_hashes, write_hashes
from tans_core.tasks.task import read_task
from tests.factories.images import write_class_folders
from tests.factories.project import TASKS, UNSEEN
from tests.unit.cli.conftest import Tans, fresh, tans

__all__ = ["fresh", "tans"]


def _exported(project: Path, name: str, root: Path) -> Path:
    """A task's images as a user has them: files in class folders, of names of their own."""
    task = read_task(project / "data/tasks" / name)
    for number, (image, label) in enumerate(zip(task.images, task.labels.tolist(), strict=True)):
        folder = root / task.info.class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(folder / f"my {number}.bmp")
    return root


def test_images_of_a_meta_train_task_are_counted_by_scan_and_retrieve(project: Path, tmp_path: Path) -> None:
    photos = _exported(project, "stripes", tmp_path / "photos")
    run = tans_core.scan(photos, root=project)
    assert run.scanned.known == {"stripes": run.scanned.report.used} and run.to_dict()["known"] == run.scanned.known
    assert any("are in the task 'stripes'" in warning for warning in run.scanned.verdict.warnings)
    found = tans_core.retrieve(photos, root=project).scan
    assert found is not None and found.known == run.scanned.known


def test_fine_tuning_marks_its_test_accuracy(tans: Tans, project: Path, tmp_path: Path) -> None:
    photos = _exported(project, "stripes", tmp_path / "photos")
    model = tans_core.list_models(project)[0].id
    done = tans("finetune", photos, "--model", model, "--epochs", 1, "--root", project)
    words = "The zoo was trained on images of this data set: of 60, 60 are in the task 'stripes'. So this test accuracy"
    assert done.code == 0 and words in done.out


@pytest.mark.parametrize("kind", ["saved", "built", "object"])
def test_tasks_with_images_of_the_zoo_are_marked_as_paths_are(
    kind: str, tans: Tans, project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("runs", ".resume"))
    name, known = "stripes", {"stripes": 60}
    if kind == "saved":
        name = "mine"
        tans_core.scan(_exported(copy, "stripes", tmp_path / "photos"), save=name, root=copy)
    dataset = read_task(copy / "data/tasks/stripes") if kind == "object" else name
    retrieval = tans_core.retrieve(dataset, root=copy)
    assert retrieval.known == retrieval.to_dict()["known"] == known
    run = tans_core.finetune(dataset, retrieval[0].model, epochs=1, root=copy)
    assert run.to_dict()["known"] == json.loads((run.folder / "provenance.json").read_text())["known"] == known
    assert "So this test accuracy is too high" in run.warning
    if kind != "object":
        assert "of 60, 60 are in the task 'stripes'" in tans("retrieve", name, "--root", copy).out


def test_unseen_tasks_have_no_warning(project: Path) -> None:
    model = tans_core.list_models(project)[0].id
    run = tans_core.finetune(UNSEEN, model, epochs=1, root=project)
    assert run.warning == "" and not run.known


@pytest.mark.parametrize("what", ["unseen", "other"])
def test_images_that_the_zoo_was_not_trained_on_are_not(what: str, project: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    photos = _exported(project, UNSEEN, root) if what == "unseen" else write_class_folders(root, {"ash": 9, "oak": 9})
    assert not tans_core.scan(photos, root=project).scanned.known


def test_request_reads_no_task_of_the_zoo(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("runs", ".resume"))
    photos = _exported(project, "stripes", tmp_path / "photos")
    for name in TASKS:
        (copy / "data/tasks" / name / "images.parquet").unlink()
    assert tans_core.scan(photos, root=copy).scanned.known == {"stripes": 60}


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_build_without_hashes_is_said(
    damage: str, project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("runs", ".resume"))
    photos, file = _exported(project, "stripes", tmp_path / "photos"), copy / "data/store" / FILE
    whole = file.read_bytes()
    file.unlink()
    if damage == "torn":
        file.write_bytes(whole[: len(whole) // 2])
    assert not tans_core.scan(photos, root=copy).scanned.known
    assert "whether the zoo was trained on these images is unknown" in caplog.text and "`tans build`" in caplog.text
    caplog.clear()
    shutil.rmtree(copy / "data/tasks")  # as where a release is served alone
    assert not tans_core.scan(photos, root=copy).scanned.known and not caplog.text


def test_hashes_are_those_of_the_meta_train_tasks(project: Path, tmp_path: Path) -> None:
    hashes = read_hashes(project / "data/store")
    assert set(hashes) == set(TASKS)
    for name, of_task in hashes.items():
        task = read_task(project / "data/tasks" / name)
        assert [row.tobytes() for row in of_task] == [digest[:16] for digest in task.images.digests]
    write_hashes(hashes, tmp_path)
    assert (tmp_path / FILE).read_bytes() == (project / "data/store" / FILE).read_bytes()
