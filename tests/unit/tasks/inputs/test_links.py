"""Links that lead outside the user's path: skipped and reported, or followed on request, each target once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tans_core.dataset import QueryLimits, scan_path
from tans_core.errors import EmptyClassError, NoClassesError
from tans_core.tasks.inputs.base import LEADS_OUTSIDE
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.scan import scan
from tests.factories.archives import CLASSES, good_members, write_zip
from tests.factories.images import write_class_folders
from tests.unit.tasks.inputs.test_open import csv, folder, parquet


def names(root: Path) -> set[str]:
    listed = open_input(root, follow_links=True)
    assert len({entry.name for entry in listed.entries}) == len(listed.entries)
    return {entry.name for entry in listed.entries}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "outside", {"elm": 3, "yew": 2}, seed=9)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "root", {"ash": 2, "oak": 2})


def test_links_to_files_folders_and_classes_outside_are_followed_on_demand(root: Path, outside: Path) -> None:
    (root / "ash/one.png").symlink_to(outside / "elm/0.png")
    (root / "oak/more").symlink_to(outside / "yew")
    (root / "elm").symlink_to(outside / "elm")
    here = {f"{label}/{number}.png" for label in ("ash", "oak") for number in range(2)}
    there = {"ash/one.png", "oak/more/0.png", "oak/more/1.png", *(f"elm/{number}.png" for number in range(3))}
    left = open_input(root)
    assert {entry.name for entry in left.entries} == here and left.skipped == {LEADS_OUTSIDE: 3}
    assert "tans tasks scan --follow-links" in LEADS_OUTSIDE
    assert names(root) == here | there
    with scan(root, stored_size_px=16, follow_links=True) as found:
        # One file under two classes is the same contradiction as two copies of it.
        assert found.report.contradictions == (("ash/one.png", "elm/0.png"),)
        assert found.report.used == 8 and not found.report.skipped


def test_links_that_lead_round_end(root: Path, outside: Path) -> None:
    (root / "ash/up").symlink_to(root)
    (root / "ash/further up").symlink_to(root.parent)
    (root / "ash/top").symlink_to("/")
    (root / "ash/self").symlink_to(root / "ash")
    (root / "oak/out").symlink_to(outside)
    (outside / "back").symlink_to(root / "oak")
    (outside / "elm/loop").symlink_to(outside)
    (outside / "elm/side").symlink_to(outside / "yew")
    listed = open_input(root, follow_links=True)
    inodes = [Path(entry.path).stat().st_ino for entry in listed.entries if entry.path]
    assert len(inodes) == len(set(inodes)) == 4 + 5
    assert listed.skipped == {
        "link to a folder": 3,
        "link to a folder that holds this one": 2,
        "the same folder again": 2,
    }


def test_a_file_that_two_links_lead_to_is_listed_once(root: Path, outside: Path) -> None:
    for number in range(3):
        (root / f"ash/again {number}.png").symlink_to(outside / "elm/0.png")
    (root / "ash/folder").symlink_to(outside / "elm")
    listed = open_input(root, follow_links=True)
    assert len(listed.entries) == 4 + 3 and listed.skipped == {"the same file again": 3}


def test_links_that_lead_nowhere_are_listed_when_links_are_followed(root: Path, outside: Path) -> None:
    (root / "ash/gone.png").symlink_to(outside / "gone.png")
    (root / "ash/round").symlink_to("round")
    (root / "elm").symlink_to(outside / "no class")
    assert open_input(root).skipped == {LEADS_OUTSIDE: 2, "broken link": 1} and not open_input(root).bad
    listed = open_input(root, follow_links=True)
    assert dict(listed.bad) == dict.fromkeys(("ash/gone.png", "ash/round", "elm"), "broken link")
    (root / "yew").mkdir()
    (root / "yew/0.png").symlink_to(outside / "gone.png")
    with pytest.raises(EmptyClassError, match=r"no file that can be read: 'yew' \(0 of 1: 1 x broken link\)"):
        open_input(root, follow_links=True)


def test_splits_may_be_links(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_class_folders(tmp_path / "far" / split, {"ash": 2, "oak": 2})
    (tmp_path / "near/other").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / "near" / split).symlink_to(tmp_path / "far" / split)
    listed = open_input(tmp_path / "near", follow_links=True)
    assert {entry.split for entry in listed.entries} == {"train", "test"} and len(listed.entries) == 8


def test_a_table_takes_links_below_its_folder_but_no_path_that_leads_out_by_itself(tmp_path: Path) -> None:
    table = csv(tmp_path / "here/table.csv")
    away = folder(tmp_path / "away")
    (table.parent / "link").symlink_to(away / "ash")
    with table.open("a") as file:
        # The second path would leave through the link.
        file.write("link/0.png,ash\nlink/../oak/1.png,oak\n../away/oak/0.png,oak\n")
    listed = open_input(table)
    assert dict(listed.bad) == {
        "link/0.png": LEADS_OUTSIDE,
        "../away/oak/0.png": "outside the table's folder",
        f"{table.name}#{len(table.read_text().splitlines()) - 1}: oak/1.png": LEADS_OUTSIDE,
    }
    listed = open_input(table, follow_links=True)
    assert dict(listed.bad) == {"../away/oak/0.png": "outside the table's folder"}
    paths = {Path(entry.path) for entry in listed.entries if entry.path}
    assert away / "ash/0.png" in paths and not {path for path in paths if path.parent == away / "oak"}


def test_splits_of_links_outside_say_how_these_are_followed(tmp_path: Path) -> None:
    away = folder(tmp_path / "away")
    for split in ("train", "test"):
        (tmp_path / "x" / split).mkdir(parents=True)
        for name in ("ash", "oak"):
            (tmp_path / "x" / split / name).symlink_to(away / name)
    with pytest.raises(NoClassesError, match=r"but 4 x link that leads outside .*--follow-links.* train/<class>/"):
        open_input(tmp_path / "x")
    assert open_input(tmp_path / "x", follow_links=True).class_names == ("ash", "oak")


def test_a_folder_of_parquet_files_takes_links_to_such_files(tmp_path: Path) -> None:
    parquet(tmp_path / "far/train.parquet")
    parquet(tmp_path / "hub/one.parquet")
    (tmp_path / "hub/two.parquet").symlink_to(tmp_path / "far/train.parquet")
    left, all_of_it = open_input(tmp_path / "hub"), open_input(tmp_path / "hub", follow_links=True)
    assert left.skipped == {LEADS_OUTSIDE: 1} and len(all_of_it.entries) == 2 * len(left.entries)


def test_links_in_an_archive_stay_unread(tmp_path: Path) -> None:
    listed = open_input(write_zip(tmp_path / "a.zip", good_members()), follow_links=True)
    assert listed.class_names == CLASSES


def test_a_scan_that_was_broken_off_goes_on_only_with_the_same_links(root: Path, tmp_path: Path) -> None:
    limits = QueryLimits(16, 2, 0.5, thresholds=None)  # type: ignore[arg-type]
    for follow in (False, True, True):
        with pytest.raises(AttributeError):  # after everything was read
            scan_path(root, tmp_path, limits, None, follow_links=follow)
    assert len(list((tmp_path / ".resume/scan").glob("*/*.arrow"))) == 2
