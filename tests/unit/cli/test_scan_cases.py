"""How the command and the API read or refuse tables and pictures."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml

import tans_core
from tans_core.errors import DataError
from tans_core.sources.image_folder import ImageFolder
from tests.factories.images import encoded, noise, write_class_folders
from tests.factories.query_cases import change_params
from tests.unit.cli.conftest import Tans


def _patients(root: Path, header: str = "path,label,patient", rows: str = "{path},{label},p{patient}") -> Path:
    """A table of 60 images of two classes and 15 patients."""
    (root / "i").mkdir(parents=True)
    lines = [header]
    for number in range(60):
        (root / f"i/{number}.png").write_bytes(encoded(noise(24, 24, seed=number)))
        lines.append(
            rows.format(path=f"i/{number}.png", label="ab"[number // 4 % 2], patient=number // 4, number=number)
        )
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root / "labels.csv"


def test_groups_are_used_named_and_declined_by_the_command(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    table = _patients(tmp_path / "home")
    assert (
        "note: 15 groups by column 'patient', each kept in one split"
        in tans("tasks", "scan", table, "--root", fresh).out
    )
    assert "groups by" not in tans("tasks", "scan", table, "--group", "none", "--root", fresh).out
    wrong = tans("tasks", "scan", table, "--group", "patients", "--root", fresh)
    assert wrong.code == DataError.exit_code and "did you mean 'patient'" in wrong.err


@pytest.mark.parametrize("ask", ["scan", "retrieve"])
def test_groups_stay_in_one_split_by_the_api(ask: str, project: Path, tmp_path: Path) -> None:
    table = _patients(tmp_path / "home", "path,label,mouse_nr")
    if ask == "scan":
        report = tans_core.scan(table, group="mouse_nr", root=project).scanned.report
    else:
        found = tans_core.retrieve(table, group="mouse_nr", root=project).scan
        assert found is not None
        report = found.report
    assert all(sum(report.planned[split].values()) for split in ("train", "val", "test"))
    assert "15 groups by column 'mouse_nr'" in report.notes[0]


def test_a_task_that_is_added_keeps_its_groups_in_the_build(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    table = _patients(tmp_path / "home", "path,label,mouse_nr")
    change_params(fresh, gates={"min_images_per_task": 50})
    done = tans("tasks", "add", table, "--name", "mice", "--group", "mouse_nr", "--root", fresh)
    assert done.code == 0, done.err
    options = yaml.safe_load((fresh / "params.yaml").read_text())["tasks"]["meta_train"]["mice"]["options"]
    samples = list(ImageFolder().load(options, 0))
    assert options["group"] == "mouse_nr" and len({sample.group for sample in samples}) == 15


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ('{path},"{label},p{patient}', "row 2: a quote opens in it and swallows 1 line"),
        ("{path},a|b,{number}\n{path},a,1\n{path},b,1", "60 of 180 rows have several labels"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(
    tans: Tans, fresh: Path, tmp_path: Path, rows: str, words: str
) -> None:
    done = tans("tasks", "scan", _patients(tmp_path / "home", rows=rows), "--root", fresh)
    assert done.code == DataError.exit_code and words in done.err


def test_blank_pictures_are_refused_by_name(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    for number in range(40):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(np.full((40, 40, 3), 5 * number, np.uint8)))
    done = tans("tasks", "scan", tmp_path / "photos", "--json", "--root", fresh)
    assert done.code == 3 and "40 of 40 files are blank" in done.err
    assert len(json.loads(done.out)["blank"]) == 40


def test_a_folder_of_notes_and_two_spellings_are_said(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    for label in ("ash", "oak"):
        (tmp_path / "notes" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "notes" / label / f"{number}.txt").write_text("a word")
    done = tans("tasks", "scan", tmp_path / "notes", "--root", fresh)
    assert done.code == DataError.exit_code and "0 of 4: 4 x not an image by its name (.txt)" in done.err
    root = write_class_folders(tmp_path / "photos", {"oak": 6, unicodedata.normalize("NFC", "étang"): 6})
    write_class_folders(root, {unicodedata.normalize("NFD", "étang"): 6}, seed=3)
    assert "is written in 2 ways that look alike" in tans("tasks", "scan", root, "--root", fresh).out
