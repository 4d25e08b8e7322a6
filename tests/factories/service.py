"""A small project under DVC, served by a real `tans serve`, and the questions that tests put to its server."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

BUILT = """
stages:
  tasks:
    foreach: ${tasks.meta_train}
    do: {cmd: "true # ${key}"}
  meta-test:
    foreach: ${tasks.meta_test}
    do: {cmd: "true # ${key}"}
  base: {cmd: "true"}
  zoo:
    foreach: ${tasks.meta_train}
    do: {cmd: "true # ${key}"}
"""
"""The head of a dvc.yaml in which everything up to the zoo is built already."""
EMBED_AND_INDEX = """\
  embed:
    cmd: python -m tans_core.leash python -m tans_core.stages.embed
    deps: [data/base, data/zoo, data/arrivals, data/tasks]
    params: [embed]
    outs:
      - data/store/models.lance
      - data/store/models.digest
      - data/store/anchors.safetensors
      - data/store/task_images.safetensors
      - data/store/task_features.lance
      - data/store/task_features.digest
  index:
    cmd: python -m tans_core.leash python -m tans_core.stages.index
    deps: [data/space, data/store/models.digest]
    outs: [data/store/index.lance, data/store/index.digest]
"""
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Service:
    """A served project: its folder, the process that `tans serve` becomes, and the server's port."""

    root: Path
    process: subprocess.Popen[str]
    port: int

    @classmethod
    def start(cls, root: Path) -> Service:
        """Serve on a free port, like a background job of a non-interactive shell."""
        with (root / "served.err").open("w") as errors:
            process = serve(root, stderr=errors)
        first = re.compile(rf"^serving {re.escape(str(root))} at http://127\.0\.0\.1:(\d+)", re.MULTILINE)
        while not (found := first.search((root / "served.err").read_text())):
            assert process.poll() is None, (root / "served.err").read_text()
            time.sleep(0.1)
        return cls(root, process, int(found[1]))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(timeout=180)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, patience_s: float = 60.0) -> Any:
        """Send a request. A server that is busy (503) is asked again."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, f"/api/{path}", json.dumps(body or {}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status == 503 and patience_s > 0:
            time.sleep(1)
            return self.call(method, path, body, patience_s - 1)
        assert answer.status in {200, 201, 204}, content
        return json.loads(content) if content else None

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        return self.call("POST", path, body)

    def run(self, deployment: str, *parameters: str, watch: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a deployment as a user does from another shell."""
        options = [part for parameter in parameters for part in ("-p", parameter)]
        command = [sys.executable, "-m", "prefect", "deployment", "run", deployment, *options]
        command += ["--watch"] if watch else []
        environment = {**os.environ, "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api", "COLUMNS": "500"}
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=600, check=False
        )

    def begin(self, deployment: str, **parameters: Any) -> str:
        """Create a run of a deployment, and return its id."""
        found = self.call("GET", f"deployments/name/{deployment}")
        run = self.ask(f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def state(self, run: str) -> dict[str, Any]:
        """Return a run's state: type, name, message."""
        return dict(self.call("GET", f"flow_runs/{run}")["state"])

    def until(self, run: str, states: set[str], limit_s: float = 500) -> dict[str, Any]:
        """Wait until a run is in one of some states, and return it. The server may be down meanwhile."""
        state: dict[str, Any] = {}

        def there() -> bool:
            nonlocal state
            state = self.state(run)
            return state["type"] in states

        assert wait(there, limit_s), f"{run} is not in {states}: {state}"
        return state

    def artifact(self, key: str) -> str:
        """Return what the latest artifact of a key holds."""
        found = self.ask("artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
        assert found, f"no artifact {key}"
        return str(found[0]["data"])

    def runs_of(self, flow: str) -> list[dict[str, Any]]:
        found = self.ask("flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"})
        return [one for one in found if one["state_type"] != "SCHEDULED"]

    def wait_for(self, flow: str, states: set[str], limit_s: float = 500) -> dict[str, Any]:
        """Wait until a run of a flow is in one of some states."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for one in self.runs_of(flow):
                if one["state_type"] in states:
                    return one
            time.sleep(0.3)
        raise AssertionError(f"no run of {flow} is in {states}: {self.runs_of(flow)}")


def serve(root: Path, port: int = 0, stderr: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start `tans serve`, with SIGINT ignored, as its parent ignores it."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.serve", "--port", str(port), "--root", root],
            stderr=stderr,
            stdout=(root / "served.log").open("a"),
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, handler)


def under_dvc(project: Path, root: Path) -> Path:
    """Copy the small project, and put the copy under git and DVC."""
    shutil.copytree(project, root)
    (root / "dvc.yaml").write_text(BUILT + EMBED_AND_INDEX)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True)
    return root


def wait(ready: Callable[[], bool], limit_s: float) -> bool:
    """Wait until something holds; return whether it does. A server that is down does not hold."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if ready():
                return True
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.2)
    return False
