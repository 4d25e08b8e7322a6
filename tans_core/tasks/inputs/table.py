"""Tables of images: a CSV of paths and labels, a Parquet file that holds the images, a folder of such files.

A path in a table is data: it is taken from the table's own folder, and leads nowhere else.
"""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tans_core.errors import DataError
from tans_core.tasks.inputs.base import MAX_FILE_BYTES, SPLIT_NAMES, Entry, check_classes, printable

CSV_SUFFIXES = (".csv", ".tsv", ".tab")
PARQUET_SUFFIX = ".parquet"
PARQUET_MAGIC = b"PAR1"
_PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path")
_IMAGES = ("image", "img", "picture", "photo")
_LABELS = ("label", "labels", "class", "category", "target", "label_name", "class_name", "fine_label", "y")
_SPLITS = ("split", "subset", "fold", "set", "partition")
_CSV_BYTES = 2 * 2**30
_CSV_ROWS = 20_000_000
_CSV_CHUNK = 50_000
_GROUP_BYTES = 2 * 2**30
_BATCH = 32


class _Row(NamedTuple):
    """One row of a table: its name in messages, label, split, the file it names, and its place in a Parquet file."""

    name: str
    label: str | None
    split: str | None
    file: str | None
    place: tuple[int, int] | None = None


@dataclass(frozen=True)
class Table:
    """See `Input`. Entries are in the order of the rows: that is how Parquet can be read."""

    root: Path
    kind: str
    class_names: tuple[str, ...]
    entries: list[Entry]
    skipped: Counter[str]
    bad: list[tuple[str, str]]
    _images: _ParquetImages | None = field(default=None, repr=False)
    _places: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | str]:
        assert self._images is not None, "every entry of a CSV has a path"
        for entry in entries:
            yield self._images.get(self._places[entry.name])


def is_table(path: Path) -> bool:
    """Say whether a file is a table that `list_table` reads: Parquet by its content, CSV by its name."""
    with path.open("rb") as file:
        return file.read(4) == PARQUET_MAGIC or path.suffix.lower() in CSV_SUFFIXES


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder, as `datasets` saves them; empty where there are none."""
    return sorted(
        path
        for path in folder.rglob(f"*{PARQUET_SUFFIX}")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def list_table(path: Path, drop_empty_classes: bool = False) -> Table:
    """List the rows of a table.

    Args:
        path: a CSV or TSV with a header, a Parquet file, or a folder of Parquet files whose names say their split.
        drop_empty_classes: leave classes without a row out instead of failing.

    Raises:
        NoClassesError: there are fewer than two classes.
        DataError: it cannot be read, or no column holds images or labels.
    """
    if path.is_dir():
        return _list_parquet(path, parquet_files(path), path, drop_empty_classes)
    with path.open("rb") as file:
        parquet = file.read(4) == PARQUET_MAGIC
    if parquet:
        return _list_parquet(path, [path], path.parent, drop_empty_classes)
    return _finish(path, "csv", _csv_rows(path), path.parent, drop_empty_classes)


def _finish(
    root: Path,
    kind: str,
    rows: Iterator[_Row],
    folder: Path,
    drop_empty_classes: bool,
    images: _ParquetImages | None = None,
) -> Table:
    """Turn rows into entries: rows that say the same twice are passed over, rows that contradict each other are bad."""
    entries: dict[str, Entry] = {}
    bad: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    places: dict[str, tuple[int, int]] = {}
    inside = _Inside(folder)
    for row in rows:
        name, problem = row.name, None
        path, stamp = None, ""
        if row.place is None:
            name, path, stamp, problem = inside.find(row.file or "")
        elif name in places:
            name = f"{name}#{row.place[0]}-{row.place[1]}"
        if row.label is None or not row.label.strip():
            problem = problem or "no label"
        elif row.split is not None and row.split.lower() not in SPLIT_NAMES:
            problem = problem or f"split {row.split!r}: want train, val or test"
        if problem is not None:
            bad[name] = problem
            continue
        split = SPLIT_NAMES[row.split.lower()] if row.split else None
        label = unicodedata.normalize("NFC", str(row.label).strip())
        if name in bad:
            continue
        if name in entries:
            first = entries[name]
            if (first.label, first.split) == (label, split):
                skipped["row that is there twice"] += 1
                continue
            del entries[name]
            what = f"two labels: {first.label}, {label}" if first.label != label else "two splits"
            bad[name] = what
            continue
        if row.place is not None:
            places[name] = row.place
            stamp = f"{images.stamp(row.place[0]) if images else ''}-{row.place[1]}"
        entries[name] = Entry(name, label, split, path, stamp)
    listed = list(entries.values())
    classes = check_classes(root, {entry.label for entry in listed}, listed, skipped, drop_empty_classes)
    return Table(root, kind, classes, listed, skipped, list(bad.items()), images, places)


class _Inside:
    """Files below a folder, by what a table calls them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = os.path.realpath(folder)

    def find(self, text: str) -> tuple[str, Path | None, str, str | None]:
        """Return a file's name, path and stamp, or its name and why it cannot be used."""
        plain = text.strip().replace("\\", "/")
        if not plain or "\0" in plain:
            return printable(plain.replace("\0", "")) or "(empty)", None, "", "no path"
        path = self._folder / plain
        name = printable(os.path.normpath(plain).replace(os.sep, "/"))
        # Links are followed first, then looked at.
        if os.path.isabs(plain) or not Path(os.path.realpath(path)).is_relative_to(self._real):  # noqa: PTH117
            return name, None, "", f"outside the table's folder {self._folder}: use paths relative to it"
        try:
            status = path.stat()
        except OSError as error:
            return name, None, "", error.strerror or type(error).__name__
        if not path.is_file():
            return name, None, "", "no plain file"
        return name, path, f"{status.st_size}-{status.st_mtime_ns}", None


def _csv_rows(path: Path) -> Iterator[_Row]:
    import pandas as pd

    size = path.stat().st_size
    if size > _CSV_BYTES:
        raise DataError(f"{path}: {size:,} bytes, more than {_CSV_BYTES:,}. Split it, or write it as Parquet.")
    seen = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            start = file.read(65536)
        separator = ","
        with suppress(csv.Error):
            separator = csv.Sniffer().sniff(start, delimiters=",;\t|").delimiter
        chunks = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", chunksize=_CSV_CHUNK
        )
        for chunk in chunks:
            columns = [str(column) for column in chunk.columns]
            image, label = _column(path, columns, _PATHS, "paths"), _column(path, columns, _LABELS, "labels")
            split = _match(columns, _SPLITS)
            splits = chunk[split] if split else [""] * len(chunk)
            for file_name, text, part in zip(chunk[image], chunk[label], splits, strict=True):
                seen += 1
                if seen > _CSV_ROWS:
                    raise DataError(f"{path}: more than {_CSV_ROWS:,} rows. Split it, or write it as Parquet.")
                yield _Row(str(file_name), str(text), str(part).strip() or None, str(file_name))
    except (UnicodeError, pd.errors.ParserError, pd.errors.EmptyDataError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: no CSV that can be read ({error}). Want a header, UTF-8, one row an image."
        ) from error


def _list_parquet(root: Path, files: Sequence[Path], folder: Path, drop_empty_classes: bool) -> Table:
    try:
        images = _ParquetImages(files, folder)
        return _finish(root, "parquet", images.rows(), folder, drop_empty_classes, images)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{root}: no Parquet that can be read ({error}). Write it again.") from error


class _ParquetImages:
    """Parquet files with one row an image, read forwards a few rows at a time."""

    def __init__(self, files: Sequence[Path], folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._stamps = [f"{(status := path.stat()).st_size}-{status.st_mtime_ns}" for path in files]
        self._cells: Iterator[tuple[tuple[int, int], pa.Scalar]] | None = None
        self._at = (-1, -1)
        for path in files:
            metadata = pq.read_metadata(path)
            largest = max((metadata.row_group(g).total_byte_size for g in range(metadata.num_row_groups)), default=0)
            if largest > _GROUP_BYTES:
                raise DataError(
                    f"{path}: a row group of {largest:,} bytes, more than {_GROUP_BYTES:,}. Write it with smaller row groups."
                )

    def stamp(self, file: int) -> str:
        return self._stamps[file]

    def rows(self) -> Iterator[_Row]:
        """Yield every row, without its image."""
        for number, path in enumerate(self._files):
            file = pq.ParquetFile(path)
            schema = file.schema_arrow
            image = self._image_column(path, schema)
            label = _column(path, schema.names, _LABELS, "labels")
            split = _match(schema.names, _SPLITS)
            names = _class_names(schema, label)
            kind = schema.field(image).type
            has_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
            wanted = [label, *([split] if split else []), *([f"{image}.path"] if has_path else [])]
            if pa.types.is_string(kind):
                wanted.append(image)
            row = 0
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                values = batch.to_pydict()
                cells = values.get(image, [None] * len(batch))
                splits = values[split] if split else [self._split_of(path)] * len(batch)
                for value, part, cell in zip(values[label], splits, cells, strict=True):
                    text = cell.get("path") if isinstance(cell, dict) else cell
                    name = printable(str(text)) if text else f"{path.name}#{row}"
                    place = None if pa.types.is_string(kind) else (number, row)
                    part = str(part).strip() if part is not None else ""
                    yield _Row(name, _label(value, names), part or None, text, place)
                    row += 1

    def get(self, place: tuple[int, int]) -> bytes | str:
        """Return the content of one row's image, or why it cannot be had."""
        if self._cells is None or place <= self._at:
            self._cells, self._at = self._all_cells(), (-1, -1)
        try:
            for at, cell in self._cells:
                self._at = at
                if at == place:
                    return self._content(cell.as_py())
        except (pa.ArrowException, OSError) as error:
            self._cells = None
            return f"broken in the file: {error}"[:200]
        return "no longer in the file"

    def _all_cells(self) -> Iterator[tuple[tuple[int, int], pa.Scalar]]:
        for number, path in enumerate(self._files):
            file = pq.ParquetFile(path)
            image = self._image_column(path, file.schema_arrow)
            row = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=[image]):
                for cell in batch.column(0):
                    yield (number, row), cell
                    row += 1

    def _content(self, value: Any) -> bytes | str:
        if isinstance(value, dict):
            if value.get("bytes") is None and value.get("path"):
                _, path, _, problem = _Inside(self._folder).find(str(value["path"]))
                return problem or (
                    "larger than a file may be" if _too_large(path) else path.read_bytes() if path else ""
                )
            value = value.get("bytes")
        return value if isinstance(value, bytes) else "neither bytes nor a file"

    def _image_column(self, path: Path, schema: pa.Schema) -> str:
        fitting = []
        for column in schema:
            held = column.type
            cell = pa.types.is_struct(held) and held.get_field_index("bytes") >= 0
            if cell or pa.types.is_binary(held) or pa.types.is_large_binary(held):
                fitting.append(column.name)
        by_name = _match(fitting, _IMAGES) or (fitting[0] if fitting else None)
        paths = _match([column.name for column in schema if pa.types.is_string(column.type)], _PATHS)
        found = by_name or paths
        if found is None:
            raise DataError(
                f"{path}: no column of images; it has {', '.join(schema.names)}. Want bytes, a struct of bytes and path, or a "
                f"column of paths called {', '.join(_PATHS[:4])}, ..."
            )
        return found

    def _split_of(self, path: Path) -> str | None:
        """Return the split that a file's name, or its folder's, says: data/train-00000-of-00002.parquet."""
        relative = path.relative_to(self._folder) if path.is_relative_to(self._folder) else Path(path.name)
        words = re.split(r"[-_./\\ ]", str(relative).lower())
        return next((word for word in words if word in SPLIT_NAMES), None)


def _too_large(path: Path | None) -> bool:
    return path is not None and path.stat().st_size > MAX_FILE_BYTES


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Return the names of a ClassLabel, which `datasets` keeps in the file's metadata; None where there are none."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        names = feature["names"]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    return None


def _label(value: Any, names: list[str] | None) -> str | None:
    if value is None or (names is not None and value == -1):  # -1: `datasets` has no label for it
        return None
    if names is not None and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return str(value)


def _match(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    plain = {column.strip().lower(): column for column in columns}
    return next((plain[name] for name in wanted if name in plain), None)


def _column(path: Path, columns: Sequence[str], wanted: Sequence[str], what: str) -> str:
    found = _match(columns, wanted)
    if found is None:
        raise DataError(
            f"{path}: no column of {what}; it has {', '.join(map(printable, columns[:20]))}. Call it one of {', '.join(wanted)}."
        )
    return found
