"""What real image folders hold, one row a kind: how to make it, and what has to become of it.

A row adds its files to `healthy` class folders, or makes the whole folder where it is `alone`. Names are the row's own, so that
`everything` can hold all rows that pass at once, and every check holds there too.
"""

from __future__ import annotations

from pathlib import Path

from tests.factories import hostile_layouts, hostile_pictures
from tests.factories.hostile_row import Found, HostileRow, healthy

__all__ = ["PASSING", "REFUSED", "ROWS", "Found", "HostileRow", "everything", "healthy"]

PASSING: dict[str, HostileRow] = hostile_pictures.PASSING | hostile_layouts.PASSING
REFUSED: dict[str, HostileRow] = hostile_pictures.REFUSED | hostile_layouts.REFUSED
ROWS: dict[str, HostileRow] = PASSING | REFUSED


def everything(root: Path) -> Path:
    """One folder with all rows at once that pass, and that share class folders."""
    root.mkdir(parents=True)
    healthy(root)
    for row in PASSING.values():
        if not row.alone:
            row.make(root)
    return root
