"""The sections of params.yaml that a release carries. Apart from `releases`, since a scan reads them without LanceDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tans_core.errors import ParamsError

SECTIONS = ("seed", "data", "networks", "embed", "transfer", "space", "retrieval", "finetune")


def read_params(root: Path) -> dict[str, Any]:
    """Read the sections of a project's params.yaml.

    Raises:
        ParamsError: it cannot be read, or lacks one of them.
    """
    path = root / "params.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name: raw[name] for name in SECTIONS}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ParamsError(
            f"{path}: cannot be read ({error!r}). Run from the project's folder, or pass --root."
        ) from error
