"""Patients, plants and films stay in one split."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from tans_core.errors import DataError
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.scan import scan
from tans_core.tasks.task import Task
from tests.factories.images import encoded, noise
from tests.factories.tables import cells, write_parquet


def _pictures(root: Path, name: str, count: int = 1) -> list[str]:
    """Images that have only noise in common."""
    paths = [f"{name}-{number}.png" for number in range(count)]
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encoded(noise(20, 20, seed=zlib.crc32(path.encode()))))
    return paths


def _table(root: Path, column: str, classes_of: int = 1, split: str = "") -> Path:
    """A CSV of 16 patients, 5 images each; each patient has `classes_of` of the two classes."""
    lines = [f"path,label,{column}{',split' if split else ''}"]
    for patient in range(16):
        for number, path in enumerate(_pictures(root, f"i/{patient}", 5)):
            label = "ab"[(patient + number % classes_of) % 2]
            lines.append(f"{path},{label},p{patient:02d}" + (f",{split.split()[number % 2]}" if split else ""))
    (root / "labels.csv").write_text("\n".join(lines))
    return root / "labels.csv"


def _splits_of(task: Task, group: dict[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path, split in zip(task.paths, task.splits.tolist(), strict=True):
        found.setdefault(group[path], set()).add(split)
    return found


def _patients(table: Path) -> dict[str, str]:
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


@pytest.mark.parametrize("column", ["patient", "Patient_ID", "subject", "group", "site", "film", "plantId"])
@pytest.mark.parametrize("classes_of", [1, 2])
def test_a_column_of_a_usual_name_keeps_its_images_in_one_split(column: str, classes_of: int, tmp_path: Path) -> None:
    table = _table(tmp_path, column, classes_of)
    with scan(table, stored_size_px=16) as found:
        task = found.task("t")
    assert all(len(splits) == 1 for splits in _splits_of(task, _patients(table)).values())
    assert task.info.counts["test"] > 0 and task.info.counts["val"] > 0
    assert any(f"16 groups by column {column!r}" in note for note in found.report.notes)


@pytest.mark.parametrize("column", ["mouse_nr", "case", "Session", "lesion_id", "camera", "hospital"])
def test_a_column_that_looks_like_one_is_named_and_taken_when_asked_for(column: str, tmp_path: Path) -> None:
    table = _table(tmp_path, column)
    with scan(table, stored_size_px=16) as found:
        assert any(f"'{column}'" in note and f"--group {column}" in note for note in found.report.notes)
        assert any(len(splits) > 1 for splits in _splits_of(found.task("t"), _patients(table)).values())
    with scan(table, stored_size_px=16, group=column) as found:
        assert all(len(splits) == 1 for splits in _splits_of(found.task("t"), _patients(table)).values())


def test_none_takes_images_one_by_one_and_a_wrong_column_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path, "patient")
    listed = open_input(table, group="none")
    assert not any(entry.group for entry in listed.entries) and not listed.notes
    with pytest.raises(DataError, match=r"no column 'patent' to group by \(did you mean 'patient'\?\)"):
        open_input(table, group="patent")


@pytest.mark.parametrize(("trees", "said"), [(1, "1 group,"), (2, "2 groups,")])
def test_a_column_of_fewer_groups_than_splits_is_named_but_not_used(tmp_path: Path, trees: int, said: str) -> None:
    rows = [
        f"{path},{name},{name} {number % trees}"
        for name in ("ash", "oak")
        for number, path in enumerate(_pictures(tmp_path, name, 12))
    ]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,plant", *rows]))
    listed = open_input(tmp_path / "t.csv")
    assert not any(entry.group for entry in listed.entries)
    assert f"class 'ash' has {said} fewer than train, validation and test" in listed.notes[0]
    assert "--group plant" in listed.notes[0]
    # So it can be fine-tuned on.
    with scan(tmp_path / "t.csv", stored_size_px=16) as found:
        assert all(found.task("t").info.counts.values())
    asked = {entry.group for entry in open_input(tmp_path / "t.csv", group="plant").entries}
    assert asked == {f"{name} {number}" for name in ("ash", "oak") for number in range(trees)}


def test_folders_below_the_classes_are_groups_when_asked_for_and_named_when_not(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for label in "ab":
        for patient in range(8):
            _pictures(root, f"{label}/p{patient}/x", 4)
    with scan(root, stored_size_px=16, group="folder") as found:
        task = found.task("t")
    patient_of = {path: path.split("/")[1] for path in task.paths}
    assert all(len(splits) == 1 for splits in _splits_of(task, patient_of).values())
    assert any("--group folder" in note for note in open_input(root).notes)
    with pytest.raises(DataError, match="no column 'patient' to group by, since it is no table"):
        open_input(root, group="patient")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(root))
    packed = open_input(tmp_path / "a.zip", group="folder")
    assert {entry.group for entry in packed.entries} == {f"p{number}" for number in range(8)}


def test_parquet_columns_group_as_well(tmp_path: Path) -> None:
    columns = {
        "image": cells(range(24)),
        "label": [n % 2 for n in range(24)],
        "patient_id": [n // 4 for n in range(24)],
    }
    listed = open_input(write_parquet(tmp_path / "t.parquet", columns))
    assert [entry.group for entry in listed.entries] == [str(n // 4) for n in range(24)]
    assert "6 groups by column 'patient_id'" in listed.notes[0]


def test_groups_that_straddle_splits_of_ones_own_are_said(tmp_path: Path) -> None:
    with scan(_table(tmp_path, "patient", split="train test"), stored_size_px=16) as found:
        assert len(found.report.straddling) == 16


def test_near_copies_of_two_patients_join_them(tmp_path: Path) -> None:
    table = _table(tmp_path, "patient")
    twin = encoded(noise(20, 20, seed=7))
    with scan(table, stored_size_px=16) as found:
        before = len({row.group or row.path for row in found.rows})
    for name, extra in (("i/0-0.png", b""), ("i/2-0.png", b"\0")):  # other bytes, the same pixels
        (tmp_path / name).write_bytes(twin + extra)
    with scan(table, stored_size_px=16) as found:
        task = found.task("t")
        assert len({row.group or row.path for row in found.rows}) == before - 1
    both = {path: "one" for path, patient in _patients(table).items() if patient in ("p00", "p02")}
    places = {split for path, split in zip(task.paths, task.splits.tolist(), strict=True) if path in both}
    assert len(places) == 1 and np.isin(list(both), task.paths).all()
