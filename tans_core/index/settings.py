"""Sections of params.yaml as they stand there. Apart from `releases`, since a scan reads them without LanceDB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tans_core.errors import ParamsError
from tans_core.yaml_file import read_yaml

SECTIONS = ("seed", "data", "networks", "embed", "transfer", "space", "retrieval", "finetune")
"""What a release carries. Gates are none of its: they are the project's, as they are now."""


def read_params(root: Path, names: Sequence[str] = SECTIONS) -> dict[str, Any]:
    """Read some sections of a project's params.yaml, without looking at the others.

    Raises:
        ParamsError: it cannot be read, or lacks one of them.
    """
    path = root / "params.yaml"
    raw = read_yaml(path)
    lacks = [name for name in names if not isinstance(raw, dict) or name not in raw]
    if lacks:
        raise ParamsError(f"{path}: lacks {', '.join(lacks)}. Run from the project's folder, or pass --root.")
    return {name: raw[name] for name in names}
