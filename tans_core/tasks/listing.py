"""Find the images of a folder of class folders, and nothing else that lies in it."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from natsort import natsorted

from tans_core.errors import DataError, EmptyClassError, NoClassesError

_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_NOT_IMAGES = {"thumbs.db", "desktop.ini", "__macosx", "icon\r"}
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
# Files that people keep beside images; anything else is opened, whatever its name.
_OTHER_SUFFIXES = (".txt", ".md", ".json", ".csv", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log")


@dataclass(frozen=True)
class ImageFile:
    """A file that may be an image.

    Attributes:
        path: where it is.
        name: its path below the root, with forward slashes, in Unicode NFC.
        label: the name of its class folder, in NFC.
        split: the split folder it lies under, if the root is laid out in splits.
    """

    path: Path
    name: str
    label: str
    split: str | None


@dataclass
class Listing:
    """What a folder holds; `skipped` counts what was passed over, by reason."""

    class_names: tuple[str, ...]
    files: list[ImageFile]
    skipped: Counter[str] = field(default_factory=Counter)


def list_images(root: Path, drop_empty_classes: bool = False) -> Listing:
    """List the files of `root/<class>/**`, or of `root/{train,val,test}/<class>/**`, classes and files in natural order.

    Hidden files, what operating systems leave behind, and links that lead outside are passed over; a file that is reachable
    twice is listed once.

    Raises:
        DataError: `root` is no folder that can be read.
        NoClassesError: there are no class folders, or only one.
        EmptyClassError: a class folder holds no file.
    """
    if root.is_file():
        hint = " Unpack the archive first." if root.suffix.lower() in _ARCHIVES else ""
        raise DataError(f"{root}: a file, want a folder with one folder of images a class.{hint}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder.")
    skipped: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    files: list[ImageFile] = []
    class_names: set[str] = set()
    for split, folder in _split_folders(root, skipped):
        for entry in _entries(folder, skipped):
            if not entry.is_dir(follow_symlinks=False):
                skipped["file outside class folders"] += entry.is_file(follow_symlinks=False)
                continue
            label = unicodedata.normalize("NFC", entry.name)
            class_names.add(label)
            for path in _walk(Path(entry.path), root, seen, skipped):
                name = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
                files.append(ImageFile(path, name, label, split))
    files = natsorted(files, key=lambda file: file.name)
    classes = _check_classes(root, class_names, files, skipped, drop_empty_classes)
    return Listing(classes, files, skipped)


def _split_folders(root: Path, skipped: Counter[str]) -> list[tuple[str | None, Path]]:
    """Return (split, folder of class folders); one pair with no split unless all folders are named after splits."""
    folders = [Path(entry.path) for entry in _entries(root, Counter()) if entry.is_dir(follow_symlinks=False)]
    named = [(_SPLIT_FOLDERS.get(folder.name.lower()), folder) for folder in folders]
    splits = {split for split, _ in named}
    nested = any(entry.is_dir() for folder in folders for entry in _entries(folder, Counter()))
    if None in splits or "train" not in splits or len(named) < 2 or not nested:
        return [(None, root)]
    for entry in _entries(root, skipped):
        skipped["file outside class folders"] += entry.is_file(follow_symlinks=False)
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
        if entry.name.startswith(".") or entry.name.lower() in _NOT_IMAGES:
            skipped["hidden or system file"] += 1
        else:
            kept.append(entry)
    return kept


def _walk(folder: Path, root: Path, seen: set[tuple[int, int]], skipped: Counter[str]) -> Iterator[Path]:
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
        elif path.suffix.lower() in _OTHER_SUFFIXES:
            skipped["not an image by its name"] += 1
        else:
            seen.add((status.st_dev, status.st_ino))
            yield path


def _check_classes(
    root: Path, class_names: set[str], files: list[ImageFile], skipped: Counter[str], drop_empty_classes: bool
) -> tuple[str, ...]:
    counts = Counter(file.label for file in files)
    empty = natsorted(name for name in class_names if counts[name] == 0)
    if empty and not drop_empty_classes and len(class_names) > 1:
        shown = ", ".join(repr(name) for name in empty[:5])
        raise EmptyClassError(
            f"{len(empty)} of {len(class_names)} class folders in {root} hold no file: {shown}.\n"
            "  Add images, delete the folders, or pass --drop-empty-classes."
        )
    classes = tuple(natsorted(name for name in class_names if counts[name]))
    if not classes:
        loose = skipped["file outside class folders"]
        found = f"{loose} files lie in it directly" if loose else "it holds none"
        raise NoClassesError(
            f"{root}: no class folders; {found}. Want one folder of images a class: {root.name}/<class>/<image>."
        )
    if len(classes) == 1:
        raise NoClassesError(f"{root}: only one class, {classes[0]!r}. A classifier needs at least two.")
    return classes
