"""A real Prefect server drives every flow on a small project; the tests run in the order of this file."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.service_kills import pause_schedules
from tans_core.newcomers import newcomer_folders
from tests.factories.hostile import REFUSED
from tests.factories.http_service import ZIP, served, zipped
from tests.factories.processes import alive, wait_until_gone
from tests.factories.service import Service, serve, under_dvc, wait

pytestmark = pytest.mark.slow

INDEXED = """
import sys
from pathlib import Path
from tans_core.embeddings.store import read_table
print(*read_table(Path(sys.argv[1]), "index")["id"].to_pylist())
"""


@pytest.fixture(scope="module")
def service(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A copy of the small project, under DVC, served on a free port."""
    started = Service.start(under_dvc(project, tmp_path_factory.mktemp("served") / "project"))
    try:
        pause_schedules(started)
        yield started
    finally:
        started.stop()


def descendants(pid: int) -> list[int]:
    """Return all descendants of a process, from /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    below, level = [], [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        below += level
    return below


def test_retrieve_leaves_a_table_and_json(service: Service) -> None:
    done = service.run("retrieve/local", "dataset=patches", "max_params_m=0.5", "top_k=3")
    assert done.returncode == 0, done.stdout + done.stderr
    text = service.artifact("retrieve-patches")
    assert "| rank | model |" in text
    result = json.loads(text.split("```json\n")[1].split("```")[0])
    assert [one["rank"] for one in result["candidates"]] == [1, 2, 3]
    assert all(one["params_m"] <= 0.5 for one in result["candidates"])
    assert result["candidates"] == json.loads((Path(result["folder"]) / "candidates.json").read_text())
    assert Path(result["folder"]).as_uri() in service.artifact("retrieve-patches-run")


def test_failure_reaches_the_watching_shell_without_a_trace(service: Service) -> None:
    done = service.run("retrieve/local", "dataset=nothing")
    assert done.returncode == 1
    words = f"UnknownTaskError: 'nothing': neither a path (there is no {service.root}/nothing) nor one of the 5 tasks"
    assert words in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("name", ["labels that contradict", "class of unreadable files"])
def test_a_refused_data_set_fails_with_the_reason_and_a_report(name: str, service: Service, tmp_path: Path) -> None:
    row = REFUSED[name]
    assert row.error is not None
    run = service.begin("retrieve/local", dataset=str(row.folder(tmp_path / "photos")))
    message = service.until(run, {"FAILED", "CRASHED", "COMPLETED"})["message"]
    assert message.startswith(f"{row.error.__name__}: ") and row.words in message
    page = Path(message.rpartition("Details: ")[2])
    assert page.name == "scan.html" and row.words in page.read_text(encoding="utf-8").replace("&#39;", "'")
    failures = json.loads((page.parent / "scan.json").read_text(encoding="utf-8"))["gate"]["failures"]
    assert any(row.words in failure for failure in failures)


def test_finetune_leaves_a_report_and_a_newcomer(service: Service) -> None:
    # Long enough for the newcomer to be better than chance at home, where it is measured again.
    done = service.run("finetune/local", "dataset=patches", "epochs=30", "to_inbox=true")
    assert done.returncode == 0, done.stdout + done.stderr
    text = service.artifact("finetune-patches")
    assert "Test accuracy **" in text
    result = json.loads(text.split("```json\n")[1].split("```")[0])
    assert (Path(result["folder"]) / "weights.safetensors").is_file()
    (newcomer,) = (service.root / "inbox").glob("[!.]*")
    assert sorted(path.name for path in newcomer.iterdir()) == ["card.json", "weights.safetensors"]


def test_job_of_the_http_service_is_a_flow_run_that_outlives_it(
    service: Service, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{service.port}/api")
    before = sorted(service.root.glob("runs/*"))
    with served(service.root, tmp_path) as first:
        asked = first.client.post("/v1/finetune?epochs=100000&refine=0", content=zipped(photos), headers=ZIP).json()
        address = f"/v1/jobs/{asked['id']}"
        assert wait(lambda: first.client.get(address).json()["epoch"] > 2, 300), first.client.get(address).json()
    (run,) = [one for one in service.runs_of("finetune") if one["state_type"] == "RUNNING"]
    assert run["parameters"]["epochs"] == 100_000
    (tmp_path / "second").mkdir()
    with served(service.root, tmp_path / "second") as second:
        epoch = second.client.get(address).json()["epoch"]
        assert wait(lambda: second.client.get(address).json()["epoch"] > epoch, 300)
        assert second.client.delete(address).status_code == 202
        assert wait(lambda: second.client.get(address).json()["state"] == "CANCELLED", 300)
        assert wait(lambda: sorted(service.root.glob("runs/*")) == before, 60)
    assert service.until(run["id"], {"CANCELLED"}, 60)


def test_zoo_refresh_serves_the_good_and_keeps_the_broken_away(service: Service) -> None:
    inbox, params = service.root / "inbox", yaml.safe_load((service.root / "params.yaml").read_text())
    params["retrain"]["admissions"] = 1
    (service.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (good,) = inbox.glob("[!.]*")
    shutil.copytree(good, inbox / "broken")
    weights = inbox / "broken/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    time.sleep(2.1)
    done = service.run("zoo-refresh/local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(inbox.glob("[!.]*"))
    said = service.runs_of("zoo-refresh")[0]["state"]["message"]
    assert said.startswith("1 admitted, 1 quarantined; in production: ")
    reason = json.loads((service.root / "quarantine/broken/reason.json").read_text())
    assert "not readable as safetensors" in reason["reason"]
    (arrival,) = newcomer_folders(service.root / "data")
    command = [sys.executable, "-m", "tans_core.cli", "retrieve", "patches", "--json", "--top-k", "50"]
    found = subprocess.run([*command, "--root", service.root], capture_output=True, text=True, timeout=300, check=True)
    models = [one["model"] for one in json.loads(found.stdout)["candidates"]]
    assert len(models) == 17
    assert arrival.name in models
    assert arrival.name in service.artifact("zoo-refresh")


def test_admission_starts_a_retraining_that_builds_the_newcomer_in(service: Service) -> None:
    run = service.wait_for("retrain", {"COMPLETED", "FAILED", "CRASHED"})
    (arrival,) = (service.root / "data/arrivals").iterdir()
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["parameters"] == {"reason": "newcomers wait: 1 (retrain.admissions: 1)"}
    assert (service.root / "dvc.lock").is_file()
    built = subprocess.run(
        [sys.executable, "-c", INDEXED, service.root / "data/store"], capture_output=True, text=True, check=True
    )
    assert arrival.name in built.stdout.split()


def test_second_start_in_the_same_project_says_so(service: Service) -> None:
    second = serve(service.root)
    _, message = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"served already, at http://127.0.0.1:{service.port} by process {service.process.pid}" in message
    assert service.process.poll() is None


def test_ctrl_c_leaves_no_process_behind(service: Service) -> None:
    started = service.run("finetune/local", "dataset=patches", "epochs=100000", watch=False)
    assert started.returncode == 0, started.stdout + started.stderr
    service.wait_for("finetune", {"RUNNING"})
    below = descendants(service.process.pid)
    # The server, the runner, and the run.
    assert len(below) >= 3
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(timeout=180) == 0
    assert all(wait_until_gone(pid) for pid in below), [pid for pid in below if alive(pid)]
