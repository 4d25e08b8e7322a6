"""Fine-tunings over HTTP, by real processes: their states, their results, and what is left of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import tans_core as tans
from tans_core.http.work import command
from tans_core.reporting import FINAL
from tests.factories.archives import zip_bomb
from tests.factories.http_service import ZIP, Served, problem, served, zipped
from tests.factories.images import encoded


@pytest.fixture(scope="module")
def root(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of its own: one service works at the jobs of a project."""
    return Path(
        shutil.copytree(
            project, tmp_path_factory.mktemp("jobs") / "project", ignore=shutil.ignore_patterns("runs", ".resume")
        )
    )


@pytest.fixture
def running(root: Path, tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "temporary").mkdir()
    with served(root, tmp_path / "temporary", max_mb=8, waiting_jobs=1) as one:
        yield one


def ask(running: Served, body: bytes, status: int = 202, **options: Any) -> dict[str, Any]:
    answer = running.client.post("/v1/finetune", params=options, content=body, headers=ZIP)
    assert answer.status_code == status, answer.text
    if status == 202:
        assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return dict(answer.json())


def until(running: Served, job: str, there: Callable[[dict[str, Any]], bool], limit_s: float = 200) -> dict[str, Any]:
    deadline = time.monotonic() + limit_s
    while not there(now := running.client.get(f"/v1/jobs/{job}").json()):
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    return dict(now)


def ended(running: Served, job: str) -> dict[str, Any]:
    return until(running, job, lambda now: now["state"] in FINAL)


def kept(root: Path) -> set[str]:
    """The files of all jobs, once what is not needed any more is removed."""
    return {path.name for path in (root / ".resume/jobs").glob("*/**/*")}


def read_events(running: Served, job: str) -> list[str]:
    """The lines of a job's events, until the service ends them."""
    with httpx.stream("GET", f"{running.client.base_url}/v1/jobs/{job}/events", timeout=600) as stream:
        return list(stream.iter_lines())


def test_job_becomes_a_run_that_predicts(root: Path, running: Served, photos: Path) -> None:
    client, body = running.client, zipped(photos)
    model = tans.list_models(root)[0].id
    first, second = (ask(running, body, model=model, epochs=2, seed=seed) for seed in (1, 2))
    assert problem(client.post("/v1/finetune", content=body, headers=ZIP), 429)["advice"]
    assert second["state"] == "PENDING" and first["id"] in second["waiting_for"]
    assert client.delete(f"/v1/jobs/{second['id']}").status_code == 202
    assert ended(running, second["id"])["state"] == "CANCELLED"
    problem(client.delete(f"/v1/jobs/{second['id']}"), 409)

    lines = read_events(running, first["id"])
    assert {line for line in lines if line.startswith("event:")} == {"event: job"}
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data:")]
    done = told[-1]
    assert (done["state"], done["model"], done["epoch"], done["epochs"]) == ("COMPLETED", model, 2, 2), done
    assert [point["epoch"] for point in done["curve"]] == [1, 2]
    assert {one["state"] for one in told} >= {"RUNNING", "COMPLETED"}
    assert [one["id"] for one in client.get("/v1/jobs").json()["jobs"]] == [second["id"], first["id"]]
    assert kept(root) == {"job.json"}
    assert [path.name for path in (root / "runs").iterdir()] == [done["run"]]

    run = client.get(f"/v1/runs/{done['run']}").json()
    assert (run["model"], run["accuracy"], run["class_names"]) == (model, done["accuracy"], ["ash", "elm", "oak"])
    for one in run["files"]:
        if one["bytes"] is not None:
            content = client.get(f"/v1/runs/{done['run']}/files/{one['name']}").content
            assert content == (root / "runs" / done["run"] / one["name"]).read_bytes()
    assert {"weights.safetensors", "card.json", "report.html", "model.onnx"} <= {one["name"] for one in run["files"]}
    for name in ("params.json", "samples", "%2e%2e%2fcard.json", "export%2Fmodel.onnx"):
        problem(client.get(f"/v1/runs/{done['run']}/files/{name}"), 404)

    expected = tans.predict(root / "runs" / done["run"], photos)
    found = client.post("/v1/predict", params={"run": done["run"]}, content=body, headers=ZIP).json()
    assert (found["images"], found["unreadable"], found["accuracy"]) == (37, 1, expected.accuracy)
    for one, wanted in zip(found["predictions"], expected.to_dicts(), strict=True):
        assert one == {"image": wanted.pop("name"), **wanted}
    picture = (photos / "oak/0.png").read_bytes()
    headers = {"Content-Type": "image/png"}
    (alone,) = client.post("/v1/predict", params={"run": done["run"]}, content=picture, headers=headers).json()[
        "predictions"
    ]
    of_zip = next(one for one in found["predictions"] if one["image"] == "oak/0.png")
    assert alone["probabilities"] == pytest.approx(of_zip["probabilities"], abs=1e-6)
    refuse_hostile(running, done["run"], photos.parent)


def refuse_hostile(running: Served, run: str, folder: Path) -> None:
    """Send what is no image, or too much of one, to a run."""
    import numpy as np

    bomb = encoded(np.zeros((12_000, 12_000), dtype=np.uint8), "PNG")
    for content, kind in (
        (bomb, "image/png"),
        (b"no image", "image/jpeg"),
        (zip_bomb(folder).read_bytes(), "application/zip"),
        (b"", "image/png"),
    ):
        headers = {"Content-Type": kind}
        said = problem(running.client.post("/v1/predict", params={"run": run}, content=content, headers=headers), 422)
        assert str(running.temporary) not in json.dumps(said)
    problem(running.client.post("/v1/predict", params={"run": run}, content=b"x", headers={"Content-Type": "a/b"}), 415)
    assert running.left() == []


def test_job_that_fails_says_why_and_leaves_nothing(root: Path, running: Served, tmp_path: Path) -> None:
    runs = set((root / "runs").glob("*"))
    job = ask(running, zip_bomb(tmp_path).read_bytes())["id"]
    said = ended(running, job)
    assert (said["state"], said["problem"]["type"]) == ("FAILED", "urn:tans:error:ArchiveError")
    assert said["problem"]["status"] == 422
    assert said["problem"]["detail"].startswith("upload.zip: ")
    # One whose process is killed, as by a system that is short of memory.
    killed = ask(running, zip_bomb(tmp_path).read_bytes())["id"]
    process = until_process(killed)
    process.send_signal(signal.SIGKILL)
    said = ended(running, killed)
    assert (said["state"], "SIGKILL" in said["problem"]["detail"]) == ("FAILED", True)
    end = time.monotonic() + 10
    while kept(root) != {"job.json"} and time.monotonic() < end:
        time.sleep(0.05)
    assert kept(root) == {"job.json"}
    assert set((root / "runs").glob("*")) == runs
    assert not list((root / ".resume/scan").glob("*"))


def until_process(job: str) -> psutil.Process:
    """The process that works at a job."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process in psutil.Process(os.getpid()).children():
            if any(job in part for part in process.cmdline()):
                return process
        time.sleep(0.02)
    raise AssertionError(f"no process works at {job}")


def test_job_outlives_its_service_and_a_cancelled_one_leaves_nothing(
    root: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = set((root / "runs").glob("*"))
    model = tans.list_models(root)[0].id
    with served(root, tmp_path) as first:
        job = ask(first, zipped(photos), model=model, epochs=100_000)["id"]
        events = threading.Thread(target=read_events, args=(first, job))
        events.start()
        until(first, job, lambda now: now["epoch"] > 2)
        process = until_process(job)
    events.join(30)
    assert not process.is_running()
    assert f"job {job}: it was stopped; the next `tans api` of this project continues it" in caplog.text
    assert set((root / "runs").glob("*")) == runs
    (tmp_path / "second").mkdir()
    with served(root, tmp_path / "second") as second:
        again = until_process(job)  # that it goes on from its checkpoint is a test of the command
        until(second, job, lambda now: now["state"] == "RUNNING")
        # Another service of the project shows it, and leaves it alone.
        with served(root, tmp_path / "second") as other:
            assert other.client.get(f"/v1/jobs/{job}").json()["state"] == "RUNNING"
            problem(other.client.delete(f"/v1/jobs/{job}"), 503)
        assert second.client.delete(f"/v1/jobs/{job}").status_code == 202
        assert ended(second, job)["state"] == "CANCELLED"
        assert not again.is_running()
        assert until(second, job, lambda _: kept(root) == {"job.json"})
    assert set((root / "runs").glob("*")) == runs
    assert not list((root / ".resume/finetune").glob("*"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/..%2f..%2fjob.json"),
        ("GET", "/v1/jobs/in-use.lock"),
        ("GET", "/v1/jobs/%2e%2e/events"),
        ("DELETE", "/v1/jobs/2026-11-30T10-14-48-9c0d1e"),
        ("GET", "/v1/runs/..%2fruns"),
        ("GET", "/v1/runs/%2e%2e"),
        ("GET", "/v1/runs/nothing/files/card.json"),
        ("POST", "/v1/predict?run=../serving"),
        ("POST", "/v1/predict?run=%00"),
    ],
)
def test_name_of_no_job_or_run_is_a_problem(service: Served, method: str, path: str) -> None:
    problem(service.client.request(method, path), 404)


def test_wrong_request_is_refused_before_its_images_are_kept(service: Served, project: Path, photos: Path) -> None:
    body = zipped(photos)
    for options, kind in (
        ({"model": "nobody"}, "ParamsError"),
        ({"rank": 999}, "ParamsError"),
        ({"epochs": "many"}, "ParamsError"),
        ({"model": "nobody", "max_macs_m": 1}, "ParamsError"),
        ({"max_params_m": 1e-6}, "NoModelFitsError"),
    ):
        answer = service.client.post("/v1/finetune", params=options, content=body, headers=ZIP)
        assert problem(answer, 422)["type"] == f"urn:tans:error:{kind}"
    problem(service.client.post("/v1/finetune", content=b"no zip", headers=ZIP), 415)
    problem(service.client.post("/v1/finetune", content=b"PK\x03\x04" * 3_000_000, headers=ZIP), 413)

    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b"PK\x03\x04" * 2**14

    try:
        answer = service.client.post("/v1/finetune", content=endless(), headers=ZIP)
        assert answer.status_code == 413
    except httpx.TransportError:  # the connection was closed before the answer was read
        pass
    assert service.client.get("/v1/jobs").json() == {"jobs": []}
    assert [path.name for path in (project / ".resume/jobs").iterdir()] == ["in-use.lock"]


def test_program_of_a_job_gets_each_option_as_the_command_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    options = {"weigh_classes": True, "epochs": 3, "licences": ["MIT", "ISC"], "model": None}
    words = command(Path("project"), Path("job"), "a.zip", options)
    assert words[-3:] == ["--weigh-classes", "--epochs=3", "--licence=MIT,ISC"]
    assert command(Path("project"), Path("job"), "a.zip", {"weigh_classes": False})[-1] == "--no-weigh-classes"
