"""The rows of a CSV: columns found by name, one class a row; an open quote that swallows rows is an error."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tans_core.errors import DataError
from tans_core.tasks.inputs.groups import advise, group_column, may_group
from tans_core.tasks.inputs.labels import many_labels
from tans_core.tasks.inputs.rows import (
    BROKEN,
    LABEL_COLUMNS,
    MAX_TABLE_BYTES,
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    TableRow,
    first_line,
    no_column,
    pick,
)
from tans_core.text import count

DELIMITERS = ",\t;|"

_LINE_CHARS = 2**20
_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


class Columns(NamedTuple):
    """The delimiter, all column names, and the columns by role; `flags` are those of a one-hot table, one a class."""

    delimiter: str
    names: Sequence[str] = ()
    file: str = ""
    label: str | None = None
    flags: tuple[str, ...] = ()
    split: str | None = None
    group: str | None = None


def csv_rows(
    path: Path, columns: Columns, bad: list[tuple[str, str]], ask: bool, notes: list[str]
) -> Iterator[TableRow]:
    """Yield the rows, named by number: the header is row 1, and blank lines are not counted.

    Args:
        path: the file.
        columns: from `read_columns`.
        bad: rows of another length are added to it.
        ask: add to `notes` the unused columns that may hold groups.

    Raises:
        DataError: a quote swallows rows, a row has several classes, or the file is not UTF-8.
    """
    at = {name: number for number, name in enumerate(columns.names)}
    several: list[str] = []
    total = 0
    used = {columns.file, columns.label, columns.split, *columns.flags}
    likely = {name: set[str]() for name in columns.names if ask and may_group(name) and name not in used}
    for number, cells in _records(path, columns):
        if number == 1:
            continue
        where = f"{path.name}#{number}"
        if len(cells) != len(columns.names):
            bad.append((where, f"{len(cells)} columns, not {len(columns.names)}"))
            continue
        total += 1
        for name, values in likely.items():
            values.add(cells[at[name]])
        label = cells[at[columns.label]] if columns.label else None
        if columns.flags:
            on = [name for name in columns.flags if _FLAGS[cells[at[name]].strip().lower()]]
            label = on[0] if on else None
            several += [", ".join(on)] if len(on) > 1 else []
        split, group = (cells[at[name]] if name else None for name in (columns.split, columns.group))
        yield TableRow(where, cells[at[columns.file]], label, split, "", group=(group or "").strip())
    if several:
        raise many_labels(path, len(several), total, several[0])
    for name, values in likely.items():
        advise(name, values, total, notes)


def read_columns(path: Path, group: str | None, labelled: bool = True) -> Columns:
    """Return the delimiter that splits the columns, and their roles.

    Raises:
        DataError: the file is too large, or no column holds paths, or (if `labelled`) labels.
    """
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes; a CSV of at most {MAX_TABLE_BYTES:,} is read. Split it."
        )
    most: list[str] = []
    for delimiter in DELIMITERS:
        bare = Columns(delimiter)
        _, names = next(_records(path, bare), (0, list[str]()))
        file, label = pick(names, PATH_COLUMNS), pick(names, LABEL_COLUMNS)
        if file is not None:
            columns = Columns(delimiter, names, file, label, split=pick(names, SPLIT_COLUMNS))
            flags = () if label is not None else _flags(path, columns)
            if label is not None or flags or not labelled:
                free = [name for name in names if name not in {file, label, *flags}]
                return columns._replace(flags=flags, group=group_column(path, free, group))
        most = max(most, names, key=len)
    raise no_column(path, most, pick(most, PATH_COLUMNS) is None, PATH_COLUMNS)


def _flags(path: Path, columns: Columns) -> tuple[str, ...]:
    """Return the columns that hold only 0 and 1 (one-hot, one a class); none if there are fewer than two."""
    names = columns.names
    left = {number: name for number, name in enumerate(names) if name not in (columns.file, columns.split)}
    for number, cells in _records(path, columns):
        if number > 1 and len(cells) == len(names):
            left = {at: name for at, name in left.items() if cells[at].strip().lower() in _FLAGS}
        if len(left) < 2 or len(set(left.values())) < len(left):
            return ()
    return tuple(left.values())


def _records(path: Path, columns: Columns) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row, the header first."""
    lines: list[str] = []
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:

            def kept() -> Iterator[str]:
                while line := file.readline(_LINE_CHARS):
                    if len(line) == _LINE_CHARS:
                        raise ValueError(f"a line of {_LINE_CHARS:,} letters or more")
                    lines.append(line)
                    yield line

            for cells in csv.reader(kept(), delimiter=columns.delimiter):
                if len(lines) > 1:
                    _check_quote(path, number + 1, lines, columns)
                lines.clear()
                if cells:
                    number += 1
                    yield number, cells
    except (csv.Error, *BROKEN) as error:
        if len(lines) > 1:
            _check_quote(path, number + 1, lines, columns, " or more")
        raise DataError(f"{path}, row {number + 1}: {first_line(error)}. Save it as CSV UTF-8 again.") from error


def _check_quote(path: Path, number: int, lines: Sequence[str], columns: Columns, more: str = "") -> None:
    """Raise if a row of several lines contains other rows: as many columns, and the suffix of the first or of images.

    Below the header, number 1, any line of as many columns is such a row.
    """
    at = columns.names.index(columns.file) if columns.file else 0
    kinds = (_suffix(lines[0], columns.delimiter, at), *_SUFFIXES)
    wanted = len(columns.names) or lines[0].count(columns.delimiter) + 1
    for line in lines[1:]:
        cells = next(csv.reader([line], delimiter=columns.delimiter), [])
        width = max(len(cells), line.count(columns.delimiter) + 1)
        if width >= wanted > 1 and (number == 1 or _suffix(line, columns.delimiter, at) in kinds):
            raise DataError(
                f"{path}, row {number}: a quote opens in it and swallows {count(len(lines) - 1, 'line')}{more}: "
                f"{lines[0].strip()[:80]!r}. Remove it, or close it on the same line. In a text, write a quote twice."
            )


def _suffix(line: str, delimiter: str, at: int) -> str:
    cells = line.split(delimiter)
    return PurePosixPath(cells[at].strip(' "\r\n')).suffix.lower() if at < len(cells) else ""
