"""Groups of images of one patient, plant or film. A group stays in one split: no subject is in train and test."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tans_core.errors import DataError, did_you_mean
from tans_core.tasks.inputs.base import Entry
from tans_core.text import count

_LEAST_GROUPS = 3
"""Groups of a class that can be divided into train, validation and test."""
FOLDER, NONE = "folder", "none"
"""Values of the option `group` that are no column: the folders below each class, and no groups."""

_WORDS = (
    *("patient", "subject", "group", "site", "film", "plant", "person", "participant"),
    *("individual", "donor", "animal", "specimen", "slide", "video"),
)
_NAME = re.compile(f"({'|'.join(_WORDS)})(id|no|nr|number|code|name)?")
# Names of columns that may hold groups; `advise` then checks their values.
_HINTS = (
    *("case", "session", "scene", "clip", "sequence", "series", "study", "lesion", "camera", "location", "station"),
    *("hospital", "scanner", "batch", "user", "writer", "speaker", "author", "mouse", "tree", "plot", "field"),
)
_LIKELY = re.compile(f"(?i:{'|'.join((*_WORDS, *_HINTS))})|([_ .-](?i:id|no|nr|number|code)|[a-z]I[dD])$")


def group_column(path: Path, names: Sequence[str], group: str | None) -> str | None:
    """Return the column of groups: the requested one, else one with a usual name; None if there is none.

    Raises:
        DataError: there is no column of the requested name.
    """
    if group == NONE:
        return None
    if group is None:
        return next((name for name in names if _NAME.fullmatch(_letters(name))), None)
    if group not in names:
        raise DataError(
            f"{path}: no column {group!r} to group by{did_you_mean(group, names)}. "
            f"Columns found: {', '.join(names[:20])}; want one of them, or {NONE!r}."
        )
    return group


def may_group(name: str) -> bool:
    """Return whether a column may hold groups, by its name."""
    return _LIKELY.search(name) is not None


def check_folder_group(root: Path, group: str | None) -> None:
    """Raise DataError unless `group` is possible for images in folders."""
    if group not in (None, NONE, FOLDER):
        wanted = f"{FOLDER!r}, for the folders below each class, or {NONE!r}"
        raise DataError(f"{root}: no column {group!r} to group by, since it is no table. Want {wanted}.")


def settled(entries: list[Entry], source: str, group: str | None, notes: list[str]) -> list[Entry]:
    """Return the entries with their groups, or without if these were not requested and a class has too few of them.

    Args:
        entries: with the groups that were found.
        source: the column, or `FOLDER`, whose groups are used only if requested.
        group: the option of the user.
        notes: a note on the groups is added to it.
    """
    pairs = {(entry.label, entry.group) for entry in entries if entry.group}
    if not pairs:
        return entries
    number = f"{len({name for _, name in pairs}):,} groups"
    if group is None:
        groups_of = Counter(label for label, _ in sorted(pairs))
        lone = [label for label, many in groups_of.items() if many < _LEAST_GROUPS]
        if source == FOLDER or lone:
            few = f"{count(groups_of[lone[0]], 'group')}, fewer than train, validation and test" if lone else ""
            why = f": class {lone[0]!r} has {few}" if lone else ""
            if source != FOLDER or (not lone and len(entries) >= 2 * len(pairs)):
                notes.append(_advice(source, number, why))
            return [entry._replace(group="") for entry in entries]
    notes.append(f"{number} by {_called(source)}, each kept in one split (`--group {NONE}` takes images one by one)")
    return entries


def advise(column: str, values: set[str], rows: int, notes: list[str]) -> None:
    """Add a note on an unused column if it may hold groups: its values repeat."""
    if 1 < len(values) <= rows // 2:
        notes.append(_advice(column, f"{len(values):,} values", ""))


def _advice(source: str, number: str, why: str) -> str:
    return (
        f"{_called(source)} ({number}) may say which images belong together, such as those of a patient; "
        f"not used{why}. `--group {source}` keeps each in one split, `--group {NONE}` silences this"
    )


def _called(source: str) -> str:
    return "the folders below each class" if source == FOLDER else f"column {source!r}"


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())
