"""LZMA with a limit on memory: the file itself states how much unpacking takes, up to 4 GiB."""

from __future__ import annotations

import io
import lzma
import struct
from pathlib import Path
from typing import IO

from tans_core.errors import ArchiveError

MAX_DICTIONARY_BYTES = 64 * 2**20
"""As `xz -9` writes it."""

# With the decoder's own memory.
_MEMORY_BYTES = MAX_DICTIONARY_BYTES + 8 * 2**20
_READ_BYTES = 2**16
_LOCAL_HEADER_BYTES = 30


class XzFile(io.RawIOBase):
    """The content of an xz file of one or several streams, read forwards only."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file = path.open("rb")
        self._decoder: lzma.LZMADecompressor | None = None
        self._offset = 0

    def tell(self) -> int:
        return self._offset

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Skip forwards to an offset."""
        if whence != io.SEEK_SET or offset < self._offset:
            raise io.UnsupportedOperation("an xz file is read forwards")
        while self._offset < offset and self.read(min(_READ_BYTES, offset - self._offset)):
            pass
        return self._offset

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer only at the end.

        Raises:
            ArchiveError: the file needs a dictionary above `MAX_DICTIONARY_BYTES`.
            lzma.LZMAError, EOFError: the file is broken, or cut short.
        """
        if size < 0:
            raise io.UnsupportedOperation("an xz file is read in parts")
        parts = []
        while size and (data := self._some(size)):
            parts.append(data)
            size -= len(data)
            self._offset += len(data)
        return b"".join(parts)

    def close(self) -> None:
        self._file.close()
        self._decoder = None
        super().close()

    def _some(self, size: int) -> bytes:
        """Return between 1 and `size` bytes; b"" at the end."""
        while True:
            if self._decoder is None or self._decoder.eof:
                data = self._next_stream()
                if not data:
                    return b""
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY_BYTES)
            else:
                data = self._file.read(_READ_BYTES) if self._decoder.needs_input else b""
                if self._decoder.needs_input and not data:
                    raise EOFError("the xz file ends before its end mark")
            try:
                unpacked = self._decoder.decompress(data, size)
            except lzma.LZMAError as error:
                if "memory" in str(error).lower():
                    raise ArchiveError(
                        f"{self._path}: an xz file that takes more than {MAX_DICTIONARY_BYTES // 2**20} MiB of memory "
                        "to unpack. Pack it again with `xz -9` or less, or unpack it and scan the folder."
                    ) from error
                raise
            if unpacked:
                return unpacked

    def _next_stream(self) -> bytes:
        """Return the first bytes of the next stream, skipping zeros between streams; b"" at the end."""
        data = self._decoder.unused_data if self._decoder is not None else b""
        while not (data := data.lstrip(b"\0")):
            data = self._file.read(_READ_BYTES)
            if not data:
                break
        return data


def zip_dictionary_bytes(file: IO[bytes], header_offset: int) -> int:
    """Return the size of the dictionary that an LZMA entry of a zip needs; 0 if it cannot be read.

    Args:
        file: the zip.
        header_offset: offset of the entry's own header.
    """
    file.seek(header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    if len(header) < _LOCAL_HEADER_BYTES:
        return 0
    name, extra = struct.unpack_from("<HH", header, 26)
    # 2 bytes of version, 2 of the properties' length, 1 of parameters, 4 of the dictionary's size.
    file.seek(name + extra, io.SEEK_CUR)
    start = file.read(9)
    return int(struct.unpack_from("<I", start, 5)[0]) if len(start) == 9 else 0
