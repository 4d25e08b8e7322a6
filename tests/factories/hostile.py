"""Problems of real image folders, one row per kind: how to make it, and the expected result.

A row adds its files to `healthy` class folders, or makes the whole folder if it is `alone`. Each row has its own file
names, so that `everything` can contain all rows that pass at once, and every check holds there, too.
"""

from __future__ import annotations

from pathlib import Path

from tests.factories import hostile_labels, hostile_layouts, hostile_pictures, hostile_tables
from tests.factories.hostile_row import Found, HostileRow, healthy
from tests.factories.images import write_class_folders

__all__ = ["PASSING", "REFUSED", "ROWS", "Found", "HostileRow", "everything", "everything_in_splits", "healthy"]

_KINDS = (hostile_pictures, hostile_layouts, hostile_labels, hostile_tables)

PASSING: dict[str, HostileRow] = {name: row for kind in _KINDS for name, row in kind.PASSING.items()}
REFUSED: dict[str, HostileRow] = {name: row for kind in _KINDS for name, row in kind.REFUSED.items()}
ROWS: dict[str, HostileRow] = PASSING | REFUSED


def everything(root: Path) -> Path:
    """One folder with all rows at once that pass, and that share class folders."""
    root.mkdir(parents=True)
    healthy(root)
    for row in PASSING.values():
        if not row.alone:
            row.make(root)
    return root


def everything_in_splits(root: Path) -> Path:
    """The same as the train split of a data set. Its test lacks classes, has two images of one, and repeats train."""
    everything(root / "train")
    write_class_folders(root / "test", {"ash": 12, "elm": 12, "few": 2}, seed=90)
    write_class_folders(root / "train", {"few": 2}, seed=91)
    (root / "test/elm/repeated.png").write_bytes((root / "train/elm/0.png").read_bytes())
    return root
