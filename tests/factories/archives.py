"""Archives as attackers, accidents and odd tools make them."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tans_core.errors import ArchiveError, DataError, NoClassesError, TansError
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


@dataclass(frozen=True)
class HostileCase:
    """How to make an archive, and what has to come of it: an error with these words, or a listed reason with these words."""

    make: Callable[[Path], Path]
    error: type[TansError] | None
    words: str


def _tar_entry(kind: bytes, target: str = "") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        info = tarfile.TarInfo("ash/odd.png")
        info.type = kind
        info.linkname = target
        return write_tar(folder / "a.tar", good_members(), extra=[info])

    return make


def _zip_link(folder: Path) -> Path:
    path = write_zip(folder / "a.zip", good_members())
    info = zipfile.ZipInfo("ash/odd.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


def _changed(path: Path, change: Callable[[bytearray], None]) -> Path:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))
    return path


def _encrypted(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(magic) + place] |= 1

    return _changed(write_zip(folder / "a.zip", good_members()), change)


def _method(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        for magic, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            data[data.index(magic) + place] = 9

    return _changed(write_zip(folder / "a.zip", good_members()), change)


def _bad_sum(folder: Path) -> Path:
    path = write_zip(folder / "a.zip", good_members(), zipfile.ZIP_STORED)

    def change(data: bytearray) -> None:
        start = data.index(b"IDAT")
        data[start + 20] ^= 0xFF

    return _changed(path, change)


def _overlap(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        # The second entry of the directory points at the bytes of the first.
        first = data.index(b"PK\x01\x02")
        second = data.index(b"PK\x01\x02", first + 4)
        data[second + 42 : second + 46] = data[first + 42 : first + 46]

    return _changed(write_zip(folder / "a.zip", good_members()), change)


def _cut(path: Path, share: float = 0.5) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _zip_bomb(folder: Path) -> Path:
    # Eleven entries of 100 MiB: zeros that are packed once and stand in the file eleven times.
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

    return _changed(path, change)


def _tar_bomb(folder: Path) -> Path:
    # A gzip file may be many gzip files in a row.
    path = folder / "a.tar.gz"
    zeros = gzip.compress(bytes(2**20), 1)
    with path.open("wb") as file:
        for number in range(9):
            info = tarfile.TarInfo(f"ash/zero{number}.png")
            info.size = 128 * 2**20
            file.write(gzip.compress(info.tobuf()) + 128 * zeros)
    return path


def _huge_claim(folder: Path) -> Path:
    info = tarfile.TarInfo("ash/huge.png")
    info.size = 2**40
    path = folder / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return path


def _huge_header(folder: Path) -> Path:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    info.size = 2**33
    path = folder / "a.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**20))
    return path


def _headers(kind: bytes, body: bytes, times: int = 1) -> Callable[[Path], Path]:
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


def _negative_size(folder: Path) -> Path:
    header = bytearray(tarfile.TarInfo("ash/odd.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + struct.pack(">h", -512)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = write_tar(folder / "a.tar", good_members())
    path.write_bytes(bytes(header) + path.read_bytes())
    return path


def _broken_header(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        data[data.index(b"oak/0.png") + 148] ^= 1

    return _changed(write_tar(folder / "a.tar", good_members()), change)


def _cut_between_entries(folder: Path) -> Path:
    path = write_tar(folder / "a.tar", good_members())
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"oak/3.png")])
    return path


def _bad_gzip_sum(folder: Path) -> Path:
    def change(data: bytearray) -> None:
        data[-6] ^= 1

    return _changed(write_tar(folder / "a.tgz", good_members(), "w:gz"), change)


def _directory_field(place: int, value: bytes) -> Callable[[Path], Path]:
    """Make a zip whose first entry in the directory says something else."""

    def make(folder: Path) -> Path:
        def change(data: bytearray) -> None:
            start = data.index(b"PK\x01\x02") + place
            data[start : start + len(value)] = value

        return _changed(write_zip(folder / "a.zip", good_members()), change)

    return make


def _many_entries(folder: Path) -> Path:
    # A sparse file of half a gigabyte, all of which its end calls the directory; reading it would take as much memory.
    path = folder / "a.zip"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(2**29)
        file.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 9, 9, 2**29, 0, 0))
    return path


def _twice(folder: Path) -> Path:
    path = write_zip(folder / "a.zip", good_members())
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("ash/0.png", encoded(noise(20, 20, seed=9)))
    return path


def _renamed(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def _file(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


_NFD = unicodedata.normalize("NFD", "é")
_LONG = {
    f"ash/{'n' * 251}.png": encoded(noise(20, 20, seed=7)),
    f"oak/🌳 {_NFD} שלום.png": encoded(noise(20, 20, seed=8)),
}

HOSTILE: dict[str, HostileCase] = {
    "zip, path escape": HostileCase(
        lambda f: write_zip(f / "a.zip", {"../../escape.png": b"x", **good_members()}), ArchiveError, "leads outside"
    ),
    "tar, path escape": HostileCase(
        lambda f: write_tar(f / "a.tar", {"ash/../../escape.png": b"x", **good_members()}),
        ArchiveError,
        "leads outside",
    ),
    "zip, absolute path": HostileCase(
        lambda f: write_zip(f / "a.zip", {"/tmp/escape.png": b"x", **good_members()}), ArchiveError, "leads outside"
    ),
    "tar.gz, absolute path": HostileCase(
        lambda f: write_tar(f / "a.tgz", {"/escape.png": b"x", **good_members()}, "w:gz"), ArchiveError, "leads outside"
    ),
    "zip, Windows drive": HostileCase(
        lambda f: write_zip(f / "a.zip", {"C:\\ash\\escape.png": b"x", **good_members()}), ArchiveError, "leads outside"
    ),
    "zip, backslashes that climb": HostileCase(
        lambda f: write_zip(f / "a.zip", {"ash\\..\\..\\escape.png": b"x", **good_members()}),
        ArchiveError,
        "leads outside",
    ),
    "zip, link": HostileCase(_zip_link, None, "a link"),
    "tar, link": HostileCase(_tar_entry(tarfile.SYMTYPE, "/etc/passwd"), None, "a link"),
    "tar, hard link": HostileCase(_tar_entry(tarfile.LNKTYPE, "ash/0.png"), None, "a link"),
    "tar, device": HostileCase(_tar_entry(tarfile.CHRTYPE), None, "a device or pipe"),
    "tar, pipe": HostileCase(_tar_entry(tarfile.FIFOTYPE), None, "a device or pipe"),
    "zip, bomb by ratio": HostileCase(_zip_bomb, ArchiveError, "unpack to"),
    "tar.gz, bomb by ratio": HostileCase(_tar_bomb, ArchiveError, "are allowed"),
    "zip, bomb by count": HostileCase(_many_entries, ArchiveError, "too many for 1,000,000 entries"),
    "zip, encrypted": HostileCase(_encrypted, ArchiveError, "encrypted"),
    "zip, method that is not read": HostileCase(_method, ArchiveError, "method 9"),
    "zip, truncated": HostileCase(
        lambda f: _cut(write_zip(f / "a.zip", good_members())), ArchiveError, "broken or cut short"
    ),
    "tar, truncated": HostileCase(
        lambda f: _cut(write_tar(f / "a.tar", good_members()), 0.3), ArchiveError, "broken or cut short"
    ),
    "tar.gz, truncated": HostileCase(
        lambda f: _cut(write_tar(f / "a.tgz", good_members(), "w:gz")), ArchiveError, "broken or cut short"
    ),
    "zip, wrong checksum": HostileCase(_bad_sum, None, "broken in the archive"),
    "zip, entries that overlap": HostileCase(_overlap, ArchiveError, "share their bytes"),
    "zip, archive inside": HostileCase(
        lambda f: write_zip(f / "a.zip", {"ash/more.zip": b"PK", **good_members()}), None, "an archive inside"
    ),
    "zip, a name twice": HostileCase(_twice, None, "a second entry of this name"),
    "zip, long and foreign names": HostileCase(lambda f: write_zip(f / "a.zip", {**good_members(), **_LONG}), None, ""),
    "tar.xz, long and foreign names": HostileCase(
        lambda f: write_tar(f / "a.txz", {**good_members(), **_LONG}, "w:xz"), None, ""
    ),
    "tar named .zip": HostileCase(lambda f: _renamed(write_tar(f / "a.tar", good_members()), "b.zip"), None, ""),
    "text named .zip": HostileCase(_file("a.zip", b"hello, I am text\n" * 50), DataError, "neither an archive"),
    "image named .zip": HostileCase(_file("a.zip", encoded(noise())), DataError, "neither an archive"),
    "empty file named .zip": HostileCase(_file("a.zip", b""), DataError, "neither an archive"),
    "zip, empty": HostileCase(lambda f: write_zip(f / "a.zip", {}), NoClassesError, "no class folders"),
    "tar, empty": HostileCase(lambda f: write_tar(f / "a.tar", {}), NoClassesError, "no class folders"),
    "tar, header of 8 GB": HostileCase(_huge_header, ArchiveError, "header that claims"),
    "tar, entry of 1 TB": HostileCase(_huge_claim, ArchiveError, "unpack to"),
    "tar, headers without end": HostileCase(
        _headers(b"x", b"8 a=123\n", 3000), ArchiveError, "too many headers in a row"
    ),
    "tar, names without end": HostileCase(_headers(b"L", b"name", 3000), ArchiveError, "too many headers in a row"),
    "tar, header made to hang": HostileCase(_headers(b"x", b"2 " * 2**17 + b"a="), ArchiveError, "not made of records"),
    "tar, header of digits": HostileCase(
        _headers(b"g", b"200008 a=" + b"1" * 199_998 + b"\n"), ArchiveError, "header of digits"
    ),
    "tar, negative size": HostileCase(_negative_size, ArchiveError, "negative size"),
    "tar, broken header inside": HostileCase(_broken_header, ArchiveError, "no header and no end mark"),
    "tar, cut between two entries": HostileCase(_cut_between_entries, ArchiveError, "no header and no end mark"),
    "tar.gz, wrong checksum": HostileCase(_bad_gzip_sum, ArchiveError, "CRC check failed"),
    "gz that is no tar": HostileCase(
        _file("a.csv.gz", gzip.compress(b"path,label\n")), ArchiveError, "no tar is inside"
    ),
    "zip, of a later version": HostileCase(_directory_field(6, b"\x63"), ArchiveError, "zip file version"),
    "zip, a size that is too small": HostileCase(_directory_field(24, b"\x01\x00"), None, "broken in the archive"),
    "zip, a size that is too large": HostileCase(_directory_field(24, b"\xff\xff"), None, "bytes, not"),
    "zip, packed by bzip2": HostileCase(
        lambda f: write_zip(f / "a.zip", good_members(), zipfile.ZIP_BZIP2), ArchiveError, "method 12"
    ),
    "7z": HostileCase(_file("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(64)), ArchiveError, "7z archive"),
    "RAR named .zip": HostileCase(_file("a.zip", b"Rar!\x1a\x07\x00" + bytes(64)), ArchiveError, "RAR archive"),
}
