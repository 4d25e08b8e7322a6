"""The common form of every kind of input (folder, archive, table): entries, each a file that may be an image."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tans_core.classes import LEAVE_OUT, class_faults, in_order
from tans_core.errors import EmptyClassError, NoClassesError
from tans_core.text import count

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split by its usual names, in lower case."""

OUTSIDE_CLASSES = "file outside class folders"
PACKED = "archive that is not unpacked (unpack it, or scan it by itself)"
BESIDE_SPLITS = "folder beside those of the splits"
NO_IMAGE_BY_NAME = "not an image by its name"
LEADS_OUTSIDE = "link that leads outside (`tans tasks scan --follow-links` follows it)"

ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".7z", ".rar", ".zst")

MAX_FILE_BYTES = 256 * 1024 * 1024
"""A single file above this is left out without decoding."""


class Entry(NamedTuple):
    """A file that may be an image.

    Attributes:
        name: its path below the root, with forward slashes, in Unicode NFC; unique.
        label: the name of its class, in NFC.
        split: "train", "val" or "test" if the input defines splits, else None.
        path: the file on disk; None if `Input.read` returns its content. A str: a `Path` is slow to create and to send
            to another process.
        stamp: changes with the content (size and time of the file, or of its archive).
        group: such as the patient, plant or film it shows; a group stays in one split. Empty if none is known.
    """

    name: str
    label: str
    split: str | None
    path: str | None
    stamp: str
    group: str = ""


class Input(Protocol):
    """A user's input, listed but not yet decoded."""

    @property
    def root(self) -> Path:
        """The folder or file that the user gave."""

    @property
    def kind(self) -> str:
        """The kind by content: "folder", "zip", "tar", "csv", "parquet"."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In natural order."""

    @property
    def entries(self) -> Sequence[Entry]:
        """In a fixed order: folders in natural order, archives and tables in the order they are read."""

    @property
    def skipped(self) -> Counter[str]:
        """Counts of what was not opened, by reason."""

    @property
    def bad(self) -> Sequence[tuple[str, str]]:
        """(name, reason) of listed files that can never be read, such as a link in an archive."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences for the user on how the input was read."""

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | str]:
        """Yield the content of entries without a path, in order; a str is the reason why one cannot be read.

        Successive calls ask for later and later entries, so an input may read forwards only.
        """


def check_classes(
    root: Path,
    lost: Mapping[str, Sequence[str]],
    entries: Sequence[Entry],
    skipped: Counter[str],
    drop_empty_classes: bool = False,
) -> tuple[str, ...]:
    """Return the classes that have entries, in natural order.

    Args:
        root: the user's folder or file, for messages.
        lost: for every class that the input names, the reasons why files of it can never be read; may be empty.
        entries: the files that may be images.
        skipped: counts of what was not opened, by reason.
        drop_empty_classes: leave out classes without an entry instead of failing.

    Raises:
        NoClassesError: there are no classes, or only one.
        EmptyClassError: a class has no entry.
    """
    counts = dict.fromkeys(lost, 0) | Counter(entry.label for entry in entries)
    classes = in_order(name for name, number in counts.items() if number)
    faults = {fault.error: fault.classes for fault in class_faults(counts)}
    empty = faults.get(EmptyClassError, ())
    if empty and not drop_empty_classes and len(counts) > 1:
        shown = ", ".join(f"{name!r}{_why_empty(lost.get(name, ()))}" for name in empty[:5])
        what = "no file that can be read" if any(lost.get(name) for name in empty) else "no file"
        advice = "Put images, such as JPEG or PNG, into at least two." if NoClassesError in faults else LEAVE_OUT
        number = f"{len(empty)} of {len(counts)} classes in {root} {'holds' if len(empty) == 1 else 'hold'}"
        raise EmptyClassError(f"{number} {what}: {shown}.\n  {advice}")
    if NoClassesError not in faults:
        return classes
    if not classes:
        loose = skipped[OUTSIDE_CLASSES]
        content = [f"{count(loose, 'file')} outside class folders"] if loose else []
        content += [f"{skipped[why]} x {why}" for why in (LEADS_OUTSIDE, PACKED) if skipped[why]]
        content += [f"{name!r}{_why_empty(reasons)}" for name, reasons in lost.items() if reasons][:1]
        top = printable(root.resolve().name)
        raise NoClassesError(
            f"{root}: no class folders with images, {'only ' + ', '.join(content) if content else 'and no files'}. "
            f"Want a folder for each class: {top}/<class>/<image>, or {top}/train/<class>/<image>."
        )
    hint = "Put the images of each class into a folder of its own."
    if root.is_dir() and any(entry.name.count("/") > 1 for entry in entries):
        hint = f"If the folders in {classes[0]!r} are the classes, give {root / classes[0]}."
    raise NoClassesError(f"{root}: only one class, {classes[0]!r}. A classifier needs at least two. {hint}")


def spelled_twice(spelled: Mapping[str, set[str]], classes: Iterable[str]) -> list[str]:
    """Return a note for each class that has several spellings; `spelled` has the spellings by class."""
    return [
        f"class {name!r} is written in {len(spelled[name])} ways that look alike (Unicode NFC, NFD): taken as one class"
        for name in classes
        if len(spelled.get(name, ())) > 1
    ]


def empty_splits(root: Path, names: Sequence[str], links_outside: int = 0) -> NoClassesError:
    """Return the error of an input with folders named after splits, one of them train, but without class folders."""
    shown = ", ".join(f"{name!r}" for name in names)
    links = f", but {links_outside} x {LEADS_OUTSIDE}" if links_outside else ""
    train = next(name for name in names if SPLIT_NAMES[name.lower()] == "train")
    return NoClassesError(
        f"{root}: no class folders in {shown}, which are taken for the splits of a data set{links}. "
        f"Want a folder for each class: {train}/<class>/<image>. If the splits are classes, rename them."
    )


def _why_empty(reasons: Sequence[str]) -> str:
    """Return, in brackets, how many files of a class cannot be read and why; "" if there are none."""
    if not reasons:
        return ""
    kinds = Counter(reasons).most_common()
    shown = "; ".join(f"{number:,} x {reason}" for reason, number in kinds[:3])
    more = f"; and {len(kinds) - 3:,} more reasons" if len(kinds) > 3 else ""
    return f" (0 of {len(reasons):,}: {shown}{more})"


def outside_classes(name: str) -> str:
    """Return why a file beside class folders is skipped."""
    return PACKED if name.lower().endswith(ARCHIVE_SUFFIXES) else OUTSIDE_CLASSES


def printable(name: str) -> str:
    """Return a name in NFC; bytes that are not UTF-8, which JSON cannot hold, become escapes like \\xff."""
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def file_content(path: str | Path) -> bytes | str:
    """Return a file's content, or the reason why it cannot be used: no plain file, too large, not readable."""
    try:
        # Non-blocking: if a pipe has replaced the file since it was listed, opening it would wait forever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                return "no longer a plain file"
            data = os.read(handle, min(status.st_size, MAX_FILE_BYTES) + 1)
            while len(data) <= MAX_FILE_BYTES and (more := os.read(handle, 2**20)):
                data += more
        finally:
            os.close(handle)
    except OSError as error:
        return error.strerror or type(error).__name__
    return within_limit(data)


def within_limit(data: bytes) -> bytes | str:
    """Return the data, or why there are too many."""
    return data if len(data) <= MAX_FILE_BYTES else too_large()


def too_large(size: int | None = None) -> str:
    """Return why a file of more than `MAX_FILE_BYTES` is left out, and what to do."""
    actual = "" if size is None else f"{size:,} bytes, "
    return f"{actual}more than {MAX_FILE_BYTES // 2**20} MiB: save it smaller, or compressed"
