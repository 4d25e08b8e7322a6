"""A folder of class folders: its images, and nothing else that lies in it."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted

from tans_core.errors import DataError
from tans_core.tasks.inputs.base import OUTSIDE_CLASSES, SPLIT_NAMES, Entry, check_classes

NOT_IMAGES = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
# Files that people keep beside images; anything else is opened, whatever its name.
OTHER_SUFFIXES = (".txt", ".md", ".json", ".csv", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log")


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
    seen: set[tuple[int, int]] = set()
    entries: list[Entry] = []
    class_names: set[str] = set()
    for split, folder in _split_folders(root, skipped):
        for entry in _entries(folder, skipped):
            if not entry.is_dir(follow_symlinks=False):
                skipped[OUTSIDE_CLASSES] += entry.is_file(follow_symlinks=False)
                continue
            label = unicodedata.normalize("NFC", entry.name)
            class_names.add(label)
            for path, status in _walk(Path(entry.path), root, seen, skipped):
                name = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
                entries.append(Entry(name, label, split, path, f"{status.st_size}-{status.st_mtime_ns}"))
    entries = natsorted(entries, key=lambda entry: entry.name)
    classes = check_classes(root, class_names, entries, skipped, drop_empty_classes)
    return Folder(root, classes, entries, skipped)


def _split_folders(root: Path, skipped: Counter[str]) -> list[tuple[str | None, Path]]:
    """Return (split, folder of class folders); one pair with no split unless all folders are named after splits."""
    folders = [Path(entry.path) for entry in _entries(root, Counter()) if entry.is_dir(follow_symlinks=False)]
    named = [(SPLIT_NAMES.get(folder.name.lower()), folder) for folder in folders]
    splits = {split for split, _ in named}
    nested = any(entry.is_dir() for folder in folders for entry in _entries(folder, Counter()))
    if None in splits or "train" not in splits or len(named) < 2 or not nested:
        return [(None, root)]
    for entry in _entries(root, skipped):
        skipped[OUTSIDE_CLASSES] += entry.is_file(follow_symlinks=False)
    return sorted(named, key=lambda pair: str(pair[0]))


def _entries(folder: Path, skipped: Counter[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scan:
            found = list(scan)
    except OSError:
        skipped["folder that cannot be read"] += 1
        return []
    kept = []
    for entry in natsorted(found, key=lambda e: e.name):
        if entry.name.startswith(".") or entry.name.lower() in NOT_IMAGES:
            skipped["hidden or system file"] += 1
        else:
            kept.append(entry)
    return kept


def _walk(
    folder: Path, root: Path, seen: set[tuple[int, int]], skipped: Counter[str]
) -> Iterator[tuple[Path, os.stat_result]]:
    for entry in _entries(folder, skipped):
        path = Path(entry.path)
        if entry.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            skipped["link that leads outside"] += 1
            continue
        try:
            status = path.stat()
        except OSError:
            skipped["broken link"] += 1
            continue
        if (status.st_dev, status.st_ino) in seen:
            skipped["the same file again"] += 1
            continue
        if stat.S_ISDIR(status.st_mode):
            # A link to a folder could be a link to a parent: its files are found where they truly lie.
            if entry.is_symlink():
                skipped["link to a folder"] += 1
            else:
                yield from _walk(path, root, seen, skipped)
        elif not stat.S_ISREG(status.st_mode):
            skipped["not a plain file"] += 1
        elif path.suffix.lower() in OTHER_SUFFIXES:
            skipped["not an image by its name"] += 1
        else:
            seen.add((status.st_dev, status.st_ino))
            yield path, status
