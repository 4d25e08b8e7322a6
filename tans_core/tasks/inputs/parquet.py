"""Parquet files that contain images, as Hugging Face `datasets` saves them.

First the rows are listed, from the columns of labels, paths and splits. Then images are read forwards, a few at a time.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from natsort import natsorted

from tans_core.errors import DataError
from tans_core.tasks.inputs.base import (
    LEADS_OUTSIDE,
    NO_IMAGE_BY_NAME,
    SPLIT_NAMES,
    file_content,
    printable,
    within_limit,
)
from tans_core.tasks.inputs.folder import NOT_IMAGES, OTHER_SUFFIXES
from tans_core.tasks.inputs.groups import group_column
from tans_core.tasks.inputs.labels import many_labels
from tans_core.tasks.inputs.rows import (
    BROKEN,
    LABEL_COLUMNS,
    MAX_TABLE_BYTES,
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    Find,
    TableRow,
    first_line,
    no_column,
    pick,
)

PARQUET_SUFFIXES = (".parquet", ".pq")
CELL_COLUMNS = ("image", "img", "picture", "image_bytes", "bytes", *PATH_COLUMNS)
WITHHELD = "label withheld (-1)"

_SHARD = re.compile(r"([a-z]+)([-_.]?\d+([-_]?of[-_]?\d+)?(-[0-9a-f]{16})?)?")
_BATCH = 16
_BUFFER_BYTES = 2**20  # without a buffer, pyarrow reads a whole column chunk at a time


def is_parquet_folder(path: Path) -> bool:
    """Return whether a folder contains Parquet files, at any depth, and otherwise only notes such as README.md."""
    has_parquet = False
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in names:
            if name.lower().endswith(PARQUET_SUFFIXES) and not _hidden(name):
                has_parquet = has_parquet or Path(folder, name).is_file()
            elif not _hidden(name) and not name.lower().endswith(OTHER_SUFFIXES):
                return False
    return has_parquet


class Part(NamedTuple):
    """A Parquet file; `column` has the images, `group` their groups; row group g begins at row starts[g]."""

    path: Path
    column: str
    starts: list[int]
    group: str | None = None


def parquet_rows(
    path: Path,
    home: Path,
    parts: list[Part],
    lost: dict[str, list[str]],
    skipped: Counter[str],
    group: str | None = None,
    follow_links: bool = False,
    labelled: bool = True,
) -> Iterator[TableRow]:
    """Yield the rows of a file, or of all files below a folder; add files to `parts` and declared classes to `lost`.

    Without `labelled`, a file needs no column of labels.
    """
    for file in parquet_files(path, skipped, follow_links) if path.is_dir() else [path]:
        name = printable(file.relative_to(home).as_posix())
        split = _split_of(PurePosixPath(name.lower()))
        status = file.stat()
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
        try:
            with _opened(file) as table:
                yield from _rows_of(table, file, name, split, stamp, parts, lost, group, labelled)
        except BROKEN as error:
            raise DataError(
                f"{file}: not readable as Parquet: broken or cut short ({first_line(error)}). "
                "Download or copy it again."
            ) from error


def _rows_of(
    table: pq.ParquetFile,
    file: Path,
    name: str,
    split: str | None,
    stamp: str,
    parts: list[Part],
    lost: dict[str, list[str]],
    group: str | None,
    labelled: bool,
) -> Iterator[TableRow]:
    row_groups = [table.metadata.row_group(index) for index in range(table.metadata.num_row_groups)]
    for index, row_group in enumerate(row_groups):
        if row_group.total_byte_size > MAX_TABLE_BYTES:
            raise DataError(
                f"{file}, row group {index}: {row_group.total_byte_size:,} bytes; at most {MAX_TABLE_BYTES:,} are held "
                "at a time. Write it with smaller row groups, such as row_group_size=1000."
            )
    schema: pa.Schema = table.schema_arrow
    features = _features(schema)
    images = [key for key, value in features.items() if value.get("_type") == "Image"]
    image = pick([key for key in schema.names if _holds_bytes(schema.field(key).type)], (*images, *CELL_COLUMNS))
    embedded = image is not None
    image = image or pick([key for key in schema.names if _is_text(schema.field(key).type)], (*images, *PATH_COLUMNS))
    classes = [key for key, value in features.items() if value.get("_type") == "ClassLabel"]
    label = pick([key for key in schema.names if _is_label(_item(schema.field(key).type))], (*LABEL_COLUMNS, *classes))
    if image is None or (label is None and labelled):
        raise no_column(file, [f"{f.name} ({str(f.type)[:40]})" for f in schema], image is None, CELL_COLUMNS)
    kind = schema.field(image).type
    columns = [name for name in dict.fromkeys((label, None if embedded else image)) if name is not None]
    if (
        embedded
        and pa.types.is_struct(kind)
        and kind.get_field_index("path") >= 0
        and _is_text(kind.field("path").type)
    ):
        columns.append(f"{image}.path")
    by_row = pick([key for key in schema.names if _is_text(schema.field(key).type)], SPLIT_COLUMNS)
    columns += [by_row] if by_row is not None else []
    free = [key for key in schema.names if key not in (image, label) and _is_label(schema.field(key).type)]
    by_group = group_column(file, free, group)
    columns += [by_group] if by_group is not None else []
    declared = _class_names(features.get(label or "", {}))
    several: list[list[Any]] = []
    lost.update({name: [] for name in declared if name not in lost})
    starts = [0, *itertools.accumulate(row_group.num_rows for row_group in row_groups)]
    parts.append(Part(file, image, starts, by_group))
    number = 0
    for batch in table.iter_batches(columns=columns, batch_size=1024, use_threads=False):
        paths = batch[image] if image in batch.schema.names else None
        if paths is not None and pa.types.is_struct(paths.type):
            paths = pc.struct_field(paths, "path")
        files = paths.to_pylist() if paths is not None else [None] * len(batch)
        splits = batch[by_row].to_pylist() if by_row is not None else [split] * len(batch)
        members = batch[by_group].to_pylist() if by_group is not None else [None] * len(batch)
        labels = batch[label].to_pylist() if label is not None else [None] * len(batch)
        for value, one, part, member in zip(labels, files, splits, members, strict=True):
            cell = (len(parts) - 1, number) if embedded else None
            if isinstance(value, list):
                several += [value] if len(value) > 1 else []
                value = value[0] if value else None
            text, problem = _label(value, declared)
            shared = "" if member is None else str(member).strip()
            yield TableRow(f"{name}#{number}", one, text, part, f"{stamp}-{number}", cell, shared, problem)
            number += 1
    if several:
        raise many_labels(file, len(several), number, ", ".join(str(_label(one, declared)[0]) for one in several[0]))
    if number != starts[-1]:
        raise ValueError(f"{number:,} rows, not {starts[-1]:,}")


def _split_of(name: PurePosixPath) -> str | None:
    """Return the split by the name of a folder or file: `train/`, `train.parquet`, `train-00000-of-00002`.

    A split within a longer name does not count: `test-tube.parquet`.
    """
    shard = _SHARD.fullmatch(name.stem)
    words = [*name.parent.parts, shard[1] if shard else ""]
    return next((SPLIT_NAMES[word] for word in reversed(words) if word in SPLIT_NAMES), None)


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return the features by column from the metadata of Hugging Face; {} if it is missing or malformed."""
    with suppress(ValueError, RecursionError, LookupError, TypeError, AttributeError):
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {str(key): value for key, value in features.items() if isinstance(value, dict)}
    return {}


def _class_names(feature: dict[str, Any]) -> list[str]:
    items = feature.get("feature")  # of a list
    names = items.get("names") if isinstance(items, dict) else feature.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return []
    names = [printable(name.strip()) for name in names]
    return names if all(names) and len(set(names)) == len(names) else []


def _label(value: object, names: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the class, or the reason why there is none."""
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None if value != value else value
    if value is None:
        return None, None
    if names and value == -1:  # data sets mark withheld labels of their test split so
        return None, WITHHELD
    if names and isinstance(value, int):
        return (names[value], None) if 0 <= value < len(names) else (None, f"label {value}: want 0 to {len(names) - 1}")
    return str(value), None


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_label(kind: pa.DataType) -> bool:
    return _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _item(kind: pa.DataType) -> pa.DataType:
    """Return the type of a list's items; of any other type, itself."""
    return kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


class Cells:
    """Images by file and row, in any order; fast if rows are read forwards.

    Args:
        parts: the files.
        find: returns the file for a path in a row.
    """

    def __init__(self, parts: Sequence[Part], find: Find) -> None:
        self._parts = parts
        self._find = find
        self._open: tuple[int, int] | None = None  # file and row group
        self._table: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.Array | None = None
        self._first = 0
        self._broken: str | None = None

    def at(self, part: int, row: int) -> bytes | str:
        """Return the image of a row, or the reason why it cannot be read."""
        group = bisect_right(self._parts[part].starts, row) - 1
        try:
            if self._open != (part, group) or row < self._first:
                self._begin(part, group)
            while self._broken is None and (self._batch is None or row >= self._first + len(self._batch)):
                self._first += len(self._batch) if self._batch is not None else 0
                self._batch = next(self._batches).column(0)
        except (StopIteration, *BROKEN) as error:
            # The rest of the row group is lost; the next group may be intact.
            self._broken = f"row group {group} of {self._parts[part].path.name} is broken: {first_line(error)}"
        if self._broken is not None or self._batch is None:
            return self._broken or "broken"
        cell = self._batch[row - self._first].as_py()
        data = cell["bytes"] if isinstance(cell, dict) else cell
        if data is None and isinstance(cell, dict) and isinstance(cell.get("path"), str):
            located = self._find(cell["path"])
            return located if isinstance(located, str) else file_content(located[0])
        return within_limit(data) if isinstance(data, bytes) else "no image in this row"

    def _begin(self, part: int, group: int) -> None:
        path, column, starts, _ = self._parts[part]
        if self._table is None or self._open is None or self._open[0] != part:
            if self._table is not None:
                self._table.close()
            self._table = None
        self._open, self._first, self._batch, self._broken = (part, group), starts[group], None, None
        if self._table is None:
            self._table = _opened(path)
        self._batches = self._table.iter_batches(
            batch_size=_BATCH, row_groups=[group], columns=[column], use_threads=False
        )


def _opened(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in NOT_IMAGES


def parquet_files(root: Path, skipped: Counter[str] | None = None, follow_links: bool = False) -> list[Path]:
    """Return the Parquet files below a folder, in natural order; other files are counted in `skipped`.

    Links to folders are never followed; links to files outside only with `follow_links`.
    """
    skipped = Counter() if skipped is None else skipped
    real_root = os.path.realpath(root)
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in names:
            path = Path(folder, name)
            if _hidden(name):
                skipped["hidden or system file"] += 1
            elif not name.lower().endswith(PARQUET_SUFFIXES):
                skipped[NO_IMAGE_BY_NAME] += 1
            elif not follow_links and not Path(os.path.realpath(path)).is_relative_to(real_root):
                skipped[LEADS_OUTSIDE] += 1
            elif path.is_file():
                files.append(path)
    return natsorted(sorted(files))
