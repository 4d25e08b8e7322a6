"""The processes that do the long work of the service: `tans finetune`, a watcher of its flow, `tans export`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from tans_core import errors
from tans_core.errors import TansError
from tans_core.http.settings import TOKEN_VARIABLE
from tans_core.options import FinetuneOptions

CANCELLED = 130
"""The exit code of a program whose flow was cancelled by somebody else."""

_GRACE_S = 20.0
_PYTHON = (sys.executable, "-m", "tans_core.leash", sys.executable, "-m")
_DETAILS = re.compile(r"^ *Details: .*\n?", re.MULTILINE)
_ERROR = re.compile(r"^(?P<kind>[A-Z]\w+): ", re.MULTILINE)


def served() -> bool:
    """Return whether a Prefect server is set, which does the work."""
    return bool(os.environ.get("PREFECT_API_URL"))


def command(project: Path, job: Path, upload: str, options: Mapping[str, Any]) -> list[str]:
    """Return the program that works at a job. SIGTERM ends it; a flow goes on without it.

    Args:
        project: its folder.
        job: the job's folder; its file `progress` gets the reports.
        upload: the images, below that folder.
        options: of the fine-tuning, by name.
    """
    images, progress = str(job / upload), str(job / "progress")
    if served():
        return [*_PYTHON, "flows.watch", str(job), json.dumps({"dataset": images, "progress": progress, **options})]
    given = ["--progress", progress, "--json", "--root", str(project)]
    return [*_PYTHON, "tans_core.cli", "finetune", images, *given, *_flags(options)]


def cancel_command(job: Path) -> list[str]:
    """Return the program that cancels the flow run of a job, if the Prefect server still works at it."""
    return [*_PYTHON, "flows.watch", str(job)]


def environment() -> dict[str, str]:
    """Return the variables of such a program: those of this process, without the token of the service."""
    return {key: value for key, value in os.environ.items() if key != TOKEN_VARIABLE}


def export_command(project: Path, run: str) -> list[str]:
    """Return the program that exports a network to ONNX."""
    return [*_PYTHON, "tans_core.cli", "export", run, "--json", "--root", str(project)]


async def end(process: anyio.abc.Process) -> None:
    """Ask a process to end, and kill it with all that it started if it takes long."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        with anyio.move_on_after(_GRACE_S):
            await process.wait()
    kill_group(process.pid)
    await process.wait()


def kill_group(pid: int) -> None:
    """Kill what a process has started, and the process itself if it has not ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _flags(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        extra = FinetuneOptions.model_fields[name].json_schema_extra
        flag = extra.get("option") if isinstance(extra, dict) else None
        text = ",".join(value) if isinstance(value, list | tuple) else str(value)
        if isinstance(value, bool):
            yield f"--{'' if value else 'no-'}{name.replace('_', '-')}"
        elif value is not None:
            yield f"{flag or '--' + name.replace('_', '-')}={text}"


def error_in(text: str) -> TansError | None:
    """Return the error that a program printed last, `Class: message`; None if it printed none of ours.

    The path of a report is left out: what a program that failed has begun is removed.
    """
    found = None
    for match in _ERROR.finditer(text):
        kind = getattr(errors, match["kind"], None)
        if isinstance(kind, type) and issubclass(kind, TansError):
            found = kind(_DETAILS.sub("", text[match.end() :]).strip())
    return found


def how_it_ended(code: int, epochs: int) -> str:
    """Say how a program ended that gave no reason."""
    if code >= 0:
        return f"Its process ended with exit code {code} after {epochs} epochs. The log of the service has more."
    killed = code == -signal.SIGKILL
    name = signal.Signals(-code).name
    reason = " The machine may be short of memory." if killed else ""
    return (
        f"Its process was ended by {name} after {epochs} epochs.{reason}\nAsk for it again, or for a smaller network."
    )
