"""A folder of class folders: its images, and nothing else that lies in it."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tans_core.errors import DataError
from tans_core.tasks.inputs.base import BESIDE_SPLITS, OUTSIDE_CLASSES, SPLIT_NAMES, Entry, check_classes, printable

NOT_IMAGES = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
# Files that people keep beside images; anything else is opened, whatever its name.
OTHER_SUFFIXES = (".txt", ".md", ".json", ".csv", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log")

_OUTSIDE = "link that leads outside"
_BROKEN = "broken link"
_TO_A_FOLDER = "link to a folder"


@dataclass(frozen=True)
class Folder:
    """A folder of class folders; see `Input`."""

    root: Path
    class_names: tuple[str, ...]
    entries: list[Entry]
    skipped: Counter[str]
    kind: str = "folder"
    bad: tuple[tuple[str, str], ...] = ()

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | str]:
        raise NotImplementedError("every entry of a folder has a path")


def list_folder(root: Path, drop_empty_classes: bool = False) -> Folder:
    """List the files of `root/<class>/**`, or of `root/{train,val,test}/<class>/**`, classes and files in natural order.

    Hidden files, what operating systems leave behind, and links that lead outside are passed over; a file that is reachable
    twice is listed once.

    Raises:
        DataError: `root` is no folder that can be read.
        NoClassesError: there are no class folders, or only one.
        EmptyClassError: a class folder holds no file.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder.")
    skipped: Counter[str] = Counter()
    real_root = os.path.realpath(root)
    seen: set[tuple[int, int, str, str | None]] = set()
    taken: set[str] = set()
    entries: list[Entry] = []
    bad: list[tuple[str, str]] = []
    class_names: set[str] = set()
    start = len(os.path.join(root, ""))  # noqa: PTH118  with the separator
    for split, folder in _split_folders(root, skipped):
        for entry in _entries(folder, skipped):
            if not entry.is_dir(follow_symlinks=False):
                skipped[_why_no_class(entry, real_root)] += 1
                continue
            label = printable(entry.name)
            class_names.add(label)
            for path, status in _walk(entry.path, real_root, skipped):
                if isinstance(status, OSError):
                    bad.append((_free(printable(path[start:]), taken), status.strerror or type(status).__name__))
                    continue
                # A file that is linked into two classes, or into two splits, is as wrong as a copy there, and is said as one.
                place = (status.st_dev, status.st_ino, label, split)
                if place in seen:
                    skipped["the same file again"] += 1
                    continue
                seen.add(place)
                stamp = f"{status.st_size}-{status.st_mtime_ns}"
                entries.append(Entry(_free(printable(path[start:]), taken), label, split, Path(path), stamp))
    classes = check_classes(root, class_names, entries, skipped, drop_empty_classes)
    return Folder(root, classes, entries, +skipped, bad=tuple(bad))


def _split_folders(root: Path, skipped: Counter[str]) -> list[tuple[str | None, Path]]:
    """Return (split, folder of class folders); one pair with no split unless train and another split hold class folders.

    What lies beside the splits is then passed over: as a class it would teach train from test.
    """
    folders = [Path(entry.path) for entry in _entries(root, Counter()) if entry.is_dir(follow_symlinks=False)]
    named = [(SPLIT_NAMES[folder.name.lower()], folder) for folder in folders if folder.name.lower() in SPLIT_NAMES]
    if "train" not in {split for split, _ in named} or len(named) < 2:
        return [(None, root)]
    if all(entry.is_file(follow_symlinks=False) for _, folder in named for entry in _entries(folder, Counter())):
        return [(None, root)]
    skipped[BESIDE_SPLITS] += len(folders) - len(named)
    for entry in _entries(root, skipped):
        skipped[OUTSIDE_CLASSES] += entry.is_file(follow_symlinks=False)
    return sorted(((split, folder) for split, folder in named), key=lambda pair: str(pair[0]))


def _entries(folder: Path, skipped: Counter[str]) -> list[os.DirEntry[str]]:
    """Return what a folder holds; nothing where it cannot be read."""
    try:
        return _listed(folder, skipped)
    except OSError:
        skipped["folder that cannot be read"] += 1
        return []


def _listed(folder: Path | str, skipped: Counter[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as scan:
        found = list(scan)
    kept = []
    # Any order that is the same on every machine: names that count as equal in natural order (1, 01) stay in it.
    for entry in sorted(found, key=lambda e: e.name):
        if entry.name.startswith(".") or entry.name.lower() in NOT_IMAGES:
            skipped["hidden or system file"] += 1
        else:
            kept.append(entry)
    return kept


def _walk(folder: str, real_root: str, skipped: Counter[str]) -> Iterator[tuple[str, os.stat_result | OSError]]:
    """Yield the files below a folder, each with its status; and, with the reason, files and folders that cannot be read."""
    # A list, since folders may be nested deeper than calls.
    folders = [folder]
    while folders:
        folder = folders.pop()
        try:
            found = _listed(folder, skipped)
        except OSError as error:
            yield folder, error
            continue
        for entry in found:
            if entry.is_symlink() and _leads_outside(entry, real_root):
                skipped[_OUTSIDE] += 1
                continue
            try:
                status = entry.stat()
            except OSError as error:
                if entry.is_symlink():
                    skipped[_BROKEN] += 1
                else:
                    yield entry.path, error
                continue
            if stat.S_ISDIR(status.st_mode):
                # A link to a folder could be a link to a parent: its files are found where they truly lie.
                if entry.is_symlink():
                    skipped[_TO_A_FOLDER] += 1
                else:
                    folders.append(entry.path)
            elif not stat.S_ISREG(status.st_mode):
                skipped["not a plain file"] += 1
            elif entry.name.lower().endswith(OTHER_SUFFIXES):
                skipped["not an image by its name"] += 1
            else:
                yield entry.path, status


def _why_no_class(entry: os.DirEntry[str], real_root: str) -> str:
    """Return why something beside class folders is passed over."""
    if not entry.is_symlink():
        return OUTSIDE_CLASSES
    if _leads_outside(entry, real_root):
        return _OUTSIDE
    try:
        return _TO_A_FOLDER if stat.S_ISDIR(entry.stat().st_mode) else OUTSIDE_CLASSES
    except OSError:
        return _BROKEN


def _leads_outside(link: os.DirEntry[str], real_root: str) -> bool:
    # Unlike Path.resolve, realpath takes links that lead in a circle.
    return not Path(os.path.realpath(link.path)).is_relative_to(real_root)


def _free(name: str, taken: set[str]) -> str:
    """Return the name, numbered where another file has it: two forms of one accent are two files to a disk."""
    free, number = name, 1
    while free in taken:
        number += 1
        path = PurePosixPath(name)
        free = path.with_name(f"{path.stem} ({number}){path.suffix}").as_posix()
    taken.add(free)
    return free
