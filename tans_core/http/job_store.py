"""Jobs on disk: each is a folder `.resume/jobs/<id>` of the project.

It holds `job.json`, and until the job ends its images, `progress`, which its process writes, and `errors`, the output
of this process.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, Field

from tans_core.dataset import scan_folder
from tans_core.errors import TansError
from tans_core.http.problems import Problem
from tans_core.io import read_json, write_text
from tans_core.reporting import FINAL, Progress
from tans_core.service import CHECKPOINTS

JOBS = ".resume/jobs"

_ID = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-[0-9a-f]{6}")


def id_of(moment: datetime) -> str:
    """Return a new job's id. Ids are in the order of time, within a second too."""
    return f"{moment:%Y-%m-%dT%H-%M-%S}-{moment.microsecond // 245:03x}{secrets.token_hex(2)[:3]}"


class Job(BaseModel):
    """A fine-tuning, from its request to its end."""

    id: str = Field(description="Its name; names sort by time.")
    state: Literal["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
    created: str = Field(description="When it was asked for, in UTC.")
    waiting_for: str | None = Field(default=None, description="Why it is PENDING.")
    model: str | None = Field(default=None, description="The network that it starts from, once that is known.")
    epoch: int = Field(default=0, description="How many epochs are finished.")
    epochs: int | None = Field(default=None, description="How many there will be, once that is known.")
    curve: list[dict[str, float]] = Field(
        default=[], description="A point a validation: step, epoch, train_loss, val_accuracy (0..1), seconds."
    )
    run: str | None = Field(default=None, description="The run that holds the result, once the job is COMPLETED.")
    accuracy: float | None = Field(default=None, description="On the test split, 0..1, with the weights kept.")
    problem: Problem | None = Field(default=None, description="Why it FAILED.")


class Record(Job):
    """What `job.json` holds.

    Attributes:
        options: that were asked for.
        upload: the file with the images, below the job's folder.
        starts: how often work at it began and did not end by itself.
        cancelled: whether it shall end.
        checkpoints: that earlier processes may have left.
    """

    options: dict[str, Any]
    upload: str
    starts: int = 0
    cancelled: bool = False
    checkpoints: list[str] = []


class JobStore:
    """The jobs of a project.

    Attributes:
        folder: of all of them.
        turn: held from the reading of a record to its writing.

    Args:
        project: its folder.
        describe: makes the problem document of an error.
    """

    def __init__(self, project: Path, describe: Callable[[TansError], Problem]) -> None:
        self.project, self.folder, self._describe = project, project / JOBS, describe
        self.turn = threading.RLock()

    def names(self) -> list[str]:
        """Return all names, the newest first."""
        return sorted((path.parent.name for path in self.folder.glob("*/job.json")), reverse=True)

    def progress(self, name: str) -> Progress:
        return Progress.read(self.folder / name / "progress")

    def read(self, name: str) -> Record:
        """Return what was written last."""
        return Record.model_validate_json((self.folder / name / "job.json").read_bytes())

    def write(self, name: str, **values: Any) -> Record:
        """Change some fields of what was written last, and return it. A job that has ended stays as it is."""
        with self.turn:
            record = self.read(name)
            if record.state not in FINAL:
                record = record.model_copy(update=values)
                write_text(record.model_dump_json(), self.folder / name / "job.json")
            return record

    def get(self, name: str) -> Record | None:
        """Return a job as it is now, with what its process has reported; None if there is none of this name."""
        if not _ID.fullmatch(name):
            return None
        progress = self.progress(name)  # before the record: it is removed after the end
        try:
            record = self.read(name)
        except (FileNotFoundError, ValueError):
            return None
        if record.state in FINAL:
            return record
        seen = record.model_copy(update=_seen(progress))
        if record.state == "RUNNING" and progress.waiting_for is not None:
            return seen.model_copy(update={"state": "PENDING", "waiting_for": progress.waiting_for})
        return seen

    def begin(self, name: str) -> Record:
        """Write down that work at a job begins."""
        with self.turn:
            return self.write(name, state="RUNNING", starts=self.read(name).starts + 1)

    def fail(self, name: str, error: TansError) -> None:
        self.finish(name, "FAILED", problem=self._describe(error))

    def finish(self, name: str, state: str, **values: Any) -> None:
        """Write down the end of a job, unless it has one, and remove all that is not needed any more."""
        with self.turn:
            record, progress = self.read(name), self.progress(name)
            if record.state not in FINAL:
                if state != "COMPLETED":
                    self.remove_runs(progress)
                    for one in {*progress.checkpoints, *record.checkpoints}:
                        _remove_checkpoint(self.project / CHECKPOINTS / Path(one).name)
                record = self.write(name, **_seen(progress), state=state, waiting_for=None, **values)
            self.tidy(record)

    def tidy(self, record: Record) -> None:
        """Remove what a job that has ended does not need any more."""
        folder = self.folder / record.id
        shutil.rmtree(scan_folder(self.project, folder / record.upload), ignore_errors=True)
        shutil.rmtree((folder / record.upload).parent, ignore_errors=True)
        for name in ("progress", "errors"):
            (folder / name).unlink(missing_ok=True)

    def result(self, progress: Progress) -> dict[str, Any] | None:
        """Return the last values of a job; None unless its run is whole. The weights appear with all the rest."""
        folder = self.project / "runs" / (progress.run or ".")
        if not (folder / "weights.safetensors").is_file():
            return None
        try:
            return {"run": progress.run, "accuracy": read_json(folder / "predict.json")["test_accuracy"]}
        except (FileNotFoundError, ValueError, LookupError):
            return None

    def remove_runs(self, progress: Progress) -> None:
        """Remove the runs that a process has begun, and did not remove."""
        for run in progress.folders:
            shutil.rmtree(self.project / "runs" / Path(run).name, ignore_errors=True)


def _seen(progress: Progress) -> dict[str, Any]:
    epoch = round(progress.curve[-1]["epoch"]) if progress.curve else 0
    return {"model": progress.model, "epoch": epoch, "epochs": progress.epochs, "curve": progress.curve}


def _remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint with its estimate, unless the same fine-tuning runs in another process, which uses it."""
    files = [one for suffix in (".ckpt", ".json") if (one := path.with_suffix(suffix)).is_file()]
    if files:
        lock = path.with_suffix(".lock")
        with contextlib.suppress(Timeout), FileLock(lock, timeout=0):
            for one in (*files, lock):
                one.unlink(missing_ok=True)
