"""A user's own images as a source."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tans_core.errors import DataError, ParamsError, TooManyBadFilesError
from tans_core.tasks.inputs.folder import list_folder
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.sources.base import Sample, licence_of
from tans_core.tasks.sources.image_folder import ImageFolder, digest_of
from tests.factories.images import noise, write_class_folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "trees", {"ash": 3, "oak": 4})


def load(path: Path, **options: object) -> list[Sample]:
    return list(ImageFolder().load({"path": str(path), **options}, seed=0))


def test_each_image_comes_with_its_class_and_the_hash_of_its_file(folder: Path) -> None:
    samples = load(folder)
    assert Counter(sample.label for sample in samples) == {"ash": 3, "oak": 4}
    assert len({sample.sha256 for sample in samples}) == 7
    assert {sample.image.shape for sample in samples} == {(24, 24, 3)}


def test_bad_files_are_left_out_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "ash/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert len(load(folder)) == 7
    assert "ash/broken.png: left out" in caplog.text
    with pytest.raises(TooManyBadFilesError, match="1 of 8 files"):
        load(folder, max_bad_share=0.1)


def test_a_folder_that_changed_since_it_was_added_is_refused(folder: Path) -> None:
    digest = digest_of(list_folder(folder).entries)
    assert len(load(folder, digest=digest)) == 7
    os.utime(folder / "ash/0.png", (1, 1))
    with pytest.raises(DataError, match=r"the folder changed since it was added .*\n.*tans tasks add .* --replace"):
        load(folder, digest=digest)


def test_digest_depends_on_no_order(folder: Path) -> None:
    entries = list_folder(folder).entries
    assert digest_of(entries) == digest_of(reversed(entries))
    assert digest_of(entries) != digest_of(entries[1:])


def test_licence_is_what_the_user_says() -> None:
    assert licence_of(ImageFolder(), {"licence": "CC0-1.0"}) == "CC0-1.0"
    assert licence_of(ImageFolder(), {}) == "the user's own"


def test_missing_names_the_path(tmp_path: Path) -> None:
    source = ImageFolder()
    assert source.missing({"path": str(tmp_path)}) is None
    assert "options.path" in (source.missing({}) or "")
    assert str(tmp_path / "gone") in (source.missing({"path": str(tmp_path / "gone")}) or "")
    with pytest.raises(ParamsError, match=r"options\.path: missing"):
        list(source.load({}, seed=0))


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_gives_what_its_folder_gives(folder: Path, kind: str) -> None:
    (folder / "ash/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    packed = Path(shutil.make_archive(str(folder.parent / "packed"), kind, folder.parent, "trees"))
    digest = digest_of(open_input(packed).entries)
    unpacked, read = load(folder), load(packed, digest=digest)
    assert {(one.label, one.sha256) for one in read} == {(one.label, one.sha256) for one in unpacked}
    assert len(read) == 7
    os.utime(packed, (1, 1))
    with pytest.raises(DataError, match="the file changed since it was added"):
        load(packed, digest=digest)


def test_near_copies_share_a_group(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 6, "oak": 6})
    photo = Image.fromarray(noise(12, 12, seed=5)).resize((96, 96), Image.Resampling.BICUBIC)
    photo.save(root / "ash" / "a.png")
    photo.save(root / "ash" / "b.jpg", quality=40)
    samples = list(ImageFolder().load({"path": str(root)}, 0))
    assert [sample.path for sample in samples if sample.group] == ["ash/a.png", "ash/b.jpg"]
    assert len({sample.group for sample in samples if sample.group}) == 1
