"""Readers of zip and tar, entry by entry: nothing is unpacked to disk, no stated size is trusted, reads are bounded."""

from __future__ import annotations

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
from tans_core.tasks.inputs.guard import TarGuard, ZipGuard
from tans_core.xz import MAX_DICTIONARY_BYTES, zip_dictionary_bytes

BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, RuntimeError, ArithmeticError, LookupError),
)
"""What parsers raise for broken archives."""

UNPACK = "Unpack it with the tool that made it, then scan the folder."
_LINK = "a link: put the file itself into the archive"
_DEVICE = "a device or pipe, no file: leave it out of the archive"
_BROKEN_ENTRY = "broken in the archive, pack it again"
# Not bzip2: zipfile unpacks a block at once, and bzip2 can turn a few hundred bytes into gigabytes.
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA}
_SMALL_READ = 4096
_NO_TAR = ("invalid header", "bad checksum", "empty file", "truncated header")


@dataclass(frozen=True)
class Limits:
    """Limits of an archive: entries, total bytes unpacked, and, above `ratio_from_bytes`, the ratio to its own size."""

    entries: int = 1_000_000
    total_bytes: int = 64 * 2**30
    ratio: int = 200
    ratio_from_bytes: int = 2**30

    def cap(self, packed_bytes: int) -> int:
        """Return the most bytes that an archive of this size may unpack to."""
        return min(self.total_bytes, max(self.ratio_from_bytes, self.ratio * packed_bytes))


class Member(NamedTuple):
    """One entry of an archive; `problem` is the reason why it can never be read."""

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
        guard = ZipGuard(self._path, limits.entries)
        self._file = zipfile.ZipFile(cast("IO[bytes]", guard))
        guard.opened = True
        self._infos = self._file.infolist()
        self._check_overlap()
        self._check_dictionaries()
        for number, info in enumerate(self._infos):
            if info.flag_bits & 0x41:
                raise ArchiveError(
                    f"{self._path}: encrypted ({info.filename!r}). Unpack it with its password, then scan the folder."
                )
            if info.compress_type not in _METHODS:
                raise ArchiveError(
                    f"{self._path}: {info.filename!r} is packed by method {info.compress_type}, "
                    f"which is not read. {UNPACK}"
                )
            name, mode = _zip_name(info), info.external_attr >> 16
            # Windows tools end the names of folders in a backslash.
            yield Member(name, number, info.file_size, name.endswith(("/", "\\")), _special(mode))

    def read(self, numbers: Sequence[int]) -> Iterator[bytes | str]:
        assert self._file is not None
        for number in numbers:
            info = self._infos[number]
            try:
                with self._file.open(info) as member:
                    yield _zip_content(member, info)
            except BROKEN as error:
                yield f"{_BROKEN_ENTRY}: {error}"[:200]

    def _check_overlap(self) -> None:
        spans = sorted((info.header_offset, info.header_offset + info.compress_size) for info in self._infos)
        for (_, end), (start, _) in itertools.pairwise(spans):
            if start < end:
                raise ArchiveError(
                    f"{self._path}: entries share their bytes, as in archives made to fill disks. Delete it."
                )

    def _check_dictionaries(self) -> None:
        packed = [info for info in self._infos if info.compress_type == zipfile.ZIP_LZMA]
        if not packed:
            return
        with self._path.open("rb") as file:
            for info in packed:
                wanted = zip_dictionary_bytes(file, info.header_offset)
                if wanted > MAX_DICTIONARY_BYTES:
                    raise ArchiveError(
                        f"{self._path}: {info.filename!r} needs a dictionary of {wanted:,} bytes of memory to unpack; "
                        f"at most {MAX_DICTIONARY_BYTES:,} are allowed. {UNPACK}"
                    )


def _zip_content(member: IO[bytes], info: zipfile.ZipInfo) -> bytes | str:
    if info.compress_type != zipfile.ZIP_LZMA:
        data = member.read(info.file_size + 1)
    else:
        # zipfile decompresses LZMA input without a limit on the output, so little is read at a time.
        data = b"".join(iter(lambda: member.read(_SMALL_READ), b""))
    if len(data) != info.file_size:
        return f"{_BROKEN_ENTRY}: {len(data):,} bytes, not {info.file_size:,}"
    return data


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a name; many tools write UTF-8 without setting the flag for it."""
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            return info.filename.encode("cp437").decode("utf-8")
    return info.filename


def _special(mode: int) -> str | None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return _LINK
    return None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else _DEVICE


class TarReader:
    """A tar file, plain or compressed, read forwards."""

    kind = "tar"

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._tar: tarfile.TarFile | None = None
        self._guard: TarGuard | None = None
        self._next = 0

    def members(self, limits: Limits) -> Iterator[Member]:
        self._open()
        while (info := self._step()) is not None:
            # A sparse file's size is only a claim; the file is left out, so it counts as empty.
            size = 0 if info.issparse() else info.size
            yield Member(info.name, self._next - 1, size, info.isdir(), _tar_problem(info))
        assert self._guard is not None
        self._guard.finish()
        self._close()

    def read(self, numbers: Sequence[int]) -> Iterator[bytes | str]:
        for number in numbers:
            try:
                if self._tar is None or number < self._next:
                    self._open()
                yield self._read_one(number)
            except (*BROKEN, ArchiveError) as error:
                self._close()
                yield f"{_BROKEN_ENTRY}: {error}"[:200]

    def _read_one(self, number: int) -> bytes | str:
        assert self._tar is not None and self._guard is not None
        while (info := self._step()) is not None:
            if self._next - 1 == number:
                member = self._tar.extractfile(info)
                assert member is not None
                self._guard.allow(info.size)
                return member.read()
        return f"{_BROKEN_ENTRY}: no longer there"

    def _step(self) -> tarfile.TarInfo | None:
        assert self._tar is not None and self._guard is not None
        self._guard.allow()
        info = self._tar.next()
        self._next += 1
        # Free memory: tarfile keeps every header, and the settings of global headers.
        cast("Any", self._tar).members = []
        self._tar.pax_headers = {}
        if info is not None and info.size < 0:
            raise tarfile.ReadError("an entry of negative size")
        return info

    def _open(self) -> None:
        self._close()
        self._guard = guard = TarGuard(self._path, self._limits.cap(self._path.stat().st_size))
        file = cast("IO[bytes]", guard)
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:", tarinfo=guard.header)  # noqa: SIM115  closed by _close
        except tarfile.ReadError as error:
            if guard.packed and str(error) in _NO_TAR:
                raise ArchiveError(f"{self._path}: packed, but no tar is inside. {UNPACK}") from error
            raise
        self._next = 0

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
        if self._guard is not None:
            self._guard.close()
        self._tar = self._guard = None


def _tar_problem(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return _LINK
    if info.issparse():
        return "a sparse file: pack it without --sparse"
    return None if info.isdir() or info.isreg() else _DEVICE
