"""What kind of input a path is."""

from __future__ import annotations

from pathlib import Path

from tans_core.errors import DataError
from tans_core.tasks.inputs.base import Input
from tans_core.tasks.inputs.folder import list_folder


def open_input(path: Path, drop_empty_classes: bool = False) -> Input:
    """List what a path holds."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    return list_folder(path, drop_empty_classes)
