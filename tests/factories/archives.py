"""Archives: valid ones, and functions that make hostile ones."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.factories.images import encoded, noise

CLASSES = ("ash", "oak")


PER_CLASS = 6


def good_members(prefix: str = "") -> dict[str, bytes]:
    """Names and contents of two classes of images."""
    return {
        f"{prefix}{label}/{number}.png": encoded(noise(20, 20, seed=100 * index + number))
        for index, label in enumerate(CLASSES)
        for number in range(PER_CLASS)
    }


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_tar(
    path: Path, members: dict[str, bytes], mode: str = "w", extra: list[tarfile.TarInfo] | None = None
) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info in extra or []:
            archive.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_entry(kind: bytes, target: str = "", name: str = "ash/odd.png") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.linkname = target
        return write_tar(folder / "a.tar", good_members(), extra=[info])

    return make


def zip_link(folder: Path) -> Path:
    path = write_zip(folder / "a.zip", good_members())
    info = zipfile.ZipInfo("ash/odd.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


def changed(path: Path, change: Callable[[bytearray], None]) -> Path:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))
    return path


def encrypted(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(magic) + place] |= 1

    return changed(write_zip(folder / "a.zip", good_members()), change)


def method(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        for magic, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            data[data.index(magic) + place] = 9

    return changed(write_zip(folder / "a.zip", good_members()), change)


def bad_sum(folder: Path) -> Path:
    path = write_zip(folder / "a.zip", good_members(), zipfile.ZIP_STORED)

    def change(data: bytearray) -> None:
        start = data.index(b"IDAT")
        data[start + 20] ^= 0xFF

    return changed(path, change)


def overlap(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        # The second entry of the directory points at the bytes of the first.
        first = data.index(b"PK\x01\x02")
        second = data.index(b"PK\x01\x02", first + 4)
        data[second + 42 : second + 46] = data[first + 42 : first + 46]

    return changed(write_zip(folder / "a.zip", good_members()), change)


def cut(path: Path, share: float = 0.5) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def zip_bomb(folder: Path) -> Path:
    # Eleven entries of 100 MiB: zeros that are compressed once and are in the file eleven times.
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(100 * 2**20)) + packer.flush()
    path = write_zip(
        folder / "a.zip", good_members() | {f"ash/zero{n:02}.png": packed for n in range(11)}, zipfile.ZIP_STORED
    )

    def change(data: bytearray) -> None:
        for magic, method, size, name in ((b"PK\x03\x04", 8, 22, 30), (b"PK\x01\x02", 10, 24, 46)):
            at = data.find(magic)
            while at >= 0:
                if data[at + name : at + name + 8] == b"ash/zero":
                    data[at + method] = zipfile.ZIP_DEFLATED
                    data[at + size : at + size + 4] = struct.pack("<I", 100 * 2**20)
                at = data.find(magic, at + 4)

    return changed(path, change)


def tar_bomb(folder: Path) -> Path:
    # A gzip file may be many gzip files in a row.
    path = folder / "a.tar.gz"
    zeros = gzip.compress(bytes(2**20), 1)
    with path.open("wb") as file:
        for number in range(9):
            info = tarfile.TarInfo(f"ash/zero{number}.png")
            info.size = 128 * 2**20
            file.write(gzip.compress(info.tobuf()) + 128 * zeros)
    return path


def huge_claim(folder: Path) -> Path:
    info = tarfile.TarInfo("ash/huge.png")
    info.size = 2**40
    path = folder / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return path


def huge_header(folder: Path) -> Path:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    info.size = 2**33
    path = folder / "a.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**20))
    return path


def headers(kind: bytes, body: bytes, times: int = 1) -> Callable[[Path], Path]:
    """Make a tar that begins with extended headers."""

    def make(folder: Path) -> Path:
        info = tarfile.TarInfo("x")
        info.type = kind
        info.size = len(body)
        header = info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)
        path = write_tar(folder / "a.tar", good_members())
        path.write_bytes(times * header + path.read_bytes())
        return path

    return make


def negative_size(folder: Path) -> Path:
    header = bytearray(tarfile.TarInfo("ash/odd.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + struct.pack(">h", -512)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = write_tar(folder / "a.tar", good_members())
    path.write_bytes(bytes(header) + path.read_bytes())
    return path


def broken_header(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        data[data.index(b"oak/0.png") + 148] ^= 1

    return changed(write_tar(folder / "a.tar", good_members()), change)


def cut_between_entries(folder: Path) -> Path:
    path = write_tar(folder / "a.tar", good_members())
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"oak/3.png")])
    return path


def bad_gzip_sum(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        data[-6] ^= 1

    return changed(write_tar(folder / "a.tgz", good_members(), "w:gz"), change)


def directory_field(place: int, value: bytes) -> Callable[[Path], Path]:
    """Make a zip with a changed first entry of the directory."""

    def make(folder: Path) -> Path:
        def change(data: bytearray) -> None:
            start = data.index(b"PK\x01\x02") + place
            data[start : start + len(value)] = value

        return changed(write_zip(folder / "a.zip", good_members()), change)

    return make


def many_entries(folder: Path) -> Path:
    # A sparse file of half a gigabyte whose end record calls all of it the directory; reading it would fill memory.
    path = folder / "a.zip"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(2**29)
        file.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 9, 9, 2**29, 0, 0))
    return path


def zip_dictionary(size: int) -> Callable[[Path], Path]:
    """Make a zip, compressed by LZMA, whose first entry declares a dictionary of so many bytes."""

    def make(folder: Path) -> Path:
        def change(data: bytearray) -> None:
            name, extra = struct.unpack_from("<HH", data, 26)
            struct.pack_into("<I", data, 30 + name + extra + 5, size)

        return changed(write_zip(folder / "a.zip", good_members(), zipfile.ZIP_LZMA), change)

    return make


def xz_dictionary(code: int) -> Callable[[Path], Path]:
    """Make a tar.xz that declares a dictionary size by its code: 28 is 64 MiB, 40 is 4 GiB."""

    def make(folder: Path) -> Path:
        def change(data: bytearray) -> None:
            # The header of the first block: its length, flags, filter LZMA2, one byte of properties, padding, checksum.
            assert data[14:16] == b"\x21\x01"
            data[16] = code
            end = 12 + 4 * data[12]
            data[end : end + 4] = struct.pack("<I", zlib.crc32(data[12:end]))

        return changed(write_tar(folder / "a.txz", good_members(), "w:xz"), change)

    return make


def twice(folder: Path) -> Path:
    path = write_zip(folder / "a.zip", good_members())
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("ash/0.png", encoded(noise(20, 20, seed=9)))
    return path


def renamed(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def file_named(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make
