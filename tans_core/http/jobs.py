"""Fine-tunings as jobs: kept in the project, each worked at by a process of its own, a few at a time.

A job is a folder `.resume/jobs/<id>`: `job.json`, and until its end the images and what its process says. One service
works at the jobs of a project. What it was working at when it ended, the next one continues.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc
from anyio import to_thread
from filelock import FileLock, Timeout
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tans_core.dataset import scan_folder
from tans_core.errors import StoreError, TansError
from tans_core.http.problems import Problem
from tans_core.http.work import CANCELLED, cancelling, command, error_in, how_it_ended, served
from tans_core.io import read_json, remove_whole, write_text, writing
from tans_core.options import FinetuneOptions
from tans_core.reporting import Progress
from tans_core.service import CHECKPOINTS

JOBS = ".resume/jobs"
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})

_ID = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-[0-9a-f]{6}")
_KEPT = 100
"""Jobs that have ended and are still listed."""
_STARTS = 3
"""How often a job is begun that ended with its service each time."""
_GRACE_S = 20.0
_COME_BACK_S = 60

logger = logging.getLogger(__name__)


class Job(BaseModel):
    """A fine-tuning, from its request to its end."""

    id: str = Field(description="Its name; names sort by time.")
    state: Literal["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
    created: str = Field(description="When it was asked for, in UTC.")
    waiting_for: str | None = Field(None, description="Why it is PENDING.")
    model: str | None = Field(None, description="The network that it starts from, once that is known.")
    epoch: int = Field(0, description="How many epochs are finished.")
    epochs: int | None = Field(None, description="How many there will be, once that is known.")
    curve: list[dict[str, float]] = Field(
        [], description="A point an epoch: step, epoch, train_loss, val_accuracy (0..1), seconds."
    )
    run: str | None = Field(None, description="The run that holds the result, once the job is COMPLETED.")
    accuracy: float | None = Field(None, description="On the test split, 0..1, with the weights that were kept.")
    problem: Problem | None = Field(None, description="Why it FAILED.")


class Record(Job):
    """What `job.json` holds.

    Attributes:
        options: that were asked for.
        upload: the file with the images, below the job's folder.
        starts: how often work at it began and did not end by itself.
        cancelled: whether it shall end.
    """

    options: dict[str, Any]
    upload: str
    starts: int = 0
    cancelled: bool = False


class Jobs:
    """The jobs of a project. `run` works at them; the other functions may be called meanwhile, from the event loop.

    Args:
        project: its folder.
        at_once: how many are worked at a time.
        waiting: how many more there may be.
        describe: makes the problem document of an error.
    """

    def __init__(self, project: Path, at_once: int, waiting: int, describe: Callable[[TansError], Problem]) -> None:
        self._project, self._folder = project, project / JOBS
        self._at_once, self._most, self._describe = at_once, at_once + waiting, describe
        self._lock = FileLock(self._folder / "in-use.lock", thread_local=False)
        self._turn = threading.Lock()
        self._queue: list[str] = []
        self._running: dict[str, anyio.abc.Process | None] = {}
        self._arriving = 0
        self._changed = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None

    def get(self, name: str) -> Record | None:
        """Return a job as it is now, or None if there is none of this name."""
        if not _ID.fullmatch(name):
            return None
        progress = Progress.read(self._folder / name / "progress")  # before the record: it is removed after the end
        try:
            record = self._read(name)
        except (FileNotFoundError, ValueError):
            return None
        if record.state in FINAL:
            return record
        seen = _seen(record, progress)
        if record.state == "PENDING":
            return seen.model_copy(update={"waiting_for": self._before(name)})
        if progress.waiting_for is not None:
            return seen.model_copy(update={"state": "PENDING", "waiting_for": progress.waiting_for})
        return seen

    def all(self) -> list[Record]:
        """Return all jobs, the newest first."""
        names = sorted((path.parent.name for path in self._folder.glob("*/job.json")), reverse=True)
        return [job for name in names if (job := self.get(name)) is not None]

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place for a job whose images arrive.

        Raises:
            HTTPException: 429, too many wait already.
        """
        if len(self._queue) + len(self._running) + self._arriving >= self._most:
            text = f"{self._most} fine-tunings run or wait already.\nSend it again later (Retry-After), or cancel one."
            raise HTTPException(429, text, {"Retry-After": str(_COME_BACK_S)})
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    @contextlib.contextmanager
    def room(self) -> Iterator[Path]:
        """Yield a hidden folder for the images of a job, which is removed unless `add` makes it one."""
        room = Path(tempfile.mkdtemp(prefix=".", dir=self._folder))
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)

    async def add(self, room: Path, upload: Path, options: FinetuneOptions) -> Record:
        """Make a folder with images a job, and begin it when it is its turn."""
        moment = datetime.now(UTC)
        record = Record(
            id=f"{moment.strftime('%Y-%m-%dT%H-%M-%S')}-{secrets.token_hex(3)}",
            state="PENDING",
            created=moment.isoformat(timespec="seconds"),
            options=options.model_dump(mode="json", exclude_unset=True),
            upload=upload.relative_to(room).as_posix(),
        )
        with writing(self._folder):
            write_text(record.model_dump_json(), room / "job.json")
            room.rename(self._folder / record.id)
        self._queue.append(record.id)
        self._changed.set()
        ended = [job.id for job in await to_thread.run_sync(self.all) if job.state in FINAL]
        for old in ended[_KEPT:]:
            await to_thread.run_sync(remove_whole, self._folder / old)
        return self.get(record.id) or record

    async def cancel(self, name: str) -> Record:
        """Let a job end. One that waits ends now, one that runs when its process has cleaned up.

        Raises:
            HTTPException: 409, it has ended.
        """
        record = self._read(name)
        if record.state in FINAL:
            raise HTTPException(409, f"The job {name} has ended already: {record.state}.")
        record = self._write(record, cancelled=True)
        if name in self._queue:
            self._queue.remove(name)
            self._finish(record, "CANCELLED")
        elif process := self._running.get(name):
            assert self._tasks is not None
            self._tasks.start_soon(_end, process, cancelling())
        return self.get(name) or record

    async def own(self) -> None:
        """Take the jobs of the project over, unless this service has them already.

        Raises:
            HTTPException: 503, another service has them.
            StoreError: the project cannot be written.
        """
        if not self._lock.is_locked:
            await to_thread.run_sync(self._own)
            self._changed.set()

    def _own(self) -> None:
        with self._turn:
            if self._lock.is_locked:
                return
            with writing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                try:
                    self._lock.acquire(timeout=0)
                except Timeout:
                    text = "Another service works at the jobs of this project.\nSend the request to that one."
                    raise HTTPException(503, text) from None
            for left in self._folder.glob(".*"):
                shutil.rmtree(left, ignore_errors=True)
            for job in reversed(self.all()):
                if job.state in FINAL:
                    self._tidy(job)
                else:
                    self._resume(self._read(job.id))

    async def run(self) -> None:
        """Work at jobs until cancelled; then what runs is stopped, for the next service."""
        if self._folder.is_dir():
            with contextlib.suppress(HTTPException, StoreError):  # requests are told
                await self.own()
        try:
            async with anyio.create_task_group() as self._tasks:
                while True:
                    while self._queue and len(self._running) < self._at_once:
                        name = self._queue.pop(0)
                        self._running[name] = None
                        self._tasks.start_soon(self._work_at, name)
                    self._changed = anyio.Event()
                    await self._changed.wait()
        finally:
            self._lock.release()

    async def _work_at(self, name: str) -> None:
        folder = self._folder / name
        record = self._read(name)
        record = self._write(record, state="RUNNING", starts=record.starts + 1)
        arguments = command(self._project, folder, record.upload, record.options)
        variables = {key: value for key, value in os.environ.items() if key != "TANS_API_TOKEN"}
        try:
            with (folder / "errors").open("wb") as errors:
                # From this thread, which lives as long as the service: on Linux the process ends with it.
                process = await anyio.open_process(
                    arguments,
                    stdin=None,
                    stdout=errors,
                    stderr=errors,
                    cwd=self._project,
                    env=variables,
                    start_new_session=True,
                )
            self._running[name] = process
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, 10)  # requests go first
            if self._read(name).cancelled:  # while it was started
                await _end(process, cancelling())
            code = await process.wait()
            _kill_group(process.pid)  # what outlived it
            await to_thread.run_sync(self._conclude, name, code)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._interrupt(name)
            raise
        except Exception as error:
            logger.exception("job %s", name)
            text = f"Its process could not be run ({type(error).__name__}). The log of the service has more."
            self._finish(self._read(name), "FAILED", problem=self._describe(TansError(text)))
        finally:
            del self._running[name]
            self._changed.set()

    def _conclude(self, name: str, code: int) -> None:
        """Write down how a job ended whose process has ended by itself."""
        folder, record = self._folder / name, self._read(name)
        progress = Progress.read(folder / "progress")
        used = self._project / "runs" / (progress.run or "") / "predict.json"
        if record.cancelled or (served() and code == CANCELLED):
            self._finish(record, "CANCELLED")
        elif code == 0 and progress.run and used.is_file():
            self._finish(record, "COMPLETED", run=progress.run, accuracy=read_json(used)["test_accuracy"])
        else:
            text = (folder / "errors").read_text(encoding="utf-8", errors="replace")
            error = error_in(text) if code > 0 else None
            if error is None:
                error = TansError(how_it_ended(code, len(progress.curve)))
                logger.error("job %s: %s\n%s", name, error, text[-4000:])
            self._finish(record, "FAILED", problem=self._describe(error))

    async def _interrupt(self, name: str) -> None:
        """Stop a job for the next service, which goes on from its checkpoint."""
        if (process := self._running[name]) is not None:
            await _end(process, signal.SIGTERM)
        record = self._read(name)
        if record.state in FINAL:
            return
        if record.cancelled and not served():
            self._finish(record, "CANCELLED")
            return
        where = "it goes on at the Prefect server" if served() else "it was stopped"
        logger.warning("job %s: %s; the next `tans api` of this project continues it.", name, where)
        self._write(record, state="PENDING", starts=record.starts - 1)

    def _resume(self, record: Record) -> None:
        progress = Progress.read(self._folder / record.id / "progress")
        if record.cancelled and progress.flow_run is None:
            self._finish(record, "CANCELLED")
        elif record.starts >= _STARTS:
            text = f"The service ended {record.starts} times while it worked at this job, so it is not begun again."
            self._finish(record, "FAILED", problem=self._describe(TansError(text)))
        else:
            if progress.flow_run is None:
                self._remove_runs(progress)
                (self._folder / record.id / "progress").unlink(missing_ok=True)
            self._write(record, state="PENDING")
            self._queue.append(record.id)

    def _finish(self, record: Record, state: str, **values: Any) -> None:
        """Write down the end of a job, and remove its images and all else that it does not need any more."""
        folder = self._folder / record.id
        progress = Progress.read(folder / "progress")
        if state != "COMPLETED":
            self._remove_runs(progress)
            if progress.checkpoint:
                (self._project / CHECKPOINTS / Path(progress.checkpoint).name).unlink(missing_ok=True)
        self._tidy(self._write(_seen(record, progress), state=state, waiting_for=None, **values))

    def _tidy(self, record: Record) -> None:
        folder = self._folder / record.id
        shutil.rmtree(scan_folder(self._project, folder / record.upload), ignore_errors=True)
        shutil.rmtree((folder / record.upload).parent, ignore_errors=True)
        for name in ("progress", "errors"):
            (folder / name).unlink(missing_ok=True)

    def _remove_runs(self, progress: Progress) -> None:
        for run in progress.folders:
            shutil.rmtree(self._project / "runs" / Path(run).name, ignore_errors=True)

    def _before(self, name: str) -> str:
        if name not in self._queue:
            return "the service that works at the jobs of this project" if name not in self._running else "its process"
        ahead = [*self._running, *self._queue[: self._queue.index(name)]]
        return "its turn" if not ahead else f"job {ahead[0]}" if len(ahead) == 1 else f"{len(ahead)} jobs before it"

    def _read(self, name: str) -> Record:
        return Record.model_validate_json((self._folder / name / "job.json").read_bytes())

    def _write(self, record: Record, **values: Any) -> Record:
        record = record.model_copy(update=values)
        write_text(record.model_dump_json(), self._folder / record.id / "job.json")
        return record


def _seen(record: Record, progress: Progress) -> Record:
    epoch = round(progress.curve[-1]["epoch"]) if progress.curve else 0
    seen = {"model": progress.model, "epoch": epoch, "epochs": progress.epochs, "curve": progress.curve}
    return record.model_copy(update=seen)


async def _end(process: anyio.abc.Process, number: int) -> None:
    """Ask a process to end, and kill it with all that it started if it takes long."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
        with anyio.move_on_after(_GRACE_S):
            await process.wait()
    _kill_group(process.pid)
    await process.wait()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
