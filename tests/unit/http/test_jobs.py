"""Fine-tunings over HTTP, by real processes: their states, their results, and what is left of them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import psutil
import pytest

import tans_core as tans
from tans_core.errors import StoreError
from tans_core.http import job_store, jobs, problems
from tans_core.http.job_store import JOBS, JobStore, Record
from tans_core.http.jobs import Jobs
from tans_core.http.work import command
from tans_core.io import writing
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


def made(root: Path, at_once: int = 1, waiting: int = 9) -> Jobs:
    return Jobs(root, at_once, waiting, lambda error: problems.described(error, {}))


def put(root: Path, number: int, progress: str = "", **values: Any) -> str:
    """Write a job as an earlier service has left it, and return its name."""
    name = f"2026-11-30T10-14-48-{number:06x}"
    given = {"state": "RUNNING", "created": "2026-11-30", "options": {}, "upload": "body/upload.zip", **values}
    folder = root / JOBS / name
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(Record(id=name, **given).model_dump_json())
    (folder / "progress").write_text(progress)
    return name


async def settled(these: Jobs, names: list[str], limit_s: float = 20) -> list[str]:
    """Work at jobs until they have ended, and return their states."""
    with anyio.fail_after(limit_s):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(these.run)
            while True:
                records = [one for name in names if (one := these.get(name))]
                if all(one.state in FINAL for one in records):
                    tasks.cancel_scope.cancel()
                    return [one.state for one in records]
                await anyio.sleep(0.02)
    raise AssertionError


def test_errors_of_the_disk_end_neither_the_service_nor_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(jobs, "_AGAIN_S", 0.05)
    monkeypatch.setattr(jobs, "command", lambda _, job, *__: [sys.executable, "-c", programs[job.name]])
    full, removed, last = (put(tmp_path, number, state="PENDING") for number in (1, 2, 3))
    programs = {
        full: "import sys; sys.exit('DataError: bad')",
        removed: f"import shutil; shutil.rmtree({str(tmp_path / JOBS / removed)!r})",
        last: "import os; os.kill(os.getpid(), 9)",
    }
    write, failures = job_store.write_text, iter(range(2))

    def failing(text: str, path: Path) -> None:
        if '"FAILED"' in text and next(failures, None) is not None:
            with writing(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(text, path)

    monkeypatch.setattr(job_store, "write_text", failing)
    these = made(tmp_path)
    assert anyio.run(settled, these, [full, removed, last]) == ["FAILED", "FAILED"]
    assert caplog.text.count(f"job {full}: its end cannot be written") == 2
    assert f"job {removed}: its end cannot be written" in caplog.text
    said = [one.problem.detail for name in (full, last) if (one := these.get(name)) and one.problem]
    assert said[0] == "bad" and "SIGKILL" in said[1]


def test_no_place_is_lost_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    these = made(tmp_path, waiting=0)

    def full(**_: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", full)
        for _ in range(2):
            with pytest.raises(StoreError, match="No space left"), these.place():
                pass
    with these.place() as room:
        assert room.is_dir()


def test_job_that_was_done_when_its_service_ended_keeps_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    done, half = (
        put(tmp_path, at, f'{{"folder": "{at}"}}\n{{"run": "{at}", "model": "m"}}\n', starts=1) for at in (1, 2)
    )
    for at in ("1", "2"):
        (tmp_path / "runs" / at).mkdir(parents=True)
        (tmp_path / "runs" / at / "predict.json").write_text('{"test_accuracy": 0.5}')
    (tmp_path / "runs/1/weights.safetensors").touch()
    elsewhere = put(tmp_path, 3, '{"flow_run": "f"}\n', starts=9)
    these = made(tmp_path)
    anyio.run(these.own)
    first, second, third = (these.get(name) for name in (done, half, elsewhere))
    assert first and (first.state, first.run, first.accuracy, first.model) == ("COMPLETED", "1", 0.5, "m")
    assert second and (second.state, second.waiting_for) == ("PENDING", "its turn")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["1"]
    # The Prefect server goes on with this one: it is not trained here as well.
    assert third and third.state == "PENDING" and "PREFECT_API_URL" in str(third.waiting_for)
    assert anyio.run(these.cancel, elsewhere).state == "PENDING", "only the Prefect server can end it"
    assert anyio.run(these.cancel, half).state == "CANCELLED"


def test_takeover_is_whole_for_each_request_that_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    name, these, seen = put(tmp_path, 1), made(tmp_path), []
    resume, begun = JobStore.remove_runs, threading.Event()

    def slow(*arguments: Any) -> None:
        if not begun.is_set():
            begun.set()
            raise OSError("once")
        time.sleep(0.2)
        resume(*arguments)

    async def ask() -> None:
        await these.own()
        job = these.get(name)
        assert job is not None
        seen.append(job.waiting_for)

    async def twice() -> None:
        with pytest.raises(OSError, match="once"):
            await these.own()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)

    monkeypatch.setattr(JobStore, "remove_runs", slow)
    anyio.run(twice)
    assert seen == ["its turn", "its turn"]


def test_end_of_a_job_stays_its_end(tmp_path: Path) -> None:
    store = JobStore(tmp_path, lambda error: problems.described(error, {}))
    for number in range(20):
        name = put(tmp_path, number)
        cancel = threading.Thread(target=store.write, args=(name,), kwargs={"state": "RUNNING", "cancelled": True})
        cancel.start()
        store.finish(name, "COMPLETED", run="r")
        cancel.join()
        assert store.read(name).state == "COMPLETED"
        assert store.write(name, cancelled=True).state == "COMPLETED"


def test_torn_line_of_progress_is_left_out(tmp_path: Path) -> None:
    lines = '{"model": "m"}\n{"point": {"epo{"epochs": 3}\n7\n\xff\n{"point": {"epoch": 1.0}}\n{"poi'
    torn, other = put(tmp_path, 1, lines), put(tmp_path, 2)
    first, second = made(tmp_path).all()[::-1]
    assert (first.id, first.model, first.epoch) == (torn, "m", 1)
    assert second.id == other


def test_prune_removes_only_jobs_that_have_ended(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    names = {state: put(tmp_path, at, state=state) for at, state in enumerate(("PENDING", "RUNNING", *sorted(FINAL)))}
    for path in (tmp_path / ".resume").rglob("*"):
        os.utime(path, (0, 0))
    tans.prune(tmp_path, days=0)
    left = {path.name for path in (tmp_path / JOBS).iterdir()}
    assert left == {names["PENDING"], names["RUNNING"]}
