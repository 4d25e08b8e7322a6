"""Shared parts of the flows: readable errors, artifacts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed

from tans_core.errors import TansError
from tans_core.project import find_root


def project() -> Path:
    """Return the project's folder: the working directory of the run, or the nearest one above it."""
    return find_root()


def failed(error: TansError) -> State[Any]:
    """Turn an error that a user can act on into a failed state; its message is logged without a stack trace."""
    text = f"{type(error).__name__}: {error}"
    get_run_logger().error(text)
    return Failed(message=text)


def artifact_key(*parts: str) -> str:
    """Return a key that Prefect accepts: lower-case letters, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:200]


def markdown_table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a markdown table.

    Args:
        columns: heading by key of the rows.
        rows: floats are shown with 4 digits.
    """
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "-|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row[key]) for key in columns) + " |" for row in rows]
    return "\n".join(lines)


def json_block(value: Any) -> str:
    """Return a value as a block of JSON for an artifact; values that JSON lacks become strings."""
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False, default=str)}\n```"


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
    # Names come from folders and cards; they must not end their table cell.
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")
