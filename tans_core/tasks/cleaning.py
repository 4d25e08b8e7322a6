"""Which of the files that a scan opened are kept, and the status of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tans_core.tasks.duplicates import contradictory, find_copies, near_copies, repeated, together, without_leaks
from tans_core.tasks.inputs.base import Entry

MANIFEST = pa.schema(
    [
        ("name", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("format", pa.string()),
        ("note", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
    ]
)
"""One row a file. `status`: used, unreadable (with a reason), copy, contradiction or leak."""


class KeptImage(NamedTuple):
    """One image that is kept; `entry` is its entry's number. Images of one `group` stay in one split; "" for none."""

    entry: int
    path: str
    label: str
    split: str | None
    content: str
    width: int
    height: int
    group: str = ""


class Cleaned(NamedTuple):
    """The images that are kept, and those left out: see `tans_core.tasks.report.ScanReport`."""

    rows: list[KeptImage]
    copies: tuple[str, ...]
    contradictions: tuple[tuple[str, str], ...]
    leaks: tuple[tuple[str, str], ...]
    near_copies: tuple[tuple[str, ...], ...]
    doubtful: tuple[tuple[str, str], ...]

    def manifest(self, entries: Sequence[Entry], facts: pa.Table, bad: Sequence[tuple[str, str]]) -> pa.Table:
        """Return the status of each file (`MANIFEST`).

        Args:
            entries: the files that were opened.
            facts: a row for each.
            bad: (name, reason) of the files that could not be opened.
        """
        status_of = dict.fromkeys(self.copies, "copy")
        status_of |= {name: "contradiction" for pair in self.contradictions for name in pair}
        status_of |= {name: "leak" for name, _ in self.leaks}
        status = [
            "unreadable" if reason is not None else status_of.get(entry.name, "used")
            for entry, reason in zip(entries, facts["reason"].to_pylist(), strict=True)
        ]
        columns = {
            "name": [entry.name for entry in entries],
            "label": [entry.label for entry in entries],
            "split": [entry.split for entry in entries],
            "status": status,
            **{name: facts[name] for name in ("reason", "format", "note", "width", "height", "sha256")},
        }
        opened = pa.table(columns, schema=MANIFEST)
        unopened = [{"name": name, "status": "unreadable", "reason": reason} for name, reason in bad]
        return pa.concat_tables([opened, pa.Table.from_pylist(unopened, schema=MANIFEST)])


def clean(entries: Sequence[Entry], facts: pa.Table) -> Cleaned:
    """Leave out unreadable files, contradictions, copies and leaks; name the groups of near-copies.

    Args:
        entries: the files that were opened.
        facts: a row for each (`tans_core.tasks.reading.SCHEMA`, without the pixels).
    """
    columns = [facts[name].to_pylist() for name in ("reason", "sha256", "width", "height")]
    rows = [
        KeptImage(index, entry.name, entry.label, entry.split, content, width, height)
        for index, (entry, reason, content, width, height) in enumerate(zip(entries, *columns, strict=True))
        if reason is None
    ]
    kept, contradictions = contradictory(rows, _of(facts, "look", rows).to_pylist())
    rows = [rows[index] for index in kept]
    exact = find_copies(rows)
    rows, leaks = [rows[index] for index in exact.kept], exact.leaks
    hashes, thumbnails, looks = (_of(facts, name, rows) for name in ("phash", "thumbnail", "look"))
    groups = near_copies(hashes.to_numpy(), _bytes(thumbnails), looks.to_pylist())
    doubtful = tuple(_doubtful(rows, repeated(groups.tolist())))
    if any(row.split for row in rows):
        kept, near_leaks = without_leaks(rows, groups)
        rows, groups, leaks = [rows[index] for index in kept], groups[kept], leaks + near_leaks
    near = repeated(groups.tolist())
    joined = together(groups, [entries[row.entry].group for row in rows])
    for members in repeated(joined.tolist()):
        for index in members:
            rows[index] = rows[index]._replace(group=f"group-{joined[index]}")
    return Cleaned(
        rows=rows,
        copies=tuple(exact.copies),
        contradictions=tuple(contradictions),
        leaks=tuple(leaks),
        near_copies=tuple(tuple(rows[index].path for index in members) for members in near),
        doubtful=doubtful,
    )


def _doubtful(rows: Sequence[KeptImage], near: Sequence[Sequence[int]]) -> Iterator[tuple[str, str]]:
    """Yield, for each group with two labels, its first path and the first path of another label."""
    for members in near:
        first, *more = (rows[index] for index in members)
        other = next((row.path for row in more if row.label != first.label), None)
        if other is not None:
            yield first.path, other


def _of(facts: pa.Table, name: str, rows: Sequence[KeptImage]) -> pa.Array:
    """Return one column of the facts for some rows, in their order."""
    # In one piece first: `take` from chunks is ten times slower.
    column = facts[name].combine_chunks()
    return column if len(rows) == len(column) else column.take(pa.array([row.entry for row in rows], type=pa.int64()))


def _bytes(values: pa.FixedSizeBinaryArray) -> npt.NDArray[np.uint8]:
    """Return N values of T bytes without a null, (N, T)."""
    width = values.type.byte_width
    data = np.frombuffer(values.buffers()[1], dtype=np.uint8)[values.offset * width :]
    return data[: len(values) * width].reshape(len(values), width)
