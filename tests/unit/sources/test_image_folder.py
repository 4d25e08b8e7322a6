"""A user's own images as a source."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tans_core.errors import DataError, ParamsError, TooManyBadFilesError
from tans_core.licences import USERS_OWN, Licence
from tans_core.sources.base import Sample, licence_of, stated_licence
from tans_core.sources.image_folder import ImageFolder
from tans_core.tasks.scan import scan
from tests.factories.images import encoded, noise, write_class_folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "trees", {"ash": 3, "oak": 4})


def load(path: Path, **options: object) -> list[Sample]:
    return list(ImageFolder().load({"path": str(path), **options}, seed=0))


def digest_of(path: Path) -> str:
    with scan(path, stored_size_px=16) as found:
        return found.report.digest


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
    digest = digest_of(folder)
    assert len(load(folder, digest=digest)) == 7
    (folder / "ash/0.png").write_bytes(encoded(noise(24, 24, seed=1000)))
    with pytest.raises(DataError, match=r"changed since it was added .*\n.*tans tasks add .* --replace"):
        load(folder, digest=digest)


def test_another_copy_of_a_folder_is_the_same(folder: Path, tmp_path: Path) -> None:
    (folder / "ash/broken.png").write_bytes(b"x")
    digest = digest_of(folder)
    clone = tmp_path / "clone/trees"
    for path in sorted(folder.rglob("*.png"), reverse=True):
        (clone / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (clone / path.relative_to(folder)).write_bytes(path.read_bytes())
        os.utime(clone / path.relative_to(folder), (10**9, 10**9))
    assert len(load(clone, digest=digest)) == 7
    shutil.make_archive(str(tmp_path / "packed"), "zip", clone)
    assert digest_of(tmp_path / "packed.zip") == digest


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "ash/0.png").rename(root / "oak/9.png"),
        lambda root: (root / "ash/0.png").rename(root / "ash/9.png"),
        lambda root: (root / "ash/0.png").unlink(),
        lambda root: (root / "ash/broken.png").write_bytes(b"another"),
        lambda root: (root / "ash/9.png").write_bytes(b""),
    ],
    ids=[
        "another class",
        "another name",
        "one less",
        "another content of what is no image",
        "one more that is no image",
    ],
)
def test_a_change_of_any_file_is_noticed(folder: Path, change: Callable[[Path], object]) -> None:
    (folder / "ash/broken.png").write_bytes(b"x")
    before = digest_of(folder)
    change(folder)
    assert digest_of(folder) != before


def test_a_table_that_says_another_class_is_noticed(folder: Path) -> None:
    rows = [f"trees/{label}/{number}.png,{label}" for label in ("ash", "oak") for number in range(3)]
    table = folder.parent / "table.csv"
    table.write_text("\n".join(["path,label", *rows]))
    before = digest_of(table)
    table.write_text("\n".join(["path,label", *rows[:-1], rows[-1].replace(",oak", ",ash")]))
    assert digest_of(table) != before


def test_licence_is_what_the_user_says() -> None:
    assert licence_of(ImageFolder(), {"licence": "CC0-1.0"}) == "CC0-1.0"
    assert licence_of(ImageFolder(), {"licence": "gpl-2.0 or mit"}) == "GPL-2.0-only OR MIT"
    assert licence_of(ImageFolder(), {}) == USERS_OWN


def test_terms_that_the_user_states_in_words_are_kept() -> None:
    in_words = stated_licence(ImageFolder(), {"licence": "ask my aunt"})
    assert in_words == Licence("LicenseRef-ask-my-aunt", {"LicenseRef-ask-my-aunt": "ask my aunt"})
    texts = {"LicenseRef-aunt": "Ask her first."}
    named = stated_licence(ImageFolder(), {"licence": "MIT AND LicenseRef-aunt", "licence_texts": texts})
    assert named == Licence("LicenseRef-aunt AND MIT", texts)


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
    digest = digest_of(packed)
    unpacked, read = load(folder), load(packed, digest=digest)
    assert {(one.label, one.sha256) for one in read} == {(one.label, one.sha256) for one in unpacked}
    assert len(read) == 7
    os.utime(packed, (1, 1))
    assert len(load(packed, digest=digest)) == 7


def test_near_copies_share_a_group(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ash": 6, "oak": 6})
    photo = Image.fromarray(noise(12, 12, seed=5)).resize((96, 96), Image.Resampling.BICUBIC)
    photo.save(root / "ash" / "a.png")
    photo.save(root / "ash" / "b.jpg", quality=40)
    samples = list(ImageFolder().load({"path": str(root)}, 0))
    assert [sample.path for sample in samples if sample.group] == ["ash/a.png", "ash/b.jpg"]
    assert len({sample.group for sample in samples if sample.group}) == 1
