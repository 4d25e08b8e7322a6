"""What a zip or tar holds, entry by entry: nothing is unpacked to disk, no size is believed, no read is unbounded."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

from tans_core.errors import ArchiveError
from tans_core.tasks.inputs.base import MAX_FILE_BYTES

BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, struct.error, ValueError)
"""What the parsers of broken archives raise."""

UNPACK = "Unpack it with the tool that made it, then scan the folder."
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_HEADER_BYTES = 16 * 2**20
_DIRECTORY_ENTRY_BYTES = 400


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: entries, bytes unpacked in all, and times its own size from `ratio_from_bytes` on."""

    entries: int = 1_000_000
    total_bytes: int = 64 * 2**30
    ratio: int = 200
    ratio_from_bytes: int = 2**30

    def cap(self, packed_bytes: int) -> int:
        """Return how many bytes an archive of this size may unpack to."""
        return min(self.total_bytes, max(self.ratio_from_bytes, self.ratio * packed_bytes))


class Member(NamedTuple):
    """One entry of an archive; `problem` says why it can never be read."""

    name: str
    number: int
    size: int
    folder: bool = False
    problem: str | None = None


class Reader(Protocol):
    """One kind of archive."""

    kind: str

    def members(self, limits: Limits) -> Iterator[Member]: ...
    def read(self, numbers: Sequence[int]) -> Iterator[bytes | str]: ...


class ZipReader:
    """A zip file, read by random access."""

    kind = "zip"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: zipfile.ZipFile | None = None
        self._infos: list[zipfile.ZipInfo] = []

    def members(self, limits: Limits) -> Iterator[Member]:
        # Opening reads the whole directory into memory: its size is looked at first.
        size = self._directory_bytes()
        if size > limits.entries * _DIRECTORY_ENTRY_BYTES:
            raise ArchiveError(
                f"{self._path}: a directory of {size:,} bytes; at most {limits.entries:,} entries. {UNPACK}"
            )
        self._file = zipfile.ZipFile(self._path)
        self._infos = self._file.infolist()
        self._check_overlap()
        for number, info in enumerate(self._infos):
            if info.flag_bits & 0x41:
                raise ArchiveError(
                    f"{self._path}: encrypted ({info.filename!r}). Unpack it with its password, then scan the folder."
                )
            if info.compress_type not in _METHODS:
                raise ArchiveError(
                    f"{self._path}: {info.filename!r} is packed by method {info.compress_type}, which is not read. {UNPACK}"
                )
            mode = info.external_attr >> 16
            yield Member(_zip_name(info), number, info.file_size, info.is_dir(), _special(mode))

    def read(self, numbers: Sequence[int]) -> Iterator[bytes | str]:
        assert self._file is not None
        for number in numbers:
            try:
                with self._file.open(self._infos[number]) as member:
                    yield member.read(MAX_FILE_BYTES + 1)
            except (*BROKEN, NotImplementedError, RuntimeError) as error:
                yield f"broken in the archive: {error}"[:200]

    def _directory_bytes(self) -> int:
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            file.seek(max(0, size - 2**16 - 22))
            tail = file.read()
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or place + 16 > len(tail):
            raise zipfile.BadZipFile("no directory at its end")
        claimed: int = struct.unpack_from("<I", tail, place + 12)[0]
        return min(claimed, size)

    def _check_overlap(self) -> None:
        spans = sorted((info.header_offset, info.header_offset + info.compress_size) for info in self._infos)
        for (_, end), (start, _) in itertools.pairwise(spans):
            if start < end:
                raise ArchiveError(
                    f"{self._path}: entries share their bytes, as in archives made to fill disks. Delete it."
                )


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a name; many tools write UTF-8 without saying so."""
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            return info.filename.encode("cp437").decode("utf-8")
    return info.filename


def _special(mode: int) -> str | None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return "a link: put the file itself into the archive"
    return None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "a device or pipe, no file"


class TarReader:
    """A tar file, plain or packed as a whole, read forwards."""

    kind = "tar"

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._tar: tarfile.TarFile | None = None
        self._guard: _Guard | None = None
        self._next = 0

    def members(self, limits: Limits) -> Iterator[Member]:
        self._open()
        while (info := self._step()) is not None:
            # A sparse file's size is what it claims, not what is there; it is left out and takes no room.
            size = 0 if info.issparse() else info.size
            yield Member(info.name, self._next - 1, size, info.isdir(), _tar_problem(info))
        self._close()

    def read(self, numbers: Sequence[int]) -> Iterator[bytes | str]:
        for number in numbers:
            try:
                if self._tar is None or number < self._next:
                    self._open()
                yield self._read_one(number)
            except (*BROKEN, ArchiveError) as error:
                self._close()
                yield f"broken in the archive: {error}"[:200]

    def _read_one(self, number: int) -> bytes | str:
        assert self._tar is not None and self._guard is not None
        while (info := self._step()) is not None:
            if self._next - 1 == number:
                member = self._tar.extractfile(info)
                assert member is not None
                self._guard.most = MAX_FILE_BYTES + 1
                data = member.read()
                self._guard.most = _HEADER_BYTES
                return data
        return "broken in the archive: no longer there"

    def _step(self) -> tarfile.TarInfo | None:
        assert self._tar is not None
        info = self._tar.next()
        self._next += 1
        # It keeps every header that it has read.
        cast("Any", self._tar).members = []
        return info

    def _open(self) -> None:
        self._close()
        self._guard = _Guard(self._path, self._limits.cap(self._path.stat().st_size))
        self._tar = tarfile.open(fileobj=cast("IO[bytes]", self._guard), mode="r:")  # noqa: SIM115  closed by _close
        self._next = 0

    def _close(self) -> None:
        if self._tar is not None and self._guard is not None:
            self._tar.close()
            self._guard.close()
        self._tar = self._guard = None


def _tar_problem(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "a link: put the file itself into the archive"
    if info.issparse():
        return "a sparse file: pack it without --sparse"
    return None if info.isdir() or info.isreg() else "a device or pipe, no file"


class _Guard(io.RawIOBase):
    """What a tar is read through: unpacked on the way, never further than `cap`, and never more than `most` at a time."""

    def __init__(self, path: Path, cap: int) -> None:
        super().__init__()
        self._path = path
        self._cap = cap
        self.most = _HEADER_BYTES
        with path.open("rb") as file:
            magic = file.read(6)
        opener: Any = open
        for start, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\x00", lzma)):
            if magic.startswith(start):
                opener = module.open
        self._file: IO[bytes] = opener(path, "rb")

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.most:
            raise ArchiveError(
                f"{self._path}: a header that claims {size:,} bytes. It is broken or made to fill memory: delete it."
            )
        return self._file.read(size)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        target = place if whence == io.SEEK_SET else self._file.tell() + place
        if whence == io.SEEK_END or target > self._cap:
            raise ArchiveError(
                f"{self._path}: an entry that reaches to byte {target:,}; at most {self._cap:,} are allowed. "
                "It is broken or made to fill disks: delete it."
            )
        return self._file.seek(target)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
