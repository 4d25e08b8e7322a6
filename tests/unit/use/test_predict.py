"""Predictions of a run: the reported accuracy again, inputs of every kind, and images that cannot be read."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tans_core.errors import DataError, ParamsError, WeightsError
from tans_core.finetuning.measure import logits_of
from tans_core.tasks.task import write_task
from tans_core.use.images import list_images
from tans_core.use.model import TunedModel
from tests.factories.images import encoded, noise
from tests.factories.runs import CLASSES, Run


@pytest.fixture(scope="module")
def model(run: Run) -> TunedModel:
    return TunedModel.load(run.folder)


def reported(run: Run) -> float:
    return float(json.loads((run.folder / "card.json").read_text())["test_accuracy"])


def test_two_files_alone_give_the_reported_test_accuracy_exactly(run: Run, pictures: Path, tmp_path: Path) -> None:
    for name in ("weights.safetensors", "predict.json", "images.csv"):
        shutil.copy(run.folder / name, tmp_path)
    elsewhere = TunedModel.load(tmp_path)
    found = elsewhere.predict(pictures, "test")
    assert found.accuracy == run.result.test_accuracy == reported(run) == elsewhere.card.test_accuracy
    assert 0 < found.accuracy < 1, "a run that is all right or all wrong tests nothing"
    assert len(found) == run.task.info.counts["test"] and found.missing == 0
    assert found.skipped == {"not of this split of the run's images": 60 - len(found)}
    assert elsewhere.predict(pictures, "val").accuracy == run.result.best_val_accuracy


def test_probabilities_are_those_of_the_network_that_was_trained(run: Run, model: TunedModel, tmp_path: Path) -> None:
    write_task(run.task, tmp_path / "task")  # in the order of the task: the same batches, so the same bytes
    found = model.predict(tmp_path / "task", "test")
    mean, std = run.result.preprocess.mean, run.result.preprocess.std
    logits = logits_of(run.network, run.result.preprocess.pixels(run.task, "test"), mean=mean, std=std)
    assert np.array_equal(found.probabilities, torch.softmax(logits / model.card.temperature, dim=1).numpy())
    labels = run.task.labels[run.task.where("test")]
    assert [one.truth for one in found] == [CLASSES[label] for label in labels]


def test_run_remembers_each_images_split_and_what_was_predicted(run: Run, model: TunedModel, pictures: Path) -> None:
    with (run.folder / "images.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 60
    for one in model.predict(pictures, "test"):
        assert (rows[one.name]["predicted"], rows[one.name]["label"]) == (one.label, one.truth)
        assert float(rows[one.name]["probability"]) == pytest.approx(one.probability, abs=1e-4)
    assert {row["predicted"] for row in rows.values() if row["split"] == "train"} == {""}


def packed(pictures: Path, root: Path, kind: str) -> Path:
    """The same pictures as a folder without classes, an archive, a table without labels, one file."""
    files = sorted(path for path in pictures.rglob("*") if path.is_file())[:4]
    folder = root / "flat"
    folder.mkdir()
    for path in files:
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    if kind == "zip":
        with zipfile.ZipFile(root / "a.zip", "w") as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
        return root / "a.zip"
    if kind == "tar":
        with tarfile.open(root / "a.tar.gz", "w:gz") as archive:
            archive.add(folder, "deep/er")
        return root / "a.tar.gz"
    if kind == "csv":
        (root / "a.csv").write_text("\n".join(["path", *(f"flat/{path.name}" for path in folder.iterdir())]))
        return root / "a.csv"
    return folder


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "csv"])
def test_images_without_labels_are_read_by_every_road(
    model: TunedModel, pictures: Path, tmp_path: Path, kind: str
) -> None:
    expected = {one.name.replace("/", "-"): one.probability for one in model.predict(pictures)}
    found = model.predict(packed(pictures, tmp_path, kind))
    assert len(found) == 4 and found.accuracy is None
    assert {Path(one.name).name: one.probability for one in found} == {
        Path(one.name).name: pytest.approx(expected[Path(one.name).name], abs=1e-6) for one in found
    }


def test_one_file_is_predicted_and_so_is_its_content(model: TunedModel, pictures: Path) -> None:
    path = pictures / "elm/3.jpeg"
    (one,) = model.predict(path)
    assert (one.name, one.truth) == ("3.jpeg", None)
    likely = model.probabilities(model.prepare(path.read_bytes())[None].to(model.device)).cpu()
    assert float(likely.max()) == pytest.approx(one.probability, abs=1e-6)


def test_unreadable_images_are_rows_with_a_reason_and_stop_nothing(
    model: TunedModel, pictures: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    (folder / "elm/3.jpeg").write_bytes((folder / "elm/3.jpeg").read_bytes()[:200])
    (folder / "ash/notes.txt").write_text("no image")
    found = model.predict(folder)
    bad = {one.name: one for one in found if one.error}
    assert set(bad) == {"elm/3.jpeg"} and found.unreadable == 1
    assert (bad["elm/3.jpeg"].label, bad["elm/3.jpeg"].probability) == (None, None)
    assert np.isnan(found.probabilities).any(axis=1).sum() == 1 and len(found) == 60
    assert found.judged == 59
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["predictions"][[row["name"] for row in plain["predictions"]].index("elm/3.jpeg")]["error"]
    assert list(found.to_frame().columns) == [
        *("name", "label", "probability", "error", "truth"),
        *(f"p({name})" for name in CLASSES),
    ]


def test_nothing_that_can_be_read_is_an_error_that_names_it(model: TunedModel, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    with pytest.raises(DataError, match=r"no image that can be read: a\.png: "):
        model.predict(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        model.predict(tmp_path / "nowhere")
    (tmp_path / "a.png").write_bytes(encoded(noise()))
    with pytest.raises(DataError, match="no image of the run's test split"):
        model.predict(tmp_path, "test")
    with pytest.raises(ParamsError, match="split: got 'tests', want one of train, val, test"):
        model.predict(tmp_path, "tests")


def test_rows_of_a_table_that_lead_nowhere_are_reported(model: TunedModel, pictures: Path) -> None:
    (pictures.parent / "list.csv").write_text(
        "path,label\npictures/elm/3.jpeg,elm\npictures/none.png,ash\n/etc/passwd,\n"
    )
    found = model.predict(pictures.parent / "list.csv")
    assert [(one.name, one.truth, bool(one.error)) for one in found] == [
        ("pictures/elm/3.jpeg", "elm", False),
        ("pictures/none.png", None, True),
        ("/etc/passwd", None, True),
    ]


def test_the_outermost_folder_of_a_class_tells_the_label(tmp_path: Path) -> None:
    for name in ("test/elm/oak/1.png", "a/2.png", "elm/3.png", ".hidden/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(noise()))
    labels = {entry.name: entry.label for entry in list_images(tmp_path, CLASSES).entries}
    assert labels == {"a/2.png": "", "elm/3.png": "elm", "test/elm/oak/1.png": "elm"}


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 20, 20, dtype=torch.uint8)])
def test_a_wrong_size_or_scale_is_refused_rather_than_answered(model: TunedModel, images: torch.Tensor) -> None:
    with pytest.raises(ParamsError, match=r"want \(B, 3, 16, 16\) torch\.uint8"):
        model(images)


def test_a_folder_that_is_no_run_or_damaged_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"predict\.json: no such file"):
        TunedModel.load(tmp_path)
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    raw = json.loads((folder / "predict.json").read_text())
    (folder / "predict.json").write_text(json.dumps({**raw, "temperature": 0}))
    with pytest.raises(WeightsError, match="temperature: got 0"):
        TunedModel.load(folder)
    (folder / "predict.json").write_text(json.dumps({**raw, "class_names": ["a", "b"]}))
    with pytest.raises(WeightsError, match="another shape"):
        TunedModel.load(folder)
    (folder / "predict.json").write_text("{")
    with pytest.raises(WeightsError, match="not readable as JSON"):
        TunedModel.load(folder)
