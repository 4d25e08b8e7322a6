"""Shared parts of the flows: readable errors, the runner they end with, DVC, artifacts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy, State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows import notices
from tans_core.errors import GateError, TansError
from tans_core.index.history import production_id
from tans_core.leash import die_with_parent
from tans_core.project import find_root
from tans_core.runtime import run_programs

# The process id of the runner, in the environment of its runs.
RUNNER = "TANS_RUNNER"


def project() -> Path:
    """Return the project's folder: the working directory of the run, or the nearest one above it."""
    return find_root()


def tie_to_runner() -> None:
    """Let this run end with its runner, if it is one of `tans serve`: nobody could report or cancel it any more."""
    if runner := os.environ.get(RUNNER):
        die_with_parent(int(runner))


def dvc(root: Path, on_line: Callable[[str], None], *arguments: str, limit_s: float | None = None) -> int:
    """Run DVC, and return its exit code. `on_line` is called with each line of its output.

    Raises:
        TimeoutError: it took longer than `limit_s`, and was ended.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    return run_programs([command], root, on_line, limit_s=limit_s)[0]


def failed(error: TansError) -> State[Any]:
    """Turn an error into a failed state; its message is logged without a stack trace.

    A run is tried again only after an error of no particular class, such as a stage that was killed.
    """
    text = f"{type(error).__name__}: {error}"
    in_production = f"In production: {production_id(project() / 'serving') or 'no release'}."
    get_run_logger().error(f"{text}\n{in_production}")
    if isinstance(error, GateError):
        notices.gate_failed("\n".join([str(error), *(one for one in error.failures if one not in str(error))]))
    if type(error) is not TansError and flow_run.id:
        # Without this update the run is only tried once more, in vain.
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            client.update_flow_run(UUID(flow_run.id), empirical_policy=FlowRunPolicy(retries=0))
    if flow_run.id:
        key = artifact_key(str(flow_run.flow_name), "failed")
        with contextlib.suppress(Exception):  # without a server the log has it all
            create_markdown_artifact(f"# Failed\n\n{text}\n\n{in_production}\n", key=key, description="Why")
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
