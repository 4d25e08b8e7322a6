"""Archives made by attackers, accidents and unusual tools."""

from __future__ import annotations

import gzip
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tans_core.errors import ArchiveError, DataError, EmptyClassError, NoClassesError, TansError
from tests.factories.archives import (
    bad_gzip_sum,
    bad_sum,
    broken_header,
    cut,
    cut_between_entries,
    directory_field,
    encrypted,
    file_named,
    good_members,
    headers,
    huge_claim,
    huge_header,
    many_entries,
    method,
    negative_size,
    overlap,
    renamed,
    tar_bomb,
    tar_entry,
    twice,
    write_tar,
    write_zip,
    xz_dictionary,
    zip_bomb,
    zip_dictionary,
    zip_link,
)
from tests.factories.images import encoded, noise


@dataclass(frozen=True)
class HostileCase:
    """How to make an archive, and the expected result.

    Attributes:
        make: writes it into a folder.
        error: class of the error; None if it is read, and some of its entries are listed as bad.
        words: the part of the message or listed reason that names the problem. Empty if there is none.
        advice: the part of the same that names the next step.
    """

    make: Callable[[Path], Path]
    error: type[TansError] | None
    words: str = ""
    advice: str = ""

    def is_said_in(self, text: str) -> bool:
        """Return whether a message or reason names the problem and the next step."""
        return self.words in text and self.advice in text


_NFD = unicodedata.normalize("NFD", "é")


_LONG = {
    f"ash/{'n' * 251}.png": encoded(noise(20, 20, seed=7)),
    f"oak/🌳 {_NFD} שלום.png": encoded(noise(20, 20, seed=8)),
}


_OUTSIDE = ArchiveError, "leads outside", "pack the class folders again"
_CUT = ArchiveError, "broken or cut short", "Download or copy it again"
_LINK = None, "a link", "put the file itself into the archive"


HOSTILE: dict[str, HostileCase] = {
    "zip, path escape": HostileCase(
        lambda f: write_zip(f / "a.zip", {"../../escape.png": b"x", **good_members()}),
        *_OUTSIDE,
    ),
    "tar, path escape": HostileCase(
        lambda f: write_tar(f / "a.tar", {"ash/../../escape.png": b"x", **good_members()}),
        *_OUTSIDE,
    ),
    "zip, absolute path": HostileCase(
        lambda f: write_zip(f / "a.zip", {"/tmp/escape.png": b"x", **good_members()}),
        *_OUTSIDE,
    ),
    "tar.gz, absolute path": HostileCase(
        lambda f: write_tar(f / "a.tgz", {"/escape.png": b"x", **good_members()}, "w:gz"),
        *_OUTSIDE,
    ),
    "zip, Windows drive": HostileCase(
        lambda f: write_zip(f / "a.zip", {"C:\\ash\\escape.png": b"x", **good_members()}),
        *_OUTSIDE,
    ),
    "zip, backslashes that climb": HostileCase(
        lambda f: write_zip(f / "a.zip", {"ash\\..\\..\\escape.png": b"x", **good_members()}),
        *_OUTSIDE,
    ),
    "zip, link": HostileCase(zip_link, *_LINK),
    "tar, link": HostileCase(tar_entry(tarfile.SYMTYPE, "/etc/passwd"), *_LINK),
    "tar, link in place of a class folder": HostileCase(tar_entry(tarfile.SYMTYPE, "ash", "elm"), *_LINK),
    "tar, hard link": HostileCase(tar_entry(tarfile.LNKTYPE, "ash/0.png"), *_LINK),
    "tar, device": HostileCase(tar_entry(tarfile.CHRTYPE), None, "a device or pipe", "leave it out"),
    "tar, pipe": HostileCase(tar_entry(tarfile.FIFOTYPE), None, "a device or pipe", "leave it out"),
    "zip, bomb by ratio": HostileCase(zip_bomb, ArchiveError, "unpack to", "delete it, or unpack it yourself"),
    "tar.gz, bomb by ratio": HostileCase(tar_bomb, ArchiveError, "are allowed", "delete it, or unpack it yourself"),
    "zip, bomb by count": HostileCase(many_entries, ArchiveError, "too many for 1,000,000 entries", "Pack it in parts"),
    "zip, encrypted": HostileCase(encrypted, ArchiveError, "encrypted", "Unpack it with its password"),
    "zip, method that is not read": HostileCase(
        method, ArchiveError, "method 9", "Unpack it with the tool that made it"
    ),
    "zip, truncated": HostileCase(
        lambda f: cut(write_zip(f / "a.zip", good_members())),
        *_CUT,
    ),
    "tar, truncated": HostileCase(
        lambda f: cut(write_tar(f / "a.tar", good_members()), 0.3),
        *_CUT,
    ),
    "tar.gz, truncated": HostileCase(
        lambda f: cut(write_tar(f / "a.tgz", good_members(), "w:gz")),
        *_CUT,
    ),
    "zip, wrong checksum": HostileCase(bad_sum, None, "broken in the archive", "pack it again"),
    "zip, entries that overlap": HostileCase(overlap, ArchiveError, "share their bytes", "Delete it"),
    "zip, archive inside": HostileCase(
        lambda f: write_zip(f / "a.zip", {"ash/more.zip": b"PK", **good_members()}),
        None,
        "an archive inside",
        "unpack it first",
    ),
    "zip, nothing but an archive": HostileCase(
        lambda f: write_zip(f / "a.zip", {"photos.tar.gz": b"\x1f\x8b"}),
        NoClassesError,
        "1 x archive that is not unpacked",
        "unpack it",
    ),
    "zip, a folder of nothing but archives": HostileCase(
        lambda f: write_zip(f / "a.zip", {"photos/ash.zip": b"PK", "photos/elm.zip": b"PK", "README.md": b"x"}),
        NoClassesError,
        "2 x an archive inside the archive",
        "unpack it first",
    ),
    "zip, an archive beside one folder of all": HostileCase(
        lambda f: write_zip(
            f / "a.zip", {f"photos/{name}": data for name, data in good_members().items()} | {"as it came.zip": b"PK"}
        ),
        None,
    ),
    "zip, an empty folder and one of archives": HostileCase(
        lambda f: write_zip(f / "a.zip", {"ash/": b"", "elm/a.zip": b"PK", "elm/b.zip": b"PK"}),
        EmptyClassError,
        "2 x an archive inside the archive",
        "unpack it first",
    ),
    "tar of two empty blocks": HostileCase(
        file_named("a.tar", bytes(1024)), NoClassesError, "no class folders", "Want a folder for each class"
    ),
    "zeros named .tar": HostileCase(
        file_named("a.tar", bytes(2**16)), DataError, "neither an archive", "Want one, or a folder"
    ),
    "zip, an image above the cap": HostileCase(
        directory_field(24, (300 * 2**20).to_bytes(4, "little")), None, "more than 256 MiB", "save it smaller"
    ),
    "zip, a name twice": HostileCase(twice, None, "a second entry of this name", "give it another"),
    "zip, long and foreign names": HostileCase(lambda f: write_zip(f / "a.zip", {**good_members(), **_LONG}), None),
    "tar.xz, long and foreign names": HostileCase(
        lambda f: write_tar(f / "a.txz", {**good_members(), **_LONG}, "w:xz"), None
    ),
    "tar named .zip": HostileCase(lambda f: renamed(write_tar(f / "a.tar", good_members()), "b.zip"), None),
    "text named .zip": HostileCase(
        file_named("a.zip", b"hello, I am text\n" * 50),
        DataError,
        "neither an archive",
        "Want one, or a folder",
    ),
    "image named .zip": HostileCase(
        file_named("a.zip", encoded(noise())), DataError, "neither an archive", "Want one, or a folder"
    ),
    "empty file named .zip": HostileCase(
        file_named("a.zip", b""), DataError, "neither an archive", "Want one, or a folder"
    ),
    "zip, empty": HostileCase(
        lambda f: write_zip(f / "a.zip", {}), NoClassesError, "no class folders", "Want a folder for each class"
    ),
    "tar, empty": HostileCase(
        lambda f: write_tar(f / "a.tar", {}), NoClassesError, "no class folders", "Want a folder for each class"
    ),
    "tar, header of 8 GB": HostileCase(huge_header, ArchiveError, "header that claims", "delete it"),
    "tar, entry of 1 TB": HostileCase(huge_claim, ArchiveError, "unpack to", "delete it, or unpack it yourself"),
    "tar, headers without end": HostileCase(
        headers(b"x", b"8 a=123\n", 3000), ArchiveError, "too many headers in a row", "Download or copy it again"
    ),
    "tar, names without end": HostileCase(
        headers(b"L", b"name", 3000), ArchiveError, "too many headers in a row", "Download or copy it again"
    ),
    "tar, header made to hang": HostileCase(
        headers(b"x", b"2 " * 2**17 + b"a="), ArchiveError, "not made of records", "Download or copy it again"
    ),
    "tar, header of digits": HostileCase(
        headers(b"g", b"200008 a=" + b"1" * 199_998 + b"\n"),
        ArchiveError,
        "header of digits",
        "Download or copy it again",
    ),
    "tar, negative size": HostileCase(negative_size, ArchiveError, "negative size", "Download or copy it again"),
    "tar, broken header inside": HostileCase(
        broken_header, ArchiveError, "no header and no end mark", "Download or copy it again"
    ),
    "tar, cut between two entries": HostileCase(
        cut_between_entries, ArchiveError, "no header and no end mark", "Download or copy it again"
    ),
    "tar.gz, wrong checksum": HostileCase(bad_gzip_sum, ArchiveError, "CRC check failed", "Download or copy it again"),
    "gz that is no tar": HostileCase(
        file_named("a.csv.gz", gzip.compress(b"path,label\n")),
        ArchiveError,
        "no tar is inside",
        "Unpack it with the tool that made it",
    ),
    "zip, of a later version": HostileCase(
        directory_field(6, b"\x63"), ArchiveError, "zip file version", "Download or copy it again"
    ),
    "zip, a size that is too small": HostileCase(
        directory_field(24, b"\x01\x00"), None, "broken in the archive", "pack it again"
    ),
    "zip, a size that is too large": HostileCase(directory_field(24, b"\xff\xff"), None, "bytes, not", "pack it again"),
    "zip, packed by bzip2": HostileCase(
        lambda f: write_zip(f / "a.zip", good_members(), zipfile.ZIP_BZIP2),
        ArchiveError,
        "method 12",
        "Unpack it with the tool that made it",
    ),
    "zip, LZMA that takes 4 GiB": HostileCase(
        zip_dictionary(2**32 - 1),
        ArchiveError,
        "a dictionary of 4,294,967,295 bytes",
        "Unpack it with the tool that made it",
    ),
    "zip, LZMA that takes 32 MiB": HostileCase(zip_dictionary(2**25), None),
    "tar.xz that takes 4 GiB": HostileCase(
        xz_dictionary(40), ArchiveError, "more than 64 MiB of memory", "Pack it again with `xz -9` or less"
    ),
    "tar.xz that takes 96 MiB": HostileCase(
        xz_dictionary(29), ArchiveError, "more than 64 MiB of memory", "Pack it again with `xz -9` or less"
    ),
    "tar.xz that takes 32 MiB": HostileCase(xz_dictionary(26), None),
    "7z": HostileCase(
        file_named("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(64)),
        ArchiveError,
        "7z archive",
        "Unpack it with the tool that made it",
    ),
    "RAR named .zip": HostileCase(
        file_named("a.zip", b"Rar!\x1a\x07\x00" + bytes(64)),
        ArchiveError,
        "RAR archive",
        "Unpack it with the tool that made it",
    ),
}
