"""Notes of a scan besides its counts: blank pictures, names in two spellings, folders of other files."""

from __future__ import annotations

import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tans_core.errors import EmptyClassError
from tans_core.tasks.scan import scan
from tans_core.views.summary import summary
from tests.factories.images import encoded, write_class_folders


def test_blank_and_nearly_blank_pictures_are_counted_and_a_star_in_the_dark_is_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("ash", "oak"):
        (tmp_path / label).mkdir()
        for number in range(20):
            near = 120 + number + rng.normal(0, 2, (64, 64, 3)).round()
            (tmp_path / label / f"near{number}.png").write_bytes(encoded(near.astype(np.uint8)))
            star = np.full((64, 64, 3), number, np.uint8)
            star[number + 10, number + 20] = 255
            (tmp_path / label / f"star{number}.png").write_bytes(encoded(star))
    with scan(tmp_path, stored_size_px=32) as found:
        assert len(found.report.blank) == 40 and all("near" in name for name in found.report.blank)
        assert "40 blank images" in summary(found.report)


def test_classes_spelled_in_two_ways_are_one_class_and_it_is_said(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", {"oak": 4, unicodedata.normalize("NFC", "étang"): 4})
    write_class_folders(root, {unicodedata.normalize("NFD", "étang"): 3}, seed=3)
    for path in (root / unicodedata.normalize("NFD", "étang")).iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in names:
            archive.write(root / name, name)
    (root / "labels.csv").write_text("\n".join(["path,label", *(f"{name},{name.split('/')[0]}" for name in names)]))
    for path in (root, tmp_path / "photos.zip", root / "labels.csv"):
        with scan(path, stored_size_px=16) as found:
            assert found.report.classes == {"oak": 4, unicodedata.normalize("NFC", "étang"): 7}, path
            assert any("'étang' is written in 2 ways" in note for note in found.report.notes), path


def test_folders_of_notes_alone_say_what_they_hold(tmp_path: Path) -> None:
    for label in ("ash", "oak"):
        (tmp_path / label).mkdir()
        for number in range(4):
            (tmp_path / label / f"{number}.txt").write_text("a word")
    with pytest.raises(EmptyClassError, match=r"'ash' \(0 of 4: 4 x not an image by its name \(\.txt\)\)"):
        scan(tmp_path, stored_size_px=16)
