"""Works at fine-tunings: each in a process of its own, a few at a time.

One service works at the jobs of a project. What it was working at when it ended, the next one continues.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from subprocess import DEVNULL

import anyio
import anyio.abc
from anyio import to_thread
from filelock import FileLock, Timeout
from starlette.exceptions import HTTPException

from tans_core.errors import StoreError, TansError
from tans_core.http.job_store import JobStore, Record, id_of
from tans_core.http.problems import Problem
from tans_core.http.work import (
    CANCELLED,
    cancel_command,
    command,
    end,
    environment,
    error_in,
    how_it_ended,
    kill_group,
    served,
)
from tans_core.io import remove_whole, write_text, writing
from tans_core.options import FinetuneOptions
from tans_core.reporting import FINAL

_KEPT = 100
"""Jobs that have ended and are still listed."""
_STARTS = 3
"""How often a job is begun that ended with its service each time."""
_FLOW_GRACE_S = 300.0
_COME_BACK_S = 60
_LOGGED = 4000
_AGAIN_S = 10.0
"""How often a service asks whether the one that works at the jobs has ended, and tries to write what it could not."""
_PRIORITY = 10
"""Of a process that works: requests go first."""

logger = logging.getLogger(__name__)


class Jobs:
    """The jobs of a project. `run` works at them; the other functions may be called meanwhile, from the event loop.

    Args:
        project: its folder.
        at_once: how many are worked at a time.
        waiting: how many more there may be.
        describe: makes the problem document of an error.
    """

    def __init__(self, project: Path, at_once: int, waiting: int, describe: Callable[[TansError], Problem]) -> None:
        self._project, self._store = project, JobStore(project, describe)
        self._at_once, self._most = at_once, at_once + waiting
        self._lock = FileLock(self._store.folder / "in-use.lock", thread_local=False)
        self._owned = False
        self._queue: list[str] = []
        self._running: dict[str, anyio.abc.Process | None] = {}
        self._arriving = 0
        self._changed = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None

    def get(self, name: str) -> Record | None:
        """Return a job as it is now, or None if there is none of this name."""
        record = self._store.get(name)
        if record is not None and record.state == "PENDING" and record.waiting_for is None:
            return record.model_copy(update={"waiting_for": self._before(name)})
        return record

    def all(self) -> list[Record]:
        """Return all jobs, the newest first."""
        return [job for name in self._store.names() if (job := self.get(name)) is not None]

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """Keep a place for a job, and yield a hidden folder for its images, which is removed unless `add` takes it.

        Raises:
            HTTPException: 429, too many wait already.
            StoreError: the project cannot be written.
        """
        if len(self._queue) + len(self._running) + self._arriving >= self._most:
            text = f"{self._most} fine-tunings run or wait already.\nSend it again later (Retry-After), or cancel one."
            raise HTTPException(429, text, {"Retry-After": str(_COME_BACK_S)})
        with writing(self._store.folder):
            self._store.folder.mkdir(parents=True, exist_ok=True)
            room = Path(tempfile.mkdtemp(prefix=".", dir=self._store.folder))
        self._arriving += 1
        try:
            yield room
        finally:
            self._arriving -= 1
            shutil.rmtree(room, ignore_errors=True)

    async def add(self, room: Path, upload: Path, options: FinetuneOptions) -> Record:
        """Make a folder with images a job, and begin it when it is its turn."""
        moment = datetime.now(UTC)
        record = Record(
            id=id_of(moment),
            state="PENDING",
            created=moment.isoformat(timespec="seconds"),
            options=options.model_dump(mode="json", exclude_unset=True),
            upload=upload.relative_to(room).as_posix(),
        )
        folder = self._store.folder
        with writing(folder):
            write_text(record.model_dump_json(), room / "job.json")
            room.rename(folder / record.id)
        self._queue.append(record.id)
        self._changed.set()
        ended = [job.id for job in await to_thread.run_sync(self.all) if job.state in FINAL]
        for old in ended[_KEPT:]:
            with contextlib.suppress(OSError):  # the next request tries it again
                await to_thread.run_sync(remove_whole, folder / old)
        return self.get(record.id) or record

    async def cancel(self, name: str) -> Record:
        """Let a job end. One that waits ends now, one that runs when its process has cleaned up.

        Raises:
            HTTPException: 409, it has ended.
        """
        record = await to_thread.run_sync(partial(self._store.write, name, cancelled=True))
        if record.state in FINAL:
            raise HTTPException(409, f"The job {name} has ended already: {record.state}.")
        if process := self._running.get(name):
            assert self._tasks is not None
            self._tasks.start_soon(_cancel, process)
        elif name not in self._running and self._store.progress(name).flow_run is None:  # else its watcher cancels it
            self._queue = [one for one in self._queue if one != name]
            await to_thread.run_sync(self._store.finish, name, "CANCELLED")
        return self.get(name) or record

    async def own(self) -> None:
        """Take the jobs of the project over, unless this service has them already.

        Raises:
            HTTPException: 503, another service has them.
            StoreError: the project cannot be written.
        """
        if not self._owned:
            await to_thread.run_sync(self._own)
            self._changed.set()

    def _own(self) -> None:
        folder = self._store.folder
        with self._store.turn, writing(folder):
            if self._owned:  # by a request that this one waited for
                return
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                text = "Another service works at the jobs of this project.\nSend the request to that one."
                raise HTTPException(503, text) from None
            try:
                for left in folder.glob(".*"):
                    shutil.rmtree(left, ignore_errors=True)
                queue = [name for name in reversed(self._store.names()) if self._resume(name)]
            except BaseException:
                self._lock.release()
                raise
            self._queue, self._owned = queue, True

    async def run(self) -> None:
        """Work at jobs until cancelled; then what runs is stopped, for the next service."""
        try:
            async with anyio.create_task_group() as self._tasks:
                while True:
                    try:
                        if self._store.folder.is_dir():  # nothing is written to a project that has no jobs
                            await self.own()
                    except (HTTPException, StoreError):  # requests are told
                        pass
                    except Exception:
                        logger.exception("the jobs of the project cannot be taken over")
                    while self._queue and len(self._running) < self._at_once:
                        name = self._queue.pop(0)
                        self._running[name] = None
                        self._tasks.start_soon(self._work_at, name)
                    self._changed = anyio.Event()
                    with anyio.move_on_after(None if self._owned else _AGAIN_S):
                        await self._changed.wait()
        finally:
            self._owned = False
            self._lock.release()

    async def _work_at(self, name: str) -> None:
        try:
            await self._bring_to_end(name)
        except Exception:  # it ends neither the work at other jobs nor the service
            logger.exception("job %s: the next `tans api` of this project continues it", name)
        finally:
            del self._running[name]
            self._changed.set()

    async def _bring_to_end(self, name: str) -> None:
        try:
            process = await self._start(name)
            self._running[name] = process
            if self._store.read(name).cancelled:  # while it was started
                await _cancel(process)
            code = await process.wait()
            kill_group(process.pid)  # what outlived it
            if code not in (0, CANCELLED):
                await self._cancel_flow_run(name)
            await self._write_end(name, partial(self._conclude, name, code))
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._interrupt(name)
            raise
        except Exception as error:
            logger.exception("job %s", name)
            if (started := self._running[name]) is not None:
                await end(started)
            text = f"Its process could not be run ({type(error).__name__}). The log of the service has more."
            failure = error if isinstance(error, TansError) else TansError(text)
            await self._write_end(name, partial(self._store.fail, name, failure))

    async def _write_end(self, name: str, write: Callable[[], None]) -> None:
        """Write down how a job ended, as soon as the disk takes it."""
        while True:
            try:
                await to_thread.run_sync(write)
                return
            except Exception:
                logger.exception("job %s: its end cannot be written", name)
                if self._store.get(name) is None:  # its folder was removed
                    return
                await anyio.sleep(_AGAIN_S)

    async def _cancel_flow_run(self, name: str) -> None:
        """Cancel what the Prefect server still does for a job whose watcher has failed."""
        if self._store.progress(name).flow_run is not None:
            with anyio.move_on_after(_FLOW_GRACE_S), contextlib.suppress(OSError):
                asked = cancel_command(self._store.folder / name)
                await anyio.run_process(asked, check=False, cwd=self._project, env=environment())

    async def _start(self, name: str) -> anyio.abc.Process:
        folder = self._store.folder / name
        record = await to_thread.run_sync(self._store.begin, name)
        with (folder / "errors").open("wb") as errors:
            # From this thread, which lives as long as the service: on Linux the process ends with it.
            process = await anyio.open_process(
                command(self._project, folder, record.upload, record.options),
                stdin=DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd=self._project,
                env=environment(),
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _PRIORITY)
        return process

    def _conclude(self, name: str, code: int) -> None:
        """Write down how a job ended whose process has ended by itself."""
        with self._store.turn:
            record, progress = self._store.read(name), self._store.progress(name)
            if served() and record.cancelled and code not in (0, CANCELLED):
                self._store.fail(name, TansError("The Prefect server did not say that the flow run has ended."))
            elif record.cancelled or (served() and code == CANCELLED):
                self._store.finish(name, "CANCELLED")
            elif code == 0 and (result := self._store.result(progress)):
                self._store.finish(name, "COMPLETED", **result)
            else:
                errors = self._store.folder / name / "errors"
                text = errors.read_text(encoding="utf-8", errors="replace") if errors.is_file() else ""
                error = error_in(text) if code > 0 else None
                if error is None:
                    error = TansError(how_it_ended(code, len(progress.curve)))
                    logger.error("job %s: %s\n%s", name, error, text[-_LOGGED:])
                self._store.fail(name, error)

    async def _interrupt(self, name: str) -> None:
        """Stop a job for the next service, which continues it."""
        if (process := self._running[name]) is not None:
            await end(process)
        with self._store.turn:
            record = self._store.read(name)
            if record.state in FINAL:
                return
            if record.cancelled and not served():
                self._store.finish(name, "CANCELLED")
                return
            where = "it goes on at the Prefect server" if served() else "it was stopped"
            logger.warning("job %s: %s; the next `tans api` of this project continues it.", name, where)
            self._store.write(name, state="PENDING", starts=max(0, record.starts - 1))

    def _resume(self, name: str) -> bool:
        """Put a job of an earlier service in order, and return whether it is to be worked at."""
        try:
            record, progress = self._store.read(name), self._store.progress(name)
        except ValueError:  # of another version
            return False
        if record.state in FINAL:
            self._store.tidy(record)
            return False
        if progress.flow_run is not None:  # starts of a watcher do not count
            waits = None if served() else "a `tans api` with PREFECT_API_URL: the Prefect server works at it"
            self._store.write(name, state="PENDING", waiting_for=waits)
            return served()
        if record.cancelled:
            self._store.finish(name, "CANCELLED")
        elif result := self._store.result(progress):
            self._store.finish(name, "COMPLETED", **result)
        elif record.starts >= _STARTS:
            text = f"The service ended {record.starts} times while it worked at this job, so it is not begun again."
            self._store.fail(name, TansError(text))
        else:
            self._store.remove_runs(progress)
            (self._store.folder / name / "progress").unlink(missing_ok=True)
            self._store.write(name, state="PENDING", checkpoints=[*record.checkpoints, *progress.checkpoints])
            return True
        return False

    def _before(self, name: str) -> str:
        """Return what a job waits for."""
        if name in self._running:
            return "its process"
        if name not in self._queue:
            return "the service that works at the jobs of this project"
        ahead = [*self._running, *self._queue[: self._queue.index(name)]]
        return "its turn" if not ahead else f"job {ahead[0]}" if len(ahead) == 1 else f"{len(ahead)} jobs before it"


async def _cancel(process: anyio.abc.Process) -> None:
    if served():  # it reads `job.json`, and ends with its flow run
        with anyio.move_on_after(_FLOW_GRACE_S):
            await process.wait()
    await end(process)
