"""The HTTP service on a free port of loopback, in a thread of this process, and its folder for requests."""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tans_core.http.server import Serving
from tans_core.http.settings import ApiOptions

ZIP = {"Content-Type": "application/zip"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}
JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Served:
    """A running service: a client for it, its port, and the folder that holds its folders for requests."""

    client: httpx.Client
    port: int
    temporary: Path

    def left(self) -> list[str]:
        """What the requests so far have left on disk."""
        held = [path for spool in self.temporary.glob("tans-api-*") for path in spool.iterdir()]
        return sorted(path.name for path in held if path.name != "in-use.lock")


@contextlib.contextmanager
def served(project: Path, temporary: Path, token: str | None = None, **options: Any) -> Iterator[Served]:
    """Run the service of a project.

    Args:
        project: its folder.
        temporary: the folder that it takes for the system's temporary one.
        token: as in the variable of the environment.
        options: of `ApiOptions`.
    """
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(temporary))
            patch.delenv("TANS_API_TOKEN", raising=False)
            if token is not None:
                patch.setenv("TANS_API_TOKEN", token)
            serving = Serving(project, ApiOptions.read(**{"port": 0, "per_minute": 100_000, **options}))
            stack.callback(_end, serving, thread := threading.Thread(target=serving.run))
            thread.start()
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            client = stack.enter_context(httpx.Client(base_url=serving.address, headers=headers, timeout=600))
            client.get("/health/live").raise_for_status()
        yield Served(client, client.base_url.port or 0, temporary)


def _end(serving: Serving, thread: threading.Thread) -> None:
    serving.stop()
    thread.join(60)
    assert not thread.is_alive()


def zipped(folder: Path) -> bytes:
    """A folder of class folders as a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return packed.getvalue()


def as_parquet(folder: Path) -> bytes:
    """The same images as a Parquet file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    packed = io.BytesIO()
    pq.write_table(pa.table({"image": cells, "label": [path.parent.name for path in paths]}), packed)
    return packed.getvalue()


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document that an answer must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    said: dict[str, Any] = answer.json()
    assert said["status"] == status
    assert said["title"] and said["detail"]
    return said
