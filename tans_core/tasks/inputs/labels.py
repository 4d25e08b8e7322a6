"""Labels that name more than one class: a task has one class an image, so such a table is refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tans_core.errors import DataError

_BETWEEN = re.compile(r"\s*[|;,]\s*")
# Also within names: one class may be "sea lion" beside "sea" and "lion", but not two.
_WEAK = re.compile(r"\s*[/+&]\s*|\s+")
# Class names rarely contain these: with them, it is enough that parts occur in several lists.
_STRONG = "|;"


def check_one_label(path: Path, rows: Mapping[str, int]) -> None:
    """Check that labels are not lists of other labels, such as "cat|dog" beside "cat" and "dog".

    Args:
        path: the table, for messages.
        rows: number of rows by label.

    Raises:
        DataError: some are.
    """
    parts = {label: [part.strip(" '\"") for part in _BETWEEN.split(label.strip("[](){}"))] for label in rows}
    lists = {label: names for label, names in parts.items() if len(names) > 1}
    alone = {names[0] for names in parts.values() if len(names) == 1}
    times = Counter(name for names in lists.values() for name in set(names))
    again = alone | {name for name, number in times.items() if number > 1}
    several = [
        label
        for label, names in lists.items()
        if all(name in (again if any(mark in label for mark in _STRONG) else alone) for name in names)
    ]
    weak = [label for label in rows if len(names := _WEAK.split(label)) > 1 and alone.issuperset(names)]
    several += weak if len(weak) > 1 else []
    if several:
        raise many_labels(path, sum(rows[label] for label in several), sum(rows.values()), several[0])


def many_labels(path: Path, number: int, rows: int, example: str) -> DataError:
    """Return the error of a table with rows of several classes."""
    return DataError(
        f"{path}: {number:,} of {rows:,} rows have several labels, such as {example!r}. A task has one class an image: "
        "several (multi-label) are not supported.\n"
        "  Keep only rows of one label, or choose one label for each row."
    )
