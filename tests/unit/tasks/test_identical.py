"""The same image in several files is found in every file format, and no other file is read twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tans_core.tasks import identical
from tans_core.tasks.inputs.base import Input
from tans_core.tasks.reading import read_images
from tans_core.tasks.scan import scan
from tests.factories.archives import write_tar, write_zip
from tests.factories.images import encoded, noise

SAME = {"ash/same.png": "PNG", "ash/same.tif": "TIFF", "elm/same.bmp": "BMP", "elm/again.png": "PNG"}


def members() -> dict[str, bytes]:
    """Four files of one picture under two labels, as three files; the others differ."""
    others = {
        f"{name}/{number}.png": encoded(noise(48, 40, seed=10 * place + number))
        for place, name in enumerate(("ash", "elm"))
        for number in range(6)
    }
    return {**others, **{name: encoded(noise(48, 40, seed=99), kind) for name, kind in SAME.items()}}


def folder_of(root: Path) -> Path:
    for name, data in members().items():
        path = root / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root / "x"


def parquet_of(root: Path) -> Path:
    cells = [{"bytes": data, "path": name} for name, data in members().items()]
    table = pa.table({"image": cells, "label": [name.split("/")[0] for name in members()]})
    pq.write_table(table, root / "x.parquet", row_group_size=5)
    return root / "x.parquet"


@pytest.mark.parametrize(
    "make",
    [
        folder_of,
        parquet_of,
        lambda root: write_zip(root / "x.zip", members()),
        lambda root: write_tar(root / "x.tgz", members(), "w:gz"),
    ],
)
def test_the_same_picture_in_other_files_is_found_and_little_is_read_twice(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def watched(source: Input, entries: Iterable[identical.Entry]) -> Iterable[object]:
        for entry, image in read_images(source, entries):
            read.append(entry.name)
            yield entry, image

    monkeypatch.setattr(identical, "read_images", watched)
    with scan(make(tmp_path), stored_size_px=16) as found:
        assert {name for pair in found.report.contradictions for name in pair} == set(SAME)
        assert found.report.used == 12
    # One of each file; the two PNGs are one file.
    assert len(read) == 3 and set(read) < set(SAME)


def test_what_is_gone_when_it_is_compared_is_like_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path)
    (root / "elm/again.png").unlink()

    def late(source: Input, entries: Iterable[identical.Entry]) -> Iterable[object]:
        (root / "elm/same.bmp").unlink()
        return read_images(source, entries)

    monkeypatch.setattr(identical, "read_images", late)
    with scan(root, stored_size_px=16) as found:
        assert not found.report.contradictions and found.report.used == 15
