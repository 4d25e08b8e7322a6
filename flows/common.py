"""Shared parts of the flows: readable errors, the runner they end with, the lock around `dvc repro`, artifacts."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy, State
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run
from prefect.states import Failed

from flows import notices
from tans_core import api
from tans_core.errors import GateError, StoreError, TansError
from tans_core.io import read_json
from tans_core.leash import die_with_parent
from tans_core.project import find_root

REPRO_LIMIT = "tans-dvc-repro"
REBUILDS = 5
# The process id of the runner, in the environment of its runs.
RUNNER = "TANS_RUNNER"


def project() -> Path:
    """Return the project's folder: the working directory of the run, or the nearest one above it."""
    return find_root()


def tie_to_runner() -> None:
    """Let this run end with its runner, if it is one of `tans serve`: nobody could report or cancel it any more."""
    if runner := os.environ.get(RUNNER):
        die_with_parent(int(runner))


def failed(error: TansError) -> State[Any]:
    """Turn an error into a failed state; its message is logged without a stack trace.

    A run is tried again only after an error of no particular class, such as a stage that was killed.
    """
    text = f"{type(error).__name__}: {error}"
    get_run_logger().error(text)
    if isinstance(error, GateError):
        notices.gate_failed("\n".join([str(error), *(one for one in error.failures if one not in str(error))]))
    if type(error) is not TansError and flow_run.id:
        # Without this update the run is only tried once more, in vain.
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            client.update_flow_run(UUID(flow_run.id), empirical_policy=FlowRunPolicy(retries=0))
    return Failed(message=text)


@contextmanager
def one_repro_at_a_time() -> Iterator[None]:
    """Wait until no other flow runs `dvc repro`: DVC itself refuses the second one."""
    with get_client(sync_client=True) as client:
        # Prefect ignores a limit that does not exist.
        client.upsert_global_concurrency_limit_by_name(REPRO_LIMIT, 1)
    with concurrency(REPRO_LIMIT, occupy=1, strict=True):
        yield


def rebuild(root: Path, on_line: Callable[[str], None], stages: Sequence[str] = ()) -> None:
    """Run `dvc repro` until the embeddings contain every arrival, also those that came while it ran.

    DVC hashes a stage's dependencies after the stage ran. It would take a model that arrives in between for built, and
    never build it.

    Args:
        root: the project's folder.
        on_line: called with each line of DVC's output.
        stages: the stages to bring up to date; all by default.

    Raises:
        TansError: a stage failed. The class is that of its exit code.
    """
    for _ in range(REBUILDS):
        before = arrivals(root)
        try:
            api.build(*stages, root=root, on_line=on_line)
        except GateError:
            # The gate counts the arrivals, so it also fails if one came after the stage ran. Then try again.
            if arrivals(root) == before:
                raise
            continue
        if arrivals(root) == built_arrivals(root):
            return
        on_line("models were added or removed while `dvc repro` ran: embedding again")
        api.build("--force", "--single-item", "embed", root=root, on_line=on_line)
    raise StoreError(
        f"{root / 'data/arrivals'}: differs from the built embeddings even after {REBUILDS} runs of `dvc repro`. "
        "Run `tans build` by hand while no model is added or removed."
    )


def arrivals(root: Path) -> set[str]:
    """Return the ids of the models in data/arrivals."""
    return {read_json(path)["id"] for path in (root / "data/arrivals").glob("*/card.json")}


def built_arrivals(root: Path) -> set[str]:
    """Return the ids of the arrivals that the built embeddings contain."""
    from tans_core.embeddings.store import read_table

    cards = [json.loads(card) for card in read_table(root / "data/store", "models")["card"].to_pylist()]
    return {card["id"] for card in cards if card["weights"].startswith("arrivals/")}


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
