"""The common form of the rows of any table, and the search on disk for the path in a row."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import pyarrow as pa

from tans_core.errors import DataError
from tans_core.tasks.inputs.base import LEADS_OUTSIDE
from tans_core.tasks.inputs.folder import OTHER_SUFFIXES

PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "file_path", "filepath", "image", "image_path", "img"),
    *("image_name", "image_id", "img_id", "id"),  # of Kaggle, often without a suffix
)
LABEL_COLUMNS = ("label", "class", "category", "target", "label_name", "class_name", "labels", "fine_label", "y")
SPLIT_COLUMNS = ("split", "subset", "fold", "set")
MAX_TABLE_BYTES = 2 * 2**30
MAX_ROWS = 20_000_000
NO_FILE = "no such file below the table's folder"
BROKEN = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises for broken files."""

Find = Callable[[str], tuple[Path, os.stat_result] | str]
"""From a path as written in a table, to the file, or the reason why it is not used."""


class TableRow(NamedTuple):
    """A row of a table; `file` is a path as written, `cell` is (file, row) if the row itself contains the image."""

    where: str
    file: str | None
    label: str | None
    split: str | None
    stamp: str
    cell: tuple[int, int] | None = None
    group: str = ""
    problem: str | None = None


def pick(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """Return the first of the wanted columns that exists."""
    columns = {name.strip().lower(): name for name in names}
    return next((columns[name] for name in wanted if name in columns), None)


def no_column(path: Path, columns: Sequence[str], no_image: bool, image_names: Sequence[str]) -> DataError:
    what, wanted = ("images", image_names) if no_image else ("labels", LABEL_COLUMNS)
    shown = ", ".join(columns[:20]) or "none"
    return DataError(
        f"{path}: no column of {what}. Columns found: {shown}; wanted: one of {', '.join(dict.fromkeys(wanted))}.\n"
        "  Rename the column; a CSV needs a first line with the names."
    )


def locate(home: Path, text: str, follow_links: bool = False) -> tuple[Path, os.stat_result] | str:
    """Return the file of a path in a table, or the reason why it is not used.

    Args:
        home: the folder that must contain it; a real path, without links.
        text: the path as written, with the separators of any system.
        follow_links: allow links below `home` to lead outside; a path with `..` that leads outside is refused.
    """
    plain = text.strip().replace("\\", "/")
    # Names may begin or end with blanks, or contain a backslash.
    if plain != text and os.path.lexists(home / text):
        plain = text
    if not plain:
        return "no path"
    if "://" in plain:
        return "an address, not a file: download it first"
    if PureWindowsPath(plain).drive and os.name != "nt":
        return "a path of another system: write it relative to the table"
    try:
        real = Path(os.path.realpath(home / plain))
        if not real.is_relative_to(home):
            # Remove `..` first: after a link it would start from the link's target.
            named = Path(os.path.normpath(home / plain))
            if not named.is_relative_to(home):
                return "outside the table's folder"
            if not follow_links:
                return LEADS_OUTSIDE
            real = Path(os.path.realpath(named))
        status = real.stat()
    except FileNotFoundError:
        return NO_FILE
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return (real, status) if stat.S_ISREG(status.st_mode) else "not a plain file"


class ByName:
    """Finds files as `find` does; if there is no such file, by name without a suffix, anywhere below the folder.

    Tables of Kaggle often write `0001` for `images/0001.jpg`.
    """

    def __init__(self, find: Find, home: Path) -> None:
        self._find, self._home = find, home
        self._named: dict[str, list[str]] | None = None
        self._times = 0
        self._example = ""

    def __call__(self, text: str) -> tuple[Path, os.stat_result] | str:
        result = self._find(text)
        if result != NO_FILE:
            return result
        if self._named is None:
            self._named = _by_stem(self._home)
        plain = posixpath.normpath(text.strip().replace("\\", "/"))
        names = [
            name
            for name in self._named.get(posixpath.basename(plain), ())
            if "/" not in plain or posixpath.splitext(name)[0] == plain
        ]
        if len(names) > 1:
            example = f"such as {names[0]} and {names[1]}"
            return f"no such file, but {len(names):,} of this name, {example}: write the whole path"
        if not names:
            return NO_FILE
        self._times += 1
        self._example = f"{plain!r} as {names[0]}"
        return self._find(names[0])

    def notes(self) -> list[str]:
        """Return a note on how many were found by name."""
        return [f"{self._times:,} paths without a suffix, found by name: {self._example}"] if self._times else []


def _by_stem(home: Path) -> dict[str, list[str]]:
    """Return the files below a folder by name without suffix; hidden files and notes beside images are left out."""
    named: dict[str, list[str]] = {}
    for folder, folders, files in os.walk(home):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(folder).relative_to(home)
        for name in sorted(files):
            if not name.startswith(".") and not name.lower().endswith(OTHER_SUFFIXES):
                named.setdefault(posixpath.splitext(name)[0], []).append((below / name).as_posix())
    return named


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
