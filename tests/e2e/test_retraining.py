"""Retrainings on a real Prefect server: many arrivals make one, one run waits, and none disturbs another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from tans_core.embeddings.store import read_table
from tans_core.index.releases import open_production
from tans_core.locks import inbox_lock, pipeline_lock
from tans_core.newcomers import waiting
from tests.factories.newcomers import drop, tensors
from tests.factories.service import EMBED_AND_INDEX, FINAL, Service, under_dvc, wait

pytestmark = pytest.mark.slow

ARRIVALS = 12
LIMIT_S = 500.0


@pytest.fixture(scope="module")
def service(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = under_dvc(project, tmp_path_factory.mktemp("retrained") / "project")
    # One job needs no other stages.
    (root / "dvc.yaml").write_text(f"stages:\n{EMBED_AND_INDEX}")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["retrain"] = {"admissions": ARRIVALS, "days": 0, "drift": False}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    cores = os.sched_getaffinity(0)
    try:
        # A build then is one `dvc repro`.
        os.sched_setaffinity(0, {min(cores)})
        started = Service.start(root)
    finally:
        os.sched_setaffinity(0, cores)
    try:
        yield started
    finally:
        started.stop()


def hand_in(root: Path, numbers: range) -> None:
    for number in numbers:
        folder = drop(root / "inbox", f"newcomer-{number:02d}", val_accuracy=0.5 + number / 100)
        save_file(tensors(seed=number + 1), folder / "weights.safetensors")


def log_of(service: Service, run: str) -> str:
    lines = service.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
    return "\n".join(line["message"] for line in lines)


def logs_of(service: Service, flow: str) -> str:
    return "\n".join(log_of(service, run["id"]) for run in service.runs_of(flow))


def newcomers_in(store: Path) -> int:
    return sum(name.startswith("arrival-") for name in read_table(store, "index")["id"].to_pylist())


def refresh(service: Service) -> None:
    # Newcomers that were handed in this moment wait for the next run; one that waits already is joined.
    def is_admitted() -> bool:
        run = service.until(service.begin("zoo-refresh/local"), FINAL, LIMIT_S)
        assert run["type"] == "COMPLETED", run
        return not list((service.root / "inbox").glob("[!.]*"))

    assert wait(is_admitted, LIMIT_S)


def test_twelve_arrivals_make_one_retraining(service: Service) -> None:
    root = service.root
    hand_in(root, range(ARRIVALS))
    refresh(service)
    assert newcomers_in(open_production(root / "serving").store_dir) == ARRIVALS
    assert wait(lambda: bool(service.runs_of("retrain")), LIMIT_S)
    run = service.runs_of("retrain")[0]
    state = service.until(run["id"], FINAL, LIMIT_S)
    assert state["type"] == "COMPLETED", log_of(service, run["id"])
    assert run["parameters"] == {"reason": f"newcomers wait: {ARRIVALS} (retrain.admissions: {ARRIVALS})"}
    assert newcomers_in(root / "data/store") == ARRIVALS
    assert waiting(root) == {}
    refresh(service)
    assert len(service.runs_of("retrain")) == 1


def test_one_retraining_waits_another_joins_it_and_newcomers_go_live_meanwhile(service: Service) -> None:
    root = service.root
    with pipeline_lock(root, "a long build"):
        cancelled = service.begin("retrain/local")
        said = f"waiting for a long build (pid {os.getpid()}, since "
        assert wait(lambda: said in log_of(service, cancelled), LIMIT_S)
        service.ask(f"flow_runs/{cancelled}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        assert service.until(cancelled, FINAL, 180)["type"] == "CANCELLED"
        first, second = (service.begin("retrain/local") for _ in range(2))
        with inbox_lock(root, "a person"):
            # Not before: a run of the schedule would find it, and the others an empty inbox.
            hand_in(root, range(ARRIVALS, ARRIVALS + 1))
            refreshes = [service.begin("zoo-refresh/local") for _ in range(2)]
            # The one that waits may be the run of the schedule.
            for words in ("waiting for a person", "another run waits"):
                assert wait(lambda words=words: words in logs_of(service, "zoo-refresh"), LIMIT_S)
        assert {service.until(run, FINAL, LIMIT_S)["type"] for run in refreshes} == {"COMPLETED"}
        assert wait(lambda: newcomers_in(open_production(root / "serving").store_dir) == ARRIVALS + 1, LIMIT_S)
        assert wait(lambda: any("another run waits" in log_of(service, run) for run in (first, second)), LIMIT_S)
        assert newcomers_in(root / "data/store") == ARRIVALS
        assert len(waiting(root)) == 1
    assert {service.until(run, FINAL, LIMIT_S)["type"] for run in (first, second)} == {"COMPLETED"}
    logs = [log_of(service, run) for run in (first, second)]
    assert sorted("newcomers taken in: 1 (arrival-" in log for log in logs) == [False, True]
    assert sorted(said in log for log in logs) == [False, True]
    assert newcomers_in(root / "data/store") == ARRIVALS + 1
    assert not re.findall(r"Traceback|Lock\w*Error|\blocked\b|Unable to acquire lock|Timeout", "\n".join(logs))
    # The server's own database may be busy.
    served = "\n".join(path.read_text() for path in root.glob("served.*"))
    assert not re.findall(r"Traceback|Lock\w*Error|Unable to acquire lock", served)
