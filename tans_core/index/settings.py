"""Sections of params.yaml as they stand there. Apart from `releases`, since a scan reads them without LanceDB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tans_core.errors import ParamsError

SECTIONS = ("seed", "data", "networks", "embed", "transfer", "space", "retrieval", "finetune")
"""What a release carries. Gates are none of its: they are the project's, as they are now."""


def read_params(root: Path, names: Sequence[str] = SECTIONS) -> dict[str, Any]:
    """Read some sections of a project's params.yaml, without looking at the others.

    Raises:
        ParamsError: it cannot be read, or lacks one of them.
    """
    path = root / "params.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name: raw[name] for name in names}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ParamsError(
            f"{path}: cannot be read ({error!r}). Run from the project's folder, or pass --root."
        ) from error
