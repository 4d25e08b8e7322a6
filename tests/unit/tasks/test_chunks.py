"""Checkpoints of a scan: a killed scan continues, and two scans of one path do not disturb each other."""

from __future__ import annotations

from pathlib import Path

from tans_core.tasks.chunks import Chunks
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.scan import scan
from tests.factories.images import encoded, noise, write_class_folders

SIZE = 16


def test_what_was_decoded_before_a_kill_is_not_decoded_again(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "x", {"ash": 30, "oak": 30})
    folder = tmp_path / "resume"
    entries = open_input(root).entries
    first = Chunks(entries, SIZE, folder)
    first.fill(open_input(root), 0)
    first.close(finished=False)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.arrow")}
    assert len(kept) == 4
    torn = sorted(folder.glob("*.arrow"))[0]
    torn.write_bytes(torn.read_bytes()[:100])
    (folder / f".{torn.name}.half").write_bytes(b"ARROW1")
    (root / "oak" / "7.png").write_bytes(encoded(noise(seed=99)))
    again = Chunks(open_input(root).entries, SIZE, folder)
    again.fill(open_input(root), 0)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.arrow")}
    again.close(finished=False)
    same = [name for name, moment in kept.items() if after.get(name) == moment]
    assert len(same) >= 2 and torn.name not in same
    with scan(root, stored_size_px=SIZE, resume=folder) as found:
        assert found.report.used == 60 and len(found.task("x").labels) == 60
    assert not folder.exists()


def test_what_could_not_be_read_is_tried_again_when_a_scan_goes_on(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "x", {"ash": 20, "oak": 20})
    entries, gone = open_input(root).entries, root / "ash/1.png"
    gone.rename(tmp_path / "away")
    first = Chunks(entries, SIZE, tmp_path / "r")
    first.fill(open_input(root), 0)
    assert first.facts()["reason"].to_pylist().count("No such file or directory") == 1
    first.close(finished=False)
    (tmp_path / "away").rename(gone)
    with scan(root, stored_size_px=SIZE, resume=tmp_path / "r") as found:
        assert found.report.used == 40 and not found.report.bad


def test_two_scans_of_one_path_do_not_disturb_each_other(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "x", {"ash": 20, "oak": 20})
    with scan(root, stored_size_px=SIZE, resume=tmp_path / "r") as one:
        with scan(root, stored_size_px=SIZE, resume=tmp_path / "r") as other:
            assert len(other.task("x").labels) == 40
        assert len(one.task("x").labels) == 40


def test_what_does_not_fit_into_memory_is_on_disk(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "x", {"ash": 40, "oak": 40})
    found, stored = [], []
    for held_bytes in (0, 20_000, 10**6):
        folder = tmp_path / f"{held_bytes}"
        with scan(root, stored_size_px=SIZE, resume=folder, held_bytes=held_bytes) as scanning:
            stored.append(len(list(folder.glob("*.arrow"))))
            found.append(scanning.task("x").images.data.tobytes())
        assert not folder.exists()
    assert found[0] == found[1] == found[2]
    assert stored[0] == 5 > stored[1] > stored[2] == 0
