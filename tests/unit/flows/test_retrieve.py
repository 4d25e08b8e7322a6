"""Flow `retrieve` on images that the gate refuses: the run fails with the reason and the report's path."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from flows.retrieve import retrieve
from tests.factories.hostile import REFUSED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A Prefect server for these tests, without analytics."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.parametrize("name", ["labels that contradict", "class of unreadable files"])
def test_a_refused_data_set_fails_with_the_reason_and_a_report(
    name: str, server: None, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = REFUSED[name]
    assert row.error is not None
    photos = row.folder(tmp_path / "photos")
    monkeypatch.chdir(project)

    state = retrieve(str(photos), return_state=True)
    assert state.is_failed()
    with get_client(sync_client=True) as client:
        (there,) = [one for one in client.read_flow_runs() if one.id == state.state_details.flow_run_id]
    message, kept = state.message, [str(there.state_type), str(there.state and there.state.message)]
    assert message is not None and message.startswith(f"{row.error.__name__}: ") and row.words in message
    # The server shows the same message.
    assert "FAILED" in kept[0] and kept[1] == message
    page = Path(message.rpartition("Details: ")[2])
    assert page.name == "scan.html" and row.words in page.read_text(encoding="utf-8").replace("&#39;", "'")
    failures = json.loads((page.parent / "scan.json").read_text(encoding="utf-8"))["gate"]["failures"]
    assert any(row.words in failure for failure in failures)
