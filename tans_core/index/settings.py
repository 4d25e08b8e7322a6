"""Reads sections of params.yaml as they are. Separate from `releases`, since a scan needs them without LanceDB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tans_core.errors import ParamsError, did_you_mean
from tans_core.yaml_file import read_yaml

SECTIONS = ("seed", "data", "networks", "embed", "transfer", "space", "retrieval", "finetune")
"""Sections stored with a release. Gates are not: the project's present ones are used."""


def read_params(root: Path, names: Sequence[str] = SECTIONS) -> dict[str, Any]:
    """Read some sections of a project's params.yaml; others are not checked.

    Raises:
        ParamsError: the file cannot be read, or a section is missing.
    """
    path = root / "params.yaml"
    raw = read_yaml(path)
    missing = [name for name in names if not isinstance(raw, dict) or name not in raw]
    if missing:
        sections = list(raw) if isinstance(raw, dict) else []
        named = ", ".join(f"{name!r}{did_you_mean(name, map(str, sections))}" for name in missing)
        raise ParamsError(f"{path}: no section {named}. Correct it (docs/params.md), or pass the project as --root.")
    return {name: raw[name] for name in names}
