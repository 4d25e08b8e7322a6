"""Tables: a CSV of paths and labels, or Parquet files that contain the images.

A table is not trusted: a path must lead to a file in the table's own folder.
"""

from __future__ import annotations

import codecs
import csv
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted

from tans_core.errors import DataError
from tans_core.tasks.inputs.base import SPLIT_NAMES, Entry, check_classes, file_content, printable, spelled_twice
from tans_core.tasks.inputs.csv_rows import DELIMITERS, csv_rows, read_columns
from tans_core.tasks.inputs.groups import NONE, settled
from tans_core.tasks.inputs.labels import check_one_label
from tans_core.tasks.inputs.parquet import (
    PARQUET_SUFFIXES,
    WITHHELD,
    Cells,
    Part,
    is_parquet_folder,
    parquet_files,
    parquet_rows,
)
from tans_core.tasks.inputs.rows import (
    LABEL_COLUMNS,
    MAX_ROWS,
    NO_FILE,
    PATH_COLUMNS,
    ByName,
    Find,
    TableRow,
    locate,
    pick,
)

CSV_SUFFIXES = (".csv", ".tsv", ".tab")
_START_BYTES = 2**16

__all__ = ["Table", "is_parquet_folder", "is_table", "list_table", "parquet_files"]


@dataclass(frozen=True)
class Table:
    """See `Input`. Entries of Parquet files are in the order of the files, which are read forwards."""

    root: Path
    kind: str
    class_names: tuple[str, ...]
    entries: list[Entry]
    skipped: Counter[str]
    bad: list[tuple[str, str]]
    notes: list[str]
    _images: Cells = field(repr=False)
    _cell_of: dict[str, tuple[int, int]] = field(repr=False)

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | str]:
        for entry in entries:
            yield self._images.at(*self._cell_of[entry.name]) if entry.path is None else file_content(entry.path)


def is_table(path: Path) -> bool:
    """Return whether a file is a table: by its suffix, its first bytes (Parquet), or its column names (CSV)."""
    if path.suffix.lower() in (*CSV_SUFFIXES, *PARQUET_SUFFIXES) or _begins(path, b"PAR1"):
        return True
    line = next(iter((_start(path) or "").splitlines()), "")
    headers = [next(csv.reader([line], delimiter=delimiter), []) for delimiter in DELIMITERS]
    return any(pick(names, PATH_COLUMNS) and pick(names, LABEL_COLUMNS) for names in headers)


def list_table(
    path: Path,
    drop_empty_classes: bool = False,
    follow_links: bool = False,
    group: str | None = None,
    labelled: bool = True,
) -> Table:
    """List the rows of a CSV (or TSV) or Parquet file, or of a folder of Parquet files.

    Args:
        path: the file or the folder.
        drop_empty_classes: leave out classes without a row instead of failing.
        follow_links: follow links that lead outside the table's folder; else those files are listed as bad.
        group: the column of groups that stay in one split, such as patients; "none" for no groups. None: a column with
            a usual name, if there is one.
        labelled: every row needs a label, and there have to be two classes; else rows may be without.

    Raises:
        DataError: the file is no table, broken or too large; no column holds images or labels; a quote swallows rows;
            or rows have several labels.
        NoClassesError: there are no classes, or only one.
        EmptyClassError: a class of the rows, or declared by a Parquet file, has no usable row.
    """
    skipped: Counter[str] = Counter()
    bad: list[tuple[str, str]] = []
    lost: dict[str, list[str]] = {}
    parts: list[Part] = []
    notes: list[str] = []
    spelled: dict[str, set[str]] = {}
    if path.is_dir() or path.suffix.lower() in PARQUET_SUFFIXES or _begins(path, b"PAR1"):
        kind, home = "parquet", path if path.is_dir() else path.parent
        rows, column = parquet_rows(path, home, parts, lost, skipped, group, follow_links, labelled), None
    else:
        kind, home = "csv", path.parent
        if _start(path) is None:
            raise DataError(
                f"{path}: neither an archive (zip, tar) nor a table (CSV in UTF-8, Parquet). Want one of these, or a "
                "folder of class folders. A table in another encoding: save it as CSV UTF-8."
            )
        columns = read_columns(path, group, labelled)
        rows, column = csv_rows(path, columns, bad, columns.group is None and group != NONE, notes), columns.group
    find = ByName(partial(locate, Path(os.path.realpath(home)), follow_links=follow_links), home)
    entries, cells = _entries(_counted(path, rows), find, skipped, bad, lost, spelled, labelled)
    if labelled:
        check_one_label(path, Counter(entry.label for entry in entries))
    column = column or next((part.group for part in parts if part.group), "")
    entries = settled(entries, column, group, notes)
    notes += [*find.notes(), *spelled_twice(spelled, spelled)]
    if not entries and labelled:
        shown = "; ".join(
            [f"{name}: {why}" for name, why in bad[:3]] or [f"{why}: {n:,}" for why, n in skipped.items()]
        )
        raise DataError(
            f"{path}: none of its {len(bad) + skipped.total():,} rows can be used. {shown or 'It is empty'}."
            + (f" Paths start from {home.resolve()}." if NO_FILE in shown else "")
        )
    if not cells:
        entries = natsorted(entries, key=lambda entry: entry.name)
    classes = check_classes(path, lost, entries, skipped, drop_empty_classes) if labelled else ()
    return Table(path, kind, classes, entries, skipped, bad, notes, Cells(parts, find), cells)


class _Kept(NamedTuple):
    row: TableRow
    name: str
    label: str
    path: Path | None
    stamp: str


def _entries(
    rows: Iterable[TableRow],
    find: Find,
    skipped: Counter[str],
    bad: list[tuple[str, str]],
    lost: dict[str, list[str]],
    spelled: dict[str, set[str]],
    labelled: bool,
) -> tuple[list[Entry], dict[str, tuple[int, int]]]:
    """Return the entries, and (file, row) of images in the table by name; add to the last four arguments."""
    kept: list[_Kept] = []
    left_out: list[tuple[str, str, str]] = []

    def leave_out(row: TableRow, name: str, label: str, reason: str) -> None:
        left_out.append((row.where, name, reason))
        if label:
            lost.setdefault(label, []).append(reason)

    given: set[str | None] = set()
    for row in rows:
        name, label = _name(row), printable((row.label or "").strip())
        if not label.isascii():
            spelled.setdefault(label, set()).add((row.label or "").strip())
        if row.problem == WITHHELD and labelled:
            skipped[WITHHELD] += 1
            continue
        located = find(row.file or "") if row.cell is None else (None, None)
        if isinstance(located, str) or (labelled and (row.problem or not label)):
            leave_out(row, name, label, located if isinstance(located, str) else row.problem or "no label")
            continue
        path, status = located
        kept.append(_Kept(row, name, label, path, f"{status.st_size}-{status.st_mtime_ns}" if status else row.stamp))
        given.add(_split(row))
    # As with folders, splits are used only if there are train and another one.
    splits = "train" in given and len(given - {None}) > 1
    if not splits and any(one.row.split for one in kept):
        number = sum(bool(one.row.split) for one in kept)
        skipped["split that is not used: want train and at least one more"] += number
    seen: set[tuple[Path, str, str | None]] = set()
    taken: list[tuple[_Kept, str | None]] = []
    for one in kept:
        split = _split(one.row) if splits else None
        # A file listed with two labels or splits stays: it is reported as a copy would be.
        if splits and split is None and labelled:
            why = f"split {one.row.split!r}: want train, val or test" if one.row.split else "no split"
            leave_out(one.row, one.name, one.label, why)
        elif one.path is not None and (one.path, one.label, split) in seen:
            skipped["listed twice"] += 1
        else:
            if one.path is not None:
                seen.add((one.path, one.label, split))
            taken.append((one, split))
    counts = Counter(one.name for one, _ in taken)
    names: set[str] = set()
    entries: list[Entry] = []
    cells: dict[str, tuple[int, int]] = {}
    for one, split in taken:
        name = one.name if counts[one.name] == 1 else f"{one.row.where}: {one.name}"
        while name in names:
            name += "'"
        names.add(name)
        entries.append(Entry(name, one.label, split, str(one.path) if one.path else None, one.stamp, one.row.group))
        if one.row.cell is not None:
            cells[name] = one.row.cell
    counts.update(name for _, name, _ in left_out)
    bad += [(name if counts[name] == 1 else f"{where}: {name}", reason) for where, name, reason in left_out]
    return entries, cells


def _split(row: TableRow) -> str | None:
    return SPLIT_NAMES.get((row.split or "").strip().lower())


def _name(row: TableRow) -> str:
    """Return the path in the table, normalised; the row's number if the path cannot be below the table's folder."""
    plain = posixpath.normpath((row.file or "").strip().replace("\\", "/"))
    if row.cell is None:
        return printable(plain) if row.file and row.file.strip() else row.where
    outside = plain in (".", "..") or plain.startswith(("/", "../")) or "\0" in plain or plain[1:2] == ":"
    return row.where if outside else printable(plain)


def _counted(path: Path, rows: Iterable[TableRow]) -> Iterator[TableRow]:
    for number, row in enumerate(rows, start=1):
        if number > MAX_ROWS:
            raise DataError(f"{path}: more than {MAX_ROWS:,} rows. Split it.")
        yield row


def _start(path: Path) -> str | None:
    """Return the first 64 KiB of a text in UTF-8; None if it is not UTF-8."""
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    with suppress(UnicodeDecodeError):
        # The incremental decoder accepts a last letter that is cut.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
        return None if "\0" in text else text
    return None


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
