"""A served project that is killed, paused, cancelled and listened to; the tests run in the order of this file."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.service_kills import Killed, commands, is_a
from flows.notices import QUARANTINED
from tans_core.runtime import clock
from tests.factories.processes import wait_until_gone
from tests.factories.service import under_dvc, wait

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def killed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """A copy of the small project, served, with paused schedules."""
    made = Killed(under_dvc(project, tmp_path_factory.mktemp("killed") / "project"), longest_s=6.0)
    try:
        yield made
    finally:
        made.service.stop()


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A listener on loopback: its URL, and what it was sent."""
    bodies: list[dict[str, Any]] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", bodies
        server.shutdown()


def test_run_that_is_cancelled_in_mid_fine_tuning_ends_within_seconds(killed: Killed) -> None:
    service = killed.service
    runs = [service.begin("finetune/local", dataset="patches", epochs=100_000) for _ in range(2)]
    for run in runs:
        service.until(run, {"RUNNING"})
    time.sleep(5)  # in the training, not on the way to it
    deaf, *others = [pid for pid, command in commands(killed.root).items() if is_a("run", command)]
    assert len(others) == 1
    os.kill(deaf, signal.SIGSTOP)  # it cannot end itself when it is asked to
    seconds = clock()
    subprocess.run([sys.executable, "-c", "import prefect.flows"], check=True)
    limit_s = max(10.0, 5 * seconds())  # a busy machine has longer
    for run in runs:
        service.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    assert wait_until_gone(others[0], limit_s)
    # The deaf one is killed five seconds later. A run that ends itself says first that it crashed.
    for run in runs:
        service.until(run, {"CANCELLED"}, 3 * limit_s)
    assert wait_until_gone(deaf, limit_s)


@pytest.mark.parametrize("kind", ["run", "server", "service"])
def test_kill_loses_nothing_and_heals(killed: Killed, kind: str) -> None:
    killed.round(kind)
    killed.check()


def test_run_that_lost_its_process_says_why(killed: Killed) -> None:
    states = [killed.service.state(run) for run in killed.runs]
    messages = [state["message"] for state in states if state["type"] == "CRASHED"]
    assert messages and all("process" in message.lower() for message in messages)
    assert any("run it again" in message or "SIGKILL" in message for message in messages)


def test_schedule_that_was_paused_is_paused_after_the_restart(killed: Killed) -> None:
    schedules = [one for found in killed.service.ask("deployments/filter", {}) for one in found["schedules"]]
    assert schedules
    assert not any(one["active"] for one in schedules)


def test_next_runs_finish_the_work_and_notices_reach_a_webhook(
    killed: Killed, received: tuple[str, list[dict[str, Any]]]
) -> None:
    url, bodies = received
    environment = {**os.environ, "PREFECT_API_URL": f"http://127.0.0.1:{killed.service.port}/api"}
    command = [sys.executable, "-m", "flows.notices", "--webhook", url]
    subprocess.run(command, cwd=killed.root, env=environment, check=True, timeout=300)
    (killed.root / "inbox/stray.txt").write_text("no network")
    time.sleep(2.1)
    killed.finish()
    assert wait(lambda: QUARANTINED in {one["event"] for one in bodies}, 120)
    (notice,) = [one for one in bodies if one["event"] == QUARANTINED]
    assert notice["payload"]["entry"] == "stray.txt"
    assert "not a folder" in notice["text"]
    assert float(killed.service.artifact("retrain-progress")) == 100.0
