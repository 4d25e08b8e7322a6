"""Jobs on disk: what an earlier service, a full disk, a torn line or two requests at a time do to them."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

import tans_core as tans
from tans_core.errors import StoreError
from tans_core.http import job_store, jobs, problems
from tans_core.http.job_store import JOBS, JobStore, Record
from tans_core.http.jobs import Jobs
from tans_core.io import writing
from tans_core.reporting import FINAL, Report
from tans_core.service import CHECKPOINTS


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


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "COMPLETED"])
def test_job_that_failed_leaves_no_checkpoint_of_any_of_its_networks(tmp_path: Path, state: str) -> None:
    name = put(tmp_path, 1, checkpoints=["old.ckpt"])
    store, checkpoints = JobStore(tmp_path, lambda error: pytest.fail(str(error))), tmp_path / CHECKPOINTS
    report = Report(store.folder / name / "progress")
    for key in ("first", "second"):
        report(checkpoint=f"{key}.ckpt")
    report(run="run", model="second", epochs=3)
    checkpoints.mkdir(parents=True)
    for file in ("old.ckpt", "first.ckpt", "first.json", "second.json", "other.ckpt", "other.json"):
        (checkpoints / file).write_bytes(b"")
    store.finish(name, state)
    left = {path.name for path in checkpoints.iterdir()}
    assert (left == {"other.ckpt", "other.json"}) == (state != "COMPLETED")
    assert store.read(name).model == "second"
