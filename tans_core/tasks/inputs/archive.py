"""A zip or tar of class folders, read in place: nothing is unpacked to disk.

An archive is not trusted: it is refused if a name leads outside it, or if it would take too much memory or time.
"""

from __future__ import annotations

import itertools
import re
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from natsort import natsorted

from tans_core.errors import ArchiveError
from tans_core.tasks.inputs.base import (
    ARCHIVE_SUFFIXES,
    BESIDE_SPLITS,
    MAX_FILE_BYTES,
    NO_IMAGE_BY_NAME,
    SPLIT_NAMES,
    Entry,
    check_classes,
    empty_splits,
    outside_classes,
    spelled_twice,
    too_large,
)
from tans_core.tasks.inputs.folder import NOT_IMAGES, OTHER_SUFFIXES
from tans_core.tasks.inputs.groups import FOLDER, check_folder_group, settled
from tans_core.tasks.inputs.readers import BROKEN, UNPACK, Limits, Member, Reader, TarReader, ZipReader

_MAGIC = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "tar", b"BZh": "tar", b"\xfd7zXZ\x00": "tar"}
_FOREIGN = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "zstd"}
_AGAIN = "Download or copy it again, or unpack what can be saved and scan the folder."


@dataclass(frozen=True)
class Archive:
    """See `Input`. Entries of a tar are in the order of the file, because it can only be read forwards."""

    root: Path
    kind: str
    class_names: tuple[str, ...]
    entries: list[Entry]
    skipped: Counter[str]
    bad: list[tuple[str, str]]
    notes: list[str]
    _reader: Reader = field(repr=False)
    _numbers: dict[str, int] = field(repr=False)

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | str]:
        yield from self._reader.read([self._numbers[entry.name] for entry in entries])


def archive_kind(path: Path) -> str | None:
    """Return "zip" or "tar" by a file's content, or None if it is neither.

    Raises:
        ArchiveError: it is an archive of an unsupported kind.
    """
    with path.open("rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    for magic, kind in _FOREIGN.items():
        if start.startswith(magic):
            raise ArchiveError(f"{path}: a {kind} archive; zip and tar (gz, bz2, xz) are read in place. {UNPACK}")
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    # Check the first block only: tarfile.is_tarfile would trust the sizes in it.
    with suppress(*BROKEN):
        if not start.strip(b"\0"):
            # An empty tar begins with zeros, but so does a file whose download failed.
            return "tar" if 2 * tarfile.BLOCKSIZE <= path.stat().st_size <= tarfile.RECORDSIZE else None
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
        return "tar"
    return "zip" if zipfile.is_zipfile(path) else None


def list_archive(
    path: Path, kind: str, drop_empty_classes: bool = False, limits: Limits | None = None, group: str | None = None
) -> Archive:
    """List `<class>/**`, or `{train,val,test}/<class>/**`, also below folders that contain all the rest.

    Args:
        path: the file.
        kind: from `archive_kind`.
        drop_empty_classes: leave out classes without a file instead of failing.
        limits: of the number and size of entries.
        group: as for `list_folder`.

    Raises:
        ArchiveError: a name leads outside; or the archive is encrypted, broken, or larger than `limits`.
        NoClassesError: there are no class folders, or only one.
        EmptyClassError: a class folder holds no file that can be read.
    """
    check_folder_group(path, group)
    limits = limits or Limits()
    reader: Reader = ZipReader(path) if kind == "zip" else TarReader(path, limits)
    status = path.stat()
    skipped: Counter[str] = Counter()
    bad: list[tuple[str, str]] = []
    members: list[tuple[tuple[str, ...], Member]] = []
    seen: set[tuple[str, ...]] = set()
    spelled: dict[str, set[str]] = {}
    for member in checked(path, reader, limits, status.st_size):
        parts = parts_of(path, member.name, spelled)
        visible = tuple(itertools.takewhile(is_shown, parts))
        if visible != parts:
            skipped["hidden or system file"] += not member.folder
            if visible:
                # The folder that contains it may have no entry of its own.
                members.append((visible, member._replace(folder=True)))
        elif member.folder and parts:
            members.append((parts, member))
        elif parts in seen:
            bad.append(("/".join(parts), "a second entry of this name: give it another"))
        elif parts:
            seen.add(parts)
            members.append((parts, member))
    members = _below_common_folders(members, skipped)
    splits = _splits(path, members)
    if splits:
        beside = {parts[0] for parts, _ in members if len(parts) > 1 and parts[0] not in splits}
        skipped[BESIDE_SPLITS] += len(beside)
        members = [(parts, member) for parts, member in members if parts[0] not in beside]
    lost: dict[str, list[str]] = {}
    entries: list[Entry] = []
    numbers: dict[str, int] = {}
    for parts, member in members:
        label, *rest = parts[1:] if splits and len(parts) > 1 else parts
        name = "/".join(parts)
        if member.folder:
            if not splits or len(parts) > 1:
                lost.setdefault(label, [])
        elif not rest or (splits and len(parts) < 3):
            if member.problem:
                # It may be a link to a class folder.
                bad.append((name, member.problem))
            else:
                skipped[outside_classes(parts[-1])] += 1
        elif rest[-1].lower().endswith(OTHER_SUFFIXES):
            skipped[NO_IMAGE_BY_NAME] += 1
            lost.setdefault(label, []).append(f"{NO_IMAGE_BY_NAME} ({PurePosixPath(rest[-1]).suffix.lower()})")
        else:
            reasons = lost.setdefault(label, [])
            problem = member.problem or problem_of(member, rest[-1])
            if problem:
                bad.append((name, problem))
                reasons.append(problem)
                continue
            stamp = f"{status.st_size}-{status.st_mtime_ns}-{member.number}"
            entries.append(Entry(name, label, splits.get(parts[0]), None, stamp, rest[0] if len(rest) > 1 else ""))
            numbers[name] = member.number
    if kind == "zip":
        entries = natsorted(entries, key=lambda entry: entry.name)
    classes = check_classes(path, lost, entries, skipped, drop_empty_classes)
    notes = spelled_twice(spelled, classes)
    entries = settled(entries, FOLDER, group, notes)
    return Archive(path, kind, classes, entries, +skipped, bad, notes, reader, numbers)


def checked(path: Path, reader: Reader, limits: Limits, packed: int) -> Iterator[Member]:
    """Yield the members of an archive of `packed` bytes. Raises ArchiveError: broken, or larger than `limits`."""
    total = 0
    try:
        for count, member in enumerate(reader.members(limits), start=1):
            total += member.size
            if count > limits.entries:
                raise ArchiveError(f"{path}: more than {limits.entries:,} entries. {UNPACK}")
            if total > limits.cap(packed):
                raise ArchiveError(
                    f"{path}: {packed:,} bytes that unpack to {total:,} or more; at most {limits.cap(packed):,} are "
                    "allowed. Such archives are made to fill disks: delete it, or unpack it yourself if you trust it."
                )
            yield member
    except BROKEN as error:
        raise ArchiveError(f"{path}: broken or cut short ({type(error).__name__}: {error}). {_AGAIN}") from error


def parts_of(path: Path, name: str, spelled: dict[str, set[str]]) -> tuple[str, ...]:
    """Return the folders and the file of a name in NFC; add the spelling of folders to `spelled`.

    Raises:
        ArchiveError: the name leads outside the folder that it is unpacked into.
    """
    plain = name.replace("\\", "/")
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    if plain.startswith("/") or re.match(r"[A-Za-z]:(/|$)", plain) or ".." in parts:
        raise ArchiveError(
            f"{path}: the entry {name!r} leads outside the archive, want <class>/<image>. If the archive is yours, "
            "pack the class folders again, with relative names; if not, do not trust it."
        )
    # Bytes that are not UTF-8 become escapes like \xff, so names stay distinct.
    text = [part.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for part in parts]
    plain_text = tuple(unicodedata.normalize("NFC", part) for part in text)
    if not name.isascii():
        for shown, written in zip(plain_text[:-1], text, strict=False):
            spelled.setdefault(shown, set()).add(written)
    return plain_text


def _below_common_folders(
    members: list[tuple[tuple[str, ...], Member]], skipped: Counter[str]
) -> list[tuple[tuple[str, ...], Member]]:
    """Remove top folders that contain all others while class folders remain: photos.zip often contains photos/.

    Files beside such a folder are skipped.
    """
    while True:
        in_folders = [(parts, member) for parts, member in members if len(parts) > 1 or member.folder]
        files = [parts for parts, member in in_folders if not member.folder]
        tops = {parts[0] for parts, _ in in_folders}
        if len(tops) != 1 or not files or max(map(len, files)) < 3:
            return members
        if len({parts[1] for parts in files if len(parts) > 2}) < 2 and max(map(len, files)) < 4:
            return members
        loose = [(parts, member) for parts, member in members if len(parts) == 1 and not member.folder]
        skipped.update(outside_classes(parts[0]) for parts, member in loose if not member.problem)
        members = [(parts[1:], member) for parts, member in in_folders if len(parts) > 1]
        members += [(parts, member) for parts, member in loose if member.problem]


def is_shown(part: str) -> bool:
    """Return whether a folder or file is neither hidden nor of an operating system."""
    return not part.startswith(".") and part.lower() not in NOT_IMAGES


def _splits(path: Path, members: list[tuple[tuple[str, ...], Member]]) -> dict[str, str | None]:
    """Return the splits by top folder, as `_split_folders` of `tans_core.tasks.inputs.folder` does for a folder."""
    folders = {parts[0] for parts, member in members if len(parts) > 1 or member.folder}
    named: dict[str, str | None] = {top: SPLIT_NAMES[top.lower()] for top in folders if top.lower() in SPLIT_NAMES}
    if "train" not in named.values() or len(named) < 2:
        return {}
    deep = {parts[0] for parts, member in members if parts[0] in named and len(parts) > (1 if member.folder else 2)}
    if not deep:
        raise empty_splits(path, sorted(named))
    return dict.fromkeys(named) if len({named[top] for top in deep}) == 1 else named


def problem_of(member: Member, file_name: str) -> str | None:
    """Return why a member is not opened; None if it is."""
    if file_name.lower().endswith(ARCHIVE_SUFFIXES):
        return "an archive inside the archive: unpack it first"
    if member.size > MAX_FILE_BYTES:
        return too_large(member.size)
    return None
