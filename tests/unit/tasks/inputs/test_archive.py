"""Archives are read in place, with any content, and leave no files elsewhere."""

from __future__ import annotations

import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from tans_core.errors import ArchiveError, DataError, EmptyClassError, NoClassesError
from tans_core.tasks.inputs.archive import list_archive
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.inputs.readers import Limits
from tans_core.tasks.scan import scan
from tans_core.tasks.task import Task
from tests.factories.archives import CLASSES, PER_CLASS, good_members, write_tar, write_zip
from tests.factories.hostile_archives import HOSTILE
from tests.factories.images import encoded, equal_images, noise


def everything_below(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.lstat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_is_refused_or_listed_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    case = HOSTILE[name]
    (tmp_path / "inner").mkdir()
    path = case.make(tmp_path / "inner")
    before = everything_below(tmp_path)
    tracemalloc.start()
    if case.error is not None:
        with pytest.raises(case.error) as raised:
            scan(path, stored_size_px=16)
        assert case.is_said_in(str(raised.value)) and str(path) in str(raised.value)
    else:
        with scan(path, stored_size_px=16) as found:
            reasons = [reason for _, reason in found.report.bad]
            assert found.report.used >= 2 * PER_CLASS - 1
            assert any(case.is_said_in(reason) for reason in reasons) if case.words else not reasons
            assert found.task("t").info.class_names == CLASSES
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert everything_below(tmp_path) == before
    # Where the names of the hostile entries lead.
    assert not any(folder.joinpath("escape.png").exists() for folder in (*tmp_path.parents, Path("/tmp")))


def test_more_entries_than_the_limit_are_refused(tmp_path: Path) -> None:
    for path, kind in (
        (write_zip(tmp_path / "a.zip", good_members()), "zip"),
        (write_tar(tmp_path / "a.tar", good_members()), "tar"),
    ):
        with pytest.raises(ArchiveError, match="more than 5 entries"):
            list_archive(path, kind, limits=Limits(entries=5))


def tasks_of(path: Path) -> Task:
    with scan(path, stored_size_px=16) as found:
        return found.task("t")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_packing_gives_the_task_that_the_folder_gives(mode: str, tmp_path: Path) -> None:
    for name, data in good_members().items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    folder, tar = tasks_of(tmp_path / "folder"), tasks_of(write_tar(tmp_path / "a.tar", good_members(), mode))
    assert folder.info == tar.info and sorted(folder.sha256) == sorted(tar.sha256)
    zipped = tasks_of(write_zip(tmp_path / "a.zip", good_members()))
    assert equal_images(folder.images, zipped.images)
    assert folder.paths == zipped.paths


@pytest.mark.parametrize("prefix", ["photos/", "a/b/"])
def test_a_folder_around_everything_is_no_class(prefix: str, tmp_path: Path) -> None:
    members = {f"{prefix}ReadMe.txt": b"hi", "__MACOSX/ash/._0.png": b"x", f"{prefix}ash/.DS_Store": b"x"}
    task = tasks_of(write_zip(tmp_path / "a.zip", {**members, **good_members(prefix)}))
    assert task.info.class_names == CLASSES


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_of_the_folder_it_was_made_in_is_read(format: int, tmp_path: Path) -> None:
    # `tar -cf a.tar .` begins with the folder itself, ./
    for name, data in good_members("photos/").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as archive:
        archive.add(tmp_path / "photos", ".")
        top = archive.gettarinfo(tmp_path / "photos", "./")
        archive.addfile(top)
    listed = open_input(tmp_path / "a.tar")
    assert listed.class_names == CLASSES and not listed.bad
    assert sorted(listed.read(listed.entries), key=repr) == sorted(good_members().values(), key=repr)


@pytest.mark.parametrize("beside", ["LICENSE", "cover.jpg", "notes.md"])
def test_a_file_beside_the_folder_around_everything_makes_it_no_class(beside: str, tmp_path: Path) -> None:
    listed = open_input(write_tar(tmp_path / "a.tar", {beside: encoded(noise()), **good_members("photos/")}))
    assert listed.class_names == CLASSES and listed.skipped["file outside class folders"] == 1


@pytest.mark.parametrize("only", ["readme.txt", ".DS_Store", ".ipynb_checkpoints/0.png", "Thumbs.db"])
@pytest.mark.parametrize("prefix", ["", "photos/", "train/"])
def test_a_class_without_an_image_is_said_also_where_folders_have_no_entry(
    prefix: str, only: str, tmp_path: Path
) -> None:
    members = {**good_members(prefix), f"{prefix}yew/{only}": b"x"}
    if prefix == "train/":
        members |= good_members("test/")
    path = write_zip(tmp_path / "a.zip", members)
    with pytest.raises(EmptyClassError, match="'yew'"):
        open_input(path)
    assert open_input(path, drop_empty_classes=True).class_names == CLASSES


def layouts() -> dict[str, dict[str, bytes]]:
    """What lies in folders that are called as splits are, though not all of them hold one."""
    loose = {f"test/{number}.png": encoded(noise(seed=number)) for number in range(4)}
    return {
        "no labels": {**good_members("train/"), **loose},
        "two train": {**good_members("train/"), **good_members("training/")},
    }


def test_classes_that_are_called_as_splits_are_are_refused_by_name(tmp_path: Path) -> None:
    flat = {
        f"{name}/{number}.png": encoded(noise(seed=number)) for name in ("bus", "train", "dev") for number in range(4)
    }
    with pytest.raises(NoClassesError, match=r"no class folders in 'dev', 'train', .* rename them"):
        open_input(write_zip(tmp_path / "a.zip", flat))


def test_an_image_beside_class_folders_below_one_folder_is_none_of_them(tmp_path: Path) -> None:
    members = {"d/a/1.png": encoded(noise()), "d/2.png": encoded(noise(seed=1)), "e.png": encoded(noise(seed=2))}
    with pytest.raises(NoClassesError, match="only one class, 'd'"):
        open_input(write_zip(tmp_path / "a.zip", members))


@pytest.mark.parametrize("name", layouts())
def test_splits_are_found_as_in_the_folder_that_was_packed(name: str, tmp_path: Path) -> None:
    members = layouts()[name]
    for path, data in members.items():
        (tmp_path / "x" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / path).write_bytes(data)
    folder, packed = open_input(tmp_path / "x"), open_input(write_zip(tmp_path / "x.zip", members))
    assert [entry[:3] for entry in folder.entries] == [entry[:3] for entry in packed.entries]
    assert {entry.split for entry in folder.entries} == {None} and folder.skipped == packed.skipped


def test_a_letter_and_a_colon_may_begin_a_name(tmp_path: Path) -> None:
    members = {f"A: first/{name}": data for name, data in good_members("").items() if name.startswith(CLASSES[0])}
    listed = open_input(write_zip(tmp_path / "a.zip", {**good_members(), **members}))
    assert listed.class_names == ("A: first", *CLASSES)


def test_notes_beside_the_folder_around_everything_make_it_no_class(tmp_path: Path) -> None:
    listed = open_input(write_zip(tmp_path / "a.zip", {"README.md": b"hi", **good_members("photos/")}))
    assert listed.class_names == CLASSES and listed.skipped["file outside class folders"] == 1


def test_folders_and_names_of_windows_are_taken(tmp_path: Path) -> None:
    members = {name.replace("/", "\\"): data for name, data in good_members().items()}
    listed = open_input(write_zip(tmp_path / "a.zip", {"ash\\": b"", **members}))
    assert listed.class_names == CLASSES and len(listed.entries) == 2 * PER_CLASS and not listed.skipped


def test_a_large_zip_that_leaves_its_sizes_to_zip64_is_read(tmp_path: Path) -> None:
    # Some tools fill every older field with ones. The file is sparse: half a gigabyte that takes no room.
    path, gap = write_zip(tmp_path / "a.zip", good_members()), 2**29
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    count, size, place = struct.unpack_from("<HII", data, end + 10)
    kept = bytearray(data[:end])
    at = kept.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", kept, at + 42, struct.unpack_from("<I", kept, at + 42)[0] + gap)
        at = kept.find(b"PK\x01\x02", at + 4)
    zip64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, place + gap)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end + gap, 1)
    ones = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(gap)
        file.write(bytes(kept) + zip64 + locator + ones)
    listed = open_input(path)
    assert list(listed.read(listed.entries)) == [good_members()[entry.name] for entry in listed.entries]


def test_splits_in_an_archive_are_kept(tmp_path: Path) -> None:
    other = {name: encoded(noise(20, 20, seed=1000 + index)) for index, name in enumerate(good_members("data/test/"))}
    task = tasks_of(write_zip(tmp_path / "a.zip", {**good_members("data/train/"), **other}))
    assert task.info.class_names == CLASSES and task.info.counts["test"] == 2 * PER_CLASS


def test_empty_and_single_classes_of_an_archive_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_zip(tmp_path / "a.zip", good_members()), "a") as archive:
        archive.mkdir("elm")
    with pytest.raises(EmptyClassError, match="'elm'"):
        open_input(tmp_path / "a.zip")
    assert open_input(tmp_path / "a.zip", drop_empty_classes=True).class_names == CLASSES
    one = {name: data for name, data in good_members().items() if name.startswith("ash")}
    with pytest.raises(NoClassesError, match="only one class, 'ash'"):
        open_input(write_zip(tmp_path / "b.zip", one))


def test_a_class_of_which_no_entry_can_be_read_says_why(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_zip(tmp_path / "a.zip", {**good_members(), "elm/more.zip": b"PK"}), "a") as archive:
        for number in range(2):
            info = zipfile.ZipInfo(f"elm/{number}.png")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
        archive.mkdir("yew")
    with pytest.raises(EmptyClassError) as raised:
        open_input(tmp_path / "a.zip")
    assert (
        "2 of 4 classes" in str(raised.value)
        and "hold no file that can be read: 'elm' (0 of 3: 2 x a link: put the file itself into the archive; "
        "1 x an archive inside the archive: unpack it first), 'yew'.\n"
        in str(raised.value)
    )
    dropped = open_input(tmp_path / "a.zip", drop_empty_classes=True)
    assert dropped.class_names == CLASSES and len(dropped.bad) == 3


def test_parts_may_be_left_out_and_read_again(tmp_path: Path) -> None:
    archive = open_input(write_tar(tmp_path / "a.tgz", good_members(), "w:gz"))
    some = [archive.entries[index] for index in (1, 4, 9)]
    contents = [good_members()[entry.name] for entry in some]
    assert list(archive.read(some)) == contents
    assert list(archive.read(some[::-1])) == contents[::-1]


def test_what_is_no_archive_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        open_input(tmp_path / "gone.zip")
