"""Images to predict: files, folders, archives and tables of any layout, with labels or without."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from natsort import natsorted

from tans_core.tasks.inputs.archive import archive_kind, checked, is_shown, parts_of, problem_of
from tans_core.tasks.inputs.base import LEADS_OUTSIDE, NO_IMAGE_BY_NAME, Entry, Input, printable
from tans_core.tasks.inputs.folder import OTHER_SUFFIXES, Links, walk
from tans_core.tasks.inputs.open import check_readable
from tans_core.tasks.inputs.readers import Limits, Reader, TarReader, ZipReader
from tans_core.tasks.inputs.table import is_parquet_folder, is_table, list_table


@dataclass(frozen=True)
class Images:
    """See `Input`. `class_names` is empty: labels are what the names of folders tell."""

    root: Path
    kind: str
    entries: list[Entry]
    skipped: Counter[str]
    bad: list[tuple[str, str]]
    class_names: tuple[str, ...] = ()
    notes: Sequence[str] = ()
    _reader: Reader | None = field(default=None, repr=False)
    _numbers: dict[str, int] = field(default_factory=dict, repr=False)

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | str]:
        assert self._reader is not None, "every entry of a folder has a path"
        yield from self._reader.read([self._numbers[entry.name] for entry in entries])


def list_images(path: Path, class_names: Collection[str] = (), follow_links: bool = False) -> Input:
    """List the images of a path, without decoding them.

    Args:
        path: an image file; a folder or an archive (zip, tar) of any layout; a CSV with a column of paths; a Parquet
            file with images, or a folder of such files.
        class_names: known classes. The label of a file in a folder of such a name is this name; the outermost counts.
            Other files have the label "". A table's labels are taken as they are.
        follow_links: follow links that lead outside `path`.

    Raises:
        ArchiveError: the archive is refused.
        DataError: `path` does not exist, or cannot be read.
    """
    check_readable(path)
    if path.is_dir():
        if is_parquet_folder(path):
            return list_table(path, follow_links=follow_links, labelled=False)
        return _folder(path, class_names, follow_links)
    kind = archive_kind(path)
    if kind is not None:
        return _archive(path, kind, class_names)
    if is_table(path):
        return list_table(path, follow_links=follow_links, labelled=False)
    status = path.stat()
    entry = Entry(printable(path.name), "", None, str(path), f"{status.st_size}-{status.st_mtime_ns}")
    return Images(path, "image", [entry], Counter(), [])


def _folder(root: Path, class_names: Collection[str], follow_links: bool) -> Images:
    skipped: Counter[str] = Counter()
    entries: list[Entry] = []
    bad: list[tuple[str, str]] = []
    for path, status in walk(str(root), Links(root, follow_links), skipped):
        name = printable(Path(path).relative_to(root).as_posix())
        if isinstance(status, str):
            bad.append((name, status))
        elif name.lower().endswith(OTHER_SUFFIXES):
            skipped[NO_IMAGE_BY_NAME] += 1
        else:
            stamp = f"{status.st_size}-{status.st_mtime_ns}"
            entries.append(Entry(name, _label(name, class_names), None, path, stamp))
    if skipped[LEADS_OUTSIDE]:  # the usual reason names an option of another command
        skipped["link that leads outside"] = skipped.pop(LEADS_OUTSIDE)
    return Images(root, "folder", natsorted(entries, key=lambda entry: entry.name), +skipped, bad)


def _archive(path: Path, kind: str, class_names: Collection[str]) -> Images:
    limits = Limits()
    reader: Reader = ZipReader(path) if kind == "zip" else TarReader(path, limits)
    status = path.stat()
    skipped: Counter[str] = Counter()
    entries: list[Entry] = []
    bad: list[tuple[str, str]] = []
    numbers: dict[str, int] = {}
    for member in checked(path, reader, limits, status.st_size):
        parts = parts_of(path, member.name, {})
        if member.folder or not parts:
            continue
        name = "/".join(parts)
        problem = member.problem or problem_of(member, parts[-1])
        if tuple(itertools.takewhile(is_shown, parts)) != parts:
            skipped["hidden or system file"] += 1
        elif name.lower().endswith(OTHER_SUFFIXES):
            skipped[NO_IMAGE_BY_NAME] += 1
        elif problem or name in numbers:
            bad.append((name, problem or "a second entry of this name: give it another"))
        else:
            numbers[name] = member.number
            stamp = f"{status.st_size}-{status.st_mtime_ns}-{member.number}"
            entries.append(Entry(name, _label(name, class_names), None, None, stamp))
    if kind == "zip":  # a tar is read forwards
        entries = natsorted(entries, key=lambda entry: entry.name)
    return Images(path, kind, entries, skipped, bad, _reader=reader, _numbers=numbers)


def _label(name: str, class_names: Collection[str]) -> str:
    return next((part for part in PurePosixPath(name).parts[:-1] if part in class_names), "")
