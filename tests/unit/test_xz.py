"""xz files are read completely, whatever their parts, except those that would fill memory."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from tans_core.errors import ArchiveError
from tans_core.xz import XzFile
from tests.factories.archives import xz_dictionary

CONTENT = np.random.default_rng(0).integers(0, 40, 300_000, dtype=np.uint8).tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three streams, zeros between two of them and at the end."""
    parts = [lzma.compress(CONTENT[:100_000]), lzma.compress(b""), lzma.compress(CONTENT[100_000:])]
    (tmp_path / "x.xz").write_bytes(parts[0] + bytes(8) + parts[1] + parts[2] + bytes(70_000))
    return tmp_path / "x.xz"


@pytest.mark.parametrize("size", [1000, 65_536, 10**6])
def test_parts_of_any_size_give_the_whole(path: Path, size: int) -> None:
    with XzFile(path) as file:
        assert b"".join(iter(lambda: file.read(size), b"")) == CONTENT and file.tell() == len(CONTENT)


def test_it_goes_forwards_to_any_place(path: Path) -> None:
    with XzFile(path) as file:
        for place in (10, 70_000, 170_000, 299_990):
            assert file.seek(place) == place and file.read(10) == CONTENT[place : place + 10]
        assert file.seek(10**6) == len(CONTENT) and file.read(5) == b""
        with pytest.raises(OSError, match="forwards"):
            file.seek(0)


def test_a_cut_or_changed_file_is_broken(path: Path, tmp_path: Path) -> None:
    data = bytearray(lzma.compress(CONTENT))
    (tmp_path / "cut.xz").write_bytes(data[:-20])
    data[1000] ^= 1
    (tmp_path / "changed.xz").write_bytes(data)
    (tmp_path / "more.xz").write_bytes(lzma.compress(CONTENT) + b"and more" * 9)
    (tmp_path / "short.xz").write_bytes(lzma.compress(CONTENT) + b"more")
    for name, error in (("cut", EOFError), ("changed", lzma.LZMAError), ("more", lzma.LZMAError), ("short", EOFError)):
        with XzFile(tmp_path / f"{name}.xz") as file, pytest.raises(error):
            file.seek(10**6)


def test_a_dictionary_may_be_as_large_as_the_tool_itself_writes_it(tmp_path: Path) -> None:
    with XzFile(xz_dictionary(28)(tmp_path)) as file:
        assert len(file.read(1000)) == 1000
    with XzFile(xz_dictionary(29)(tmp_path)) as file, pytest.raises(ArchiveError, match=r"more than 64 MiB .*\bxz -9"):
        file.read(1000)
