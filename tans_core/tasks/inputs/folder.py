"""A folder of class folders: the files that may be images."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tans_core.errors import DataError
from tans_core.tasks.inputs.base import (
    BESIDE_SPLITS,
    LEADS_OUTSIDE,
    NO_IMAGE_BY_NAME,
    SPLIT_NAMES,
    Entry,
    check_classes,
    empty_splits,
    outside_classes,
    printable,
    spelled_twice,
)
from tans_core.tasks.inputs.groups import FOLDER, check_folder_group, settled

NOT_IMAGES = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
# Files that are no images by their names; all others are opened.
OTHER_SUFFIXES = (".txt", ".md", ".json", ".csv", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log")

_BROKEN = "broken link"
_TO_A_FOLDER = "link to a folder"
_TO_A_PARENT = "link to a folder that holds this one"
_AGAIN = "the same file again"
_FOLDER_AGAIN = "the same folder again"


@dataclass(frozen=True)
class Folder:
    """A folder of class folders; see `Input`."""

    root: Path
    class_names: tuple[str, ...]
    entries: list[Entry]
    skipped: Counter[str]
    kind: str = "folder"
    bad: tuple[tuple[str, str], ...] = ()
    notes: Sequence[str] = ()

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | str]:
        raise NotImplementedError("every entry of a folder has a path")


def list_folder(
    root: Path, drop_empty_classes: bool = False, follow_links: bool = False, group: str | None = None
) -> Folder:
    """List the files of `root/<class>/**`, or `root/{train,val,test}/<class>/**`; classes and files in natural order.

    Hidden files and files of operating systems are skipped; a file that is found twice is listed once.

    Args:
        root: the folder.
        drop_empty_classes: leave out classes without a file instead of failing.
        follow_links: follow links to files and folders outside `root`, and list broken links as bad; else skip both.
        group: "folder" keeps the images of one folder below a class in one split, and folders of one name together.

    Raises:
        DataError: `root` is no readable folder, or `group` is neither "folder" nor "none".
        NoClassesError: there are no class folders, or only one.
        EmptyClassError: a class folder holds no file that can be read.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder.")
    check_folder_group(root, group)
    skipped: Counter[str] = Counter()
    spelled: dict[str, set[str]] = {}
    links = Links(root, follow_links)
    seen: set[tuple[int, int, str, str | None]] = set()
    taken: set[str] = set()
    entries: list[Entry] = []
    bad: list[tuple[str, str]] = []
    lost: dict[str, list[str]] = {}
    start = len(os.path.join(root, ""))  # noqa: PTH118  with the separator
    for split, folder in _split_folders(root, links, skipped):
        for entry in _entries(folder, skipped):
            if not links.is_folder(entry):
                reason = links.problem(entry) if entry.is_symlink() else None
                if reason == _BROKEN and follow_links:
                    bad.append((_free(printable(entry.path[start:]), taken), reason))
                else:
                    skipped[reason or outside_classes(entry.name)] += 1
                continue
            label = printable(entry.name)
            lost.setdefault(label, [])
            spelled.setdefault(label, set()).add(entry.name)
            below = len(entry.path) + 1
            for path, status in walk(entry.path, links, skipped):
                if isinstance(status, str):
                    bad.append((_free(printable(path[start:]), taken), status))
                    lost[label].append(status)
                    continue
                if path.lower().endswith(OTHER_SUFFIXES):
                    skipped[NO_IMAGE_BY_NAME] += 1
                    lost[label].append(f"{NO_IMAGE_BY_NAME} ({PurePosixPath(path).suffix.lower()})")
                    continue
                # A file linked into two classes or splits stays: it is reported as a copy would be.
                key = (status.st_dev, status.st_ino, label, split)
                if key in seen:
                    skipped[_AGAIN] += 1
                    continue
                seen.add(key)
                stamp = f"{status.st_size}-{status.st_mtime_ns}"
                level = printable(path[below:].partition(os.sep)[0]) if os.sep in path[below:] else ""
                entries.append(Entry(_free(printable(path[start:]), taken), label, split, path, stamp, level))
    classes = check_classes(root, lost, entries, skipped, drop_empty_classes)
    notes = spelled_twice(spelled, classes)
    entries = settled(entries, FOLDER, group, notes)
    return Folder(root, classes, entries, +skipped, bad=tuple(bad), notes=notes)


class Links:
    """Which links are followed.

    A link to a folder below the root is not: its files are listed there. A link to a folder that contains the root is
    not: everything would be listed again as one class.
    """

    def __init__(self, root: Path, follow: bool) -> None:
        self.follow = follow
        self._real_root = Path(os.path.realpath(root))

    def problem(self, link: os.DirEntry[str]) -> str | None:
        """Return why a link is skipped; None if it is followed."""
        # Unlike Path.resolve, realpath accepts circular links.
        target = Path(os.path.realpath(link.path))
        inside = target.is_relative_to(self._real_root)
        if not inside and not self.follow:
            return LEADS_OUTSIDE
        try:
            folder = stat.S_ISDIR(link.stat().st_mode)
        except OSError:
            return _BROKEN
        if not folder:
            return None
        if inside:
            return _TO_A_FOLDER
        return _TO_A_PARENT if self._real_root.is_relative_to(target) else None

    def is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Return whether an entry is a folder, or a link that is followed to one."""
        if entry.is_symlink():
            return self.follow and self.problem(entry) is None and entry.is_dir()
        return entry.is_dir()


def _split_folders(root: Path, links: Links, skipped: Counter[str]) -> list[tuple[str | None, Path]]:
    """Return (split, folder of class folders); the split is None unless train and another one contain class folders.

    Folders beside the splits are skipped: they are no classes. If only one split contains class folders, as when a test
    set has no labels, there are no splits, and its classes are the input's.
    """
    folders = [Path(entry.path) for entry in _entries(root, Counter()) if links.is_folder(entry)]
    named: list[tuple[str | None, Path]] = [
        (SPLIT_NAMES[folder.name.lower()], folder) for folder in folders if folder.name.lower() in SPLIT_NAMES
    ]
    if "train" not in {split for split, _ in named} or len(named) < 2:
        return [(None, root)]
    deep = [(split, folder) for split, folder in named if any(map(links.is_folder, _entries(folder, Counter())))]
    if not deep:
        inside = (entry for _, folder in named for entry in _entries(folder, Counter()))
        outside = sum(entry.is_symlink() and links.problem(entry) == LEADS_OUTSIDE for entry in inside)
        raise empty_splits(root, sorted(folder.name for _, folder in named), outside)
    if len({split for split, _ in deep}) == 1:
        named = [(None, folder) for _, folder in named]
    skipped[BESIDE_SPLITS] += len(folders) - len(named)
    for entry in _entries(root, skipped):
        skipped[outside_classes(entry.name)] += entry.is_file(follow_symlinks=False)
    return sorted(named, key=lambda pair: str(pair[0]))


def _entries(folder: Path, skipped: Counter[str]) -> list[os.DirEntry[str]]:
    """Return a folder's entries; none if it cannot be read."""
    try:
        return _listed(folder, skipped)
    except OSError:
        skipped["folder that cannot be read"] += 1
        return []


def _listed(folder: Path | str, skipped: Counter[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as scan:
        # Sorted by letters, so that the order is the same on every machine.
        entries = sorted(scan, key=lambda entry: entry.name)
    kept = []
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in NOT_IMAGES:
            skipped["hidden or system file"] += 1
        else:
            kept.append(entry)
    return kept


def walk(folder: str, links: Links, skipped: Counter[str]) -> Iterator[tuple[str, os.stat_result | str]]:
    """Yield the files below a folder with their status; files and folders that cannot be read with the reason."""
    # A list, not recursion: folders may be nested deeper than the recursion limit.
    folders = [folder]
    seen: set[tuple[int, int]] = set()
    while folders:
        folder = folders.pop()
        try:
            status = Path(folder).stat()
            entries = _listed(folder, skipped) if (status.st_dev, status.st_ino) not in seen else None
        except OSError as error:
            yield folder, _reason(error)
            continue
        if entries is None:
            skipped[_FOLDER_AGAIN] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            reason = links.problem(entry) if entry.is_symlink() else None
            if reason == _BROKEN and links.follow:
                yield entry.path, reason
            elif reason is not None:
                skipped[reason] += 1
            else:
                try:
                    status = entry.stat()
                except OSError as error:
                    yield entry.path, _reason(error)
                    continue
                if stat.S_ISDIR(status.st_mode):
                    folders.append(entry.path)
                elif not stat.S_ISREG(status.st_mode):
                    skipped["not a plain file"] += 1
                else:
                    yield entry.path, status


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _free(name: str, taken: set[str]) -> str:
    """Return the name, numbered if another file has it: on disk, NFC and NFD of one name are two files."""
    free, number = name, 1
    while free in taken:
        number += 1
        path = PurePosixPath(name)
        free = path.with_name(f"{path.stem} ({number}){path.suffix}").as_posix()
    taken.add(free)
    return free
