"""Files through which archives are parsed: no read or seek beyond a limit, no header that makes the parser hang."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from pathlib import Path
from typing import IO, Any

from tans_core.errors import ArchiveError
from tans_core.xz import XzFile

_HEADER_BYTES = 2**20
_HEADERS_A_MEMBER = 16
# tarfile of older Pythons searches a keyword in time quadratic in the length of a run of digits.
_DIGITS_IN_A_ROW = 300
_DIGITS = bytes(48 if 48 <= byte < 58 else 0 for byte in range(256))
_ZIP_ENTRY = b"PK\x01\x02"
_ZIP_ENTRY_BYTES = 400
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": XzFile}


class _Guard(io.RawIOBase):
    """A file that wraps another one."""

    _file: IO[bytes]

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


class ZipGuard(_Guard):
    """The file through which a zip is opened: checks its directory before zipfile makes an object of every entry."""

    def __init__(self, path: Path, entries: int) -> None:
        super().__init__()
        self._path = path
        self._entries = entries
        self._size = path.stat().st_size
        self._file = path.open("rb")
        self.opened = False

    def read(self, size: int = -1) -> bytes:
        if self.opened:
            return self._file.read(size)
        left = max(0, self._size - self._file.tell())
        size = left if size < 0 else min(size, left)
        if size > max(2**17, self._entries * _ZIP_ENTRY_BYTES):
            raise ArchiveError(
                f"{self._path}: its list of files has {size:,} bytes, too many for {self._entries:,} entries. "
                "Pack it in parts, or unpack it and scan the folder."
            )
        data = self._file.read(size)
        if data.count(_ZIP_ENTRY) > self._entries:
            raise ArchiveError(
                f"{self._path}: more than {self._entries:,} entries. "
                "Unpack it with the tool that made it, then scan the folder."
            )
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)


class TarGuard(_Guard):
    """The file through which a tar is read: decompressed, forwards only, never further than `cap`.

    Attributes:
        header: the class of headers for tarfile.
        ended: whether the tar's end mark was read. Without it, tarfile takes a broken header for the end.
    """

    def __init__(self, path: Path, cap: int) -> None:
        super().__init__()
        self._path = path
        self._cap = cap
        self._left = 0
        self._headers = 0
        self._records = False
        self.ended = False
        with path.open("rb") as file:
            magic = file.read(6)
        opener = next((opener for start, opener in _PACKED.items() if magic.startswith(start)), None)
        self.packed = opener is not None
        self._file: IO[bytes] = path.open("rb") if opener is None else opener(path)
        self.header = self._header_class()
        self.allow()

    def allow(self, size: int = _HEADER_BYTES) -> None:
        """Allow this many bytes to be read until the next call."""
        self._left = size
        self._headers = 0
        self._records = False

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            raise ArchiveError(
                f"{self._path}: a header that claims {size:,} bytes. It is broken or made to fill memory: delete it."
            )
        self._reach(self._file.tell() + size)
        data = self._file.read(size)
        self._left -= len(data)
        if self._records:
            self._records = False
            _check_records(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._file.tell():
            raise tarfile.ReadError("an entry that lies before its own header")
        self._reach(offset)
        return self._file.seek(offset)

    def finish(self) -> None:
        """Read the rest of a packed file: its checksum is at the end.

        Raises:
            tarfile.ReadError: there is no end mark.
        """
        if not self.ended:
            raise tarfile.ReadError(f"no header and no end mark at byte {self._file.tell():,}")
        while self.packed:
            self.allow()
            if not self.read(_HEADER_BYTES // 4):
                return

    def _reach(self, offset: int) -> None:
        if offset > self._cap + _HEADER_BYTES:
            raise ArchiveError(
                f"{self._path}: an entry that reaches to byte {offset:,}; at most {self._cap:,} are allowed. "
                "It is broken or made to fill disks: delete it."
            )

    def _header_class(self) -> type[tarfile.TarInfo]:
        guard = self

        class Header(tarfile.TarInfo):
            @classmethod
            def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
                try:
                    info = super().frombuf(buf, encoding, errors)
                except tarfile.EOFHeaderError:  # type: ignore[attr-defined,unused-ignore]
                    guard.ended = True
                    raise
                guard._headers += 1
                if info.size < 0 or guard._headers > _HEADERS_A_MEMBER:
                    raise tarfile.ReadError("a header of negative size, or too many headers in a row")
                guard._records = info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
                return info

        return Header


def _check_records(data: bytes) -> None:
    """Raise unless each line of an extended header is `length key=value`: older tarfiles trust any length."""
    offset = 0
    while offset < len(data) and data[offset]:
        space = data.find(b" ", offset, offset + 20)
        digits = data[offset:space] if space > offset else b""
        end = offset + int(digits) if digits.isdigit() else 0
        if not space < end <= len(data) or data[end - 1] != 0x0A or data.find(b"=", space, end) < space + 2:
            raise tarfile.ReadError("an extended header that is not made of records")
        offset = end
    if b"0" * _DIGITS_IN_A_ROW in data.translate(_DIGITS):
        raise tarfile.ReadError("an extended header of digits")
