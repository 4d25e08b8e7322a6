"""The flow `retrain`, with a real DVC and a Prefect server, on a space that was sabotaged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.testing.utilities import prefect_test_harness

import tans_core as tans
from flows.retrain import retrain
from flows.zoo_refresh import zoo_refresh
from tans_core.index.listing import list_releases
from tans_core.publishing import read_decisions
from tests.factories.project import UNSEEN
from tests.factories.service import BUILT

pytestmark = pytest.mark.slow

DVC_YAML = f"""{BUILT}\
  space:
    cmd: python -m tans_core.stages.space
    deps: [data/store/models.digest]
    params: [space]
    outs: [data/space]
  index:
    cmd: python -m tans_core.stages.index
    deps: [data/space]
    outs: [data/store/index.lance, data/store/index.digest]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A Prefect server for these tests, without analytics."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def served(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judged") / "project"
    shutil.copytree(project, root)
    (root / "dvc.yaml").write_text(DVC_YAML)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True)
    return root


def change(root: Path, **settings: Any) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["space"] |= settings
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def payload_of(name: str, release: str) -> dict[str, Any]:
    """Return what the event of a release says. Events reach the server a little later."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        time.sleep(0.3)
        with get_client(sync_client=True) as client:
            answer = client.request("POST", "/events/filter", json={"filter": {"event": {"name": [name]}}})
        payloads: list[dict[str, Any]] = [event["payload"] for event in answer.json()["events"]]
        if found := [payload for payload in payloads if payload["release"] == release]:
            return found[0]
    raise AssertionError(f"no event {name} of {release}")


def artifact() -> str:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["retrain"])))
    return str(max(found, key=lambda one: one.created).data)


@pytest.mark.parametrize("settings", [{"steps": 1, "log_every": 1}, {"lr": 10.0}], ids=["one step", "lr of 10"])
def test_sabotaged_space_is_refused_and_the_live_release_answers_as_before(
    server: None, served: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(served)
    before = (served / "serving/production").read_text()
    answer = [(one.model, one.score) for one in tans.retrieve(UNSEEN, root=served)]
    lines = len(read_decisions(served))
    change(served, **settings)
    assert retrain(return_state=True).is_completed()
    assert (served / "serving/production").read_text() == before
    assert len(list_releases(served / "serving")) == 1
    assert [(one.model, one.score) for one in tans.retrieve(UNSEEN, root=served)] == answer
    entry = read_decisions(served)[-1]
    assert (entry["decision"], entry["champion"]) == ("refused", before.strip())
    text = artifact()
    assert entry["reason"] in text and "## Task by task" in text and entry["plot"] in text
    assert payload_of("tans.space.refused", entry["release"]) == {
        "release": entry["release"],
        "champion": before.strip(),
        "production": before.strip(),
        "reason": entry["reason"],
        "next": "tans publish",
    }
    # Asked again, it is not compared again.
    assert retrain(return_state=True).is_completed()
    assert len(read_decisions(served)) == lines + 1
    assert "Its content has not changed." in artifact()


def test_one_run_does_the_work_of_all_that_a_schedule_missed(
    server: None, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(served)
    deployment = str(zoo_refresh.to_deployment("missed", cron="*/5 * * * *").apply())
    now = datetime.now(UTC)

    def scheduled() -> list[datetime]:
        query = {
            "deployments": {"id": {"any_": [deployment]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        found = client.request("POST", "/flow_runs/filter", json=query).json()
        return [datetime.fromisoformat(one["expected_start_time"]) for one in found]

    with get_client(sync_client=True) as client:
        past = {"start_time": str(now - timedelta(hours=2)), "end_time": str(now), "min_runs": 20, "max_runs": 20}
        client.request("POST", f"/deployments/{deployment}/schedule", json=past)
        assert sum(moment < now for moment in scheduled()) >= 20
        monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", deployment)
        assert zoo_refresh(return_state=True).is_completed()
        assert not any(moment < now for moment in scheduled())
