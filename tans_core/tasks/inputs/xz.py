"""LZMA without trust: how much memory unpacking takes is written by whoever packed, up to 4 GiB."""

from __future__ import annotations

import io
import lzma
import struct
from pathlib import Path
from typing import IO

from tans_core.errors import ArchiveError

MAX_DICTIONARY_BYTES = 64 * 2**20
"""As `xz -9` writes it."""

# What a decoder takes beside the dictionary.
_MEMORY_BYTES = MAX_DICTIONARY_BYTES + 8 * 2**20
_READ_BYTES = 2**16
_LOCAL_HEADER_BYTES = 30


class XzFile(io.RawIOBase):
    """The content of an xz file, forwards alone; one stream or several."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file = path.open("rb")
        self._decoder: lzma.LZMADecompressor | None = None
        self._place = 0

    def tell(self) -> int:
        return self._place

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Go forwards to a place."""
        if whence != io.SEEK_SET or place < self._place:
            raise io.UnsupportedOperation("an xz file is read forwards")
        while self._place < place and self.read(min(_READ_BYTES, place - self._place)):
            pass
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end.

        Raises:
            ArchiveError: a dictionary above `MAX_DICTIONARY_BYTES` is asked for.
            lzma.LZMAError, EOFError: the file is broken, or cut short.
        """
        if size < 0:
            raise io.UnsupportedOperation("an xz file is read in parts")
        parts = []
        while size and (data := self._some(size)):
            parts.append(data)
            size -= len(data)
            self._place += len(data)
        return b"".join(parts)

    def close(self) -> None:
        self._file.close()
        self._decoder = None
        super().close()

    def _some(self, size: int) -> bytes:
        """Return at least a byte and at most `size`; nothing at the end."""
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
                        f"{self._path}: an xz file that takes more than {MAX_DICTIONARY_BYTES // 2**20} MiB of memory to unpack. "
                        "Pack it again with `xz -9` or less, or unpack it and scan the folder."
                    ) from error
                raise
            if unpacked:
                return unpacked

    def _next_stream(self) -> bytes:
        """Return the first bytes of the next stream; nothing at the end. Zeros may fill the room between streams."""
        data = self._decoder.unused_data if self._decoder is not None else b""
        while not (data := data.lstrip(b"\0")):
            data = self._file.read(_READ_BYTES)
            if not data:
                break
        return data


def zip_dictionary_bytes(file: IO[bytes], header_offset: int) -> int:
    """Return how large a dictionary an entry of a zip, packed by LZMA, asks for; 0 where that cannot be told.

    Args:
        file: the zip.
        header_offset: where the entry's own header begins.
    """
    file.seek(header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    if len(header) < _LOCAL_HEADER_BYTES:
        return 0
    name, extra = struct.unpack_from("<HH", header, 26)
    # Version of the tool, length of the properties, then those: a byte of parameters, four of the dictionary's size.
    file.seek(name + extra, io.SEEK_CUR)
    start = file.read(9)
    return int(struct.unpack_from("<I", start, 5)[0]) if len(start) == 9 else 0
