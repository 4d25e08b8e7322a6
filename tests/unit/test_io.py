import json
import stat
from pathlib import Path

import pytest

from tans_core.errors import StoreError
from tans_core.io import atomic_folder, atomic_path, read_json, sha256_bytes, sha256_file, write_json, write_text


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_that_failed_half_way_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "card.json"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="power cut"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")
    assert target.read_text() == "old"
    assert listing(tmp_path) == ["card.json"]


@pytest.mark.parametrize("where", ["file/report.html", "file/deeper/report.html", "folder", "x" * 300])
def test_path_at_which_there_can_be_no_file_is_said(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"cannot be written: .*\. Name another file"), atomic_path(tmp_path / where):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_file_appears_only_once_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "card.json"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.parent == target.parent, "a rename across file systems is a copy"
    assert target.read_text() == "new"
    assert listing(target.parent) == ["card.json"]


def test_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text("x", tmp_path / "atomic")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


def test_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "task"
    target.mkdir()
    (target / "stale.txt").touch()
    with atomic_folder(target) as temporary:
        (temporary / "fresh.txt").touch()
        assert listing(target) == ["stale.txt"]
    assert listing(target) == ["fresh.txt"]
    assert listing(tmp_path) == ["task"]


def test_folder_that_failed_half_way_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "task"
    target.mkdir()
    (target / "old.txt").touch()
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "half.txt").touch()
        raise RuntimeError
    assert listing(target) == ["old.txt"]
    assert listing(tmp_path) == ["task"]


def test_json_is_sorted_and_keeps_letters_of_any_script(tmp_path: Path) -> None:
    write_json({"b": "ヒ", "a": [1, 2.5]}, tmp_path / "x.json")
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.index('"a"') < text.index('"b"')
    assert "ヒ" in text
    assert read_json(tmp_path / "x.json") == {"a": [1, 2.5], "b": "ヒ"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_that_no_parser_must_read_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json({"accuracy": value}, tmp_path / "x.json")
    assert listing(tmp_path) == []


def test_hashes_of_file_and_of_its_bytes_agree_with_the_published_vector(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_bytes(b"abc") == sha256_file(tmp_path / "abc") == published


def test_written_json_is_json(tmp_path: Path) -> None:
    write_json([], tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_bytes()) == []
