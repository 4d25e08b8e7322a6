"""What the flows share: errors that read well, the lock around `dvc repro`, artifacts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.states import Failed

from tans_core import api
from tans_core.errors import TansError
from tans_core.project import find_root

REPRO_LIMIT = "tans-dvc-repro"


def project() -> Path:
    """Return the project's folder: the working directory of the run, or the nearest one above it."""
    return find_root()


def failed(error: TansError) -> State[Any]:
    """Turn an error that a user can act on into a failed state: its message is logged, no stack trace."""
    text = f"{type(error).__name__}: {error}"
    get_run_logger().error(text)
    return Failed(message=text)


@contextmanager
def one_repro_at_a_time() -> Iterator[None]:
    """Wait until no other flow runs `dvc repro`: DVC itself refuses the second one."""
    with get_client(sync_client=True) as client:
        # A limit that does not exist would limit nothing.
        client.upsert_global_concurrency_limit_by_name(REPRO_LIMIT, 1)
    with concurrency(REPRO_LIMIT, occupy=1, strict=True):
        yield


def rebuild_and_publish(root: Path, stages: Sequence[str] = ()) -> str:
    """Run `dvc repro` until it has seen every arrival, publish, and return the release's id.

    Raises:
        TansError: a stage failed: of the class of its exit code.
    """
    log = get_run_logger()
    with one_repro_at_a_time():
        while True:
            seen = _arrivals(root)
            api.build(*stages, root=root, on_line=log.info)
            # A model that came meanwhile waits for nothing else to bring it in.
            if stages or _arrivals(root) == seen:
                break
        release = api.publish(root)
    log.info("published %s; it is in production", release)
    return release


def _arrivals(root: Path) -> set[str]:
    return {path.parent.name for path in (root / "data/arrivals").glob("*/card.json")}


def artifact_key(*parts: str) -> str:
    """Return a key as Prefect wants it: lower-case letters, digits, dashes."""
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
    """Return a value as a block of JSON for an artifact; what JSON lacks becomes text."""
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False, default=str)}\n```"


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    # Names come from folders and cards: they must not break out of their cell.
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")
