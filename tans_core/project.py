"""A project's folder: how it is found, its tasks, its runs, and `dvc repro` in it."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tans_core.errors import (
    DataError,
    GateError,
    ParamsError,
    StoreError,
    TansError,
    WeightsError,
    did_you_mean,
)
from tans_core.io import read_json, writing
from tans_core.locks import inbox_lock, pipeline_lock
from tans_core.newcomers import newcomer_folder, take_in

if TYPE_CHECKING:
    from tans_core.params import TasksParams
    from tans_core.tasks.task import Task, TaskInfo

_ERROR = re.compile(r"[A-Za-z.]*Error: ")
_SAID = 10
"""Lines of a failed stage's message that the error of a build repeats."""
# DVC's message when a stage's command fails. DVC's own exit code is 255, whatever the stage's was.
_STAGE_FAILED = re.compile(r"failed to reproduce '(?P<stage>[^']+)'.*exited with (?P<code>-?\d+)")
# The tasks of the pipeline, and those of `tans tasks scan --save`.
SAVED_TASKS = "data/scanned"
_TASK_FOLDERS = ("data/tasks", SAVED_TASKS)
_ERROR_OF_EXIT_CODE: dict[int, type[TansError]] = {
    kind.exit_code: kind for kind in (ParamsError, GateError, DataError, StoreError, WeightsError)
}


def find_root(root: str | Path | None = None) -> Path:
    """Return the project's folder: `root`, or the nearest one that holds params.yaml, from here upwards.

    Without either it is the current folder.

    Raises:
        ParamsError: `root` is not a folder.
    """
    if root is not None:
        folder = Path(root).expanduser().resolve()
        if not folder.is_dir():
            raise ParamsError(f"{root}: no such folder. Pass the project's folder as --root.")
        return folder
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "params.yaml").is_file()), here)


def task_infos(root: Path) -> list[TaskInfo]:
    """Return the description of each task that was built or saved from a scan, ordered by name."""
    from tans_core.tasks.task import read_info

    folders = [path.parent for kind in _TASK_FOLDERS for path in (root / kind).glob("*/task.json")]
    return [read_info(folder) for folder in sorted(folders, key=lambda folder: folder.name)]


def find_task_folder(root: Path, name: str) -> Path | None:
    """Return the folder of a task that was built or saved, or None if there is no such task."""
    # Compared with the existing names, so that a name that contains a path matches nothing.
    for kind in _TASK_FOLDERS:
        for path in (root / kind).glob("*/task.json"):
            if path.parent.name == name:
                return path.parent
    return None


def new_run_folder(root: Path, kind: str) -> Path:
    """Make and return `runs/<UTC time>-<kind>-<6 hex digits>`. Names sort by time; two runs in one second differ."""
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    folder = root / "runs" / f"{moment}-{kind}-{secrets.token_hex(3)}"
    with writing(folder):
        folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def run_folder(root: Path, kind: str) -> Iterator[Path]:
    """Yield a `new_run_folder`, which is removed if the code within fails, so that no partial run is left."""
    folder = new_run_folder(root, kind)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def name_of(dataset: str | Path | Task) -> str:
    """Return the name or path that the user gave for a data set."""
    from tans_core.tasks.inputs.base import printable

    return printable(str(dataset)) if isinstance(dataset, str | Path) else dataset.info.name


def provenance(dataset: str | Path | Task, release: str) -> dict[str, Any]:
    """Return what a run records about its origin: time, release, data set, versions."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": name_of(dataset),
        "python": sys.version.split()[0],
        "release": release,
        "tans": metadata.version("tans"),
    }


def reproduce(
    root: Path, stages: Sequence[str] = (), on_line: Callable[[str], None] = print, jobs: int | None = None
) -> None:
    """Run `dvc repro` and pass its output on line by line.

    DVC runs one stage at a time. Tasks do not depend on each other, nor do their zoos. So several processes bring these
    up to date side by side first; then one `dvc repro` covers everything.

    It waits until no other process builds or publishes, and takes in the newcomers that were admitted until then.

    Args:
        root: the project's folder.
        stages: the stages to bring up to date. Empty means all; several jobs are used only then.
        on_line: called with each line.
        jobs: how many stages may run at a time; None takes the number of cores, at most eight.

    Raises:
        ParamsError: there is no dvc.yaml in `root`, or git is missing.
        TansError: a stage failed. The class is that of the stage's exit code (GateError for 3).
    """
    from tans_core.networks.registry import check_settings, write_versions
    from tans_core.params import load_params
    from tans_core.runtime import cores

    if not (root / "dvc.yaml").is_file():
        raise ParamsError(f"{root / 'dvc.yaml'}: no such file. Run from the project's folder, or pass --root.")
    if shutil.which("git") is None:
        raise ParamsError("git: not found on PATH. DVC needs it; install git.")
    config = root / ".dvc/config"
    without_git = config.is_file() and "no_scm = true" in config.read_text(encoding="utf-8", errors="replace").lower()
    if not without_git and not any((folder / ".git").exists() for folder in (root, *root.absolute().parents)):
        raise ParamsError(
            f"{root}: not in a git repository, which DVC needs. A zip download and a COPY into an image lack it. "
            "Run `git init` there or clone the project; or run `dvc config core.no_scm true` to work without git."
        )
    known_stages = _stage_names(root)
    for stage in (one.partition("@")[0] for one in stages if known_stages and not one.startswith("-")):
        if stage not in known_stages:
            names = ", ".join(sorted(known_stages))
            raise ParamsError(f"{stage!r}: no such stage{did_you_mean(stage, known_stages)}. There are: {names}.")
    with pipeline_lock(root, "`tans build`", on_line):
        take_in_newcomers(root, on_line)
        write_versions(_families_of_zoo(root), root / "data/families/zoo")
        write_versions(_families_of_arrivals(root), root / "data/families/arrivals")
        if not stages and (jobs or cores()) > 1:
            params = load_params(root)
            # Checked now, before the minutes that the tasks take.
            check_settings(params.networks, params.data.stored_size_px, params.finetune.families)
            _side_by_side(root, params.tasks, jobs or cores(), known_stages, on_line)
        _dvc_repro(root, [list(stages)], on_line)


def take_in_newcomers(root: Path, on_line: Callable[[str], None]) -> None:
    """Take in the newcomers that were admitted, and move those that were rolled back since to quarantine.

    The caller holds the pipeline's lock.
    """
    from tans_core.index.history import read_history

    if read_history(root / "serving").withdrawn_additions():
        from tans_core.index.withdrawn import rolled_back
        from tans_core.zoo.admission import quarantine

        # `tans zoo admit --again` puts a newcomer into data/ before it is live again.
        with inbox_lock(root, "`tans build`", on_line):
            for name, reason in rolled_back(read_history(root / "serving")).items():
                folder = newcomer_folder(root / "data", name)
                if folder is not None:
                    on_line(f"moved to quarantine: {reason}")
                    quarantine(folder, root / "quarantine", reason)
    if taken := take_in(root):
        on_line(f"newcomers taken in: {len(taken)} ({', '.join(taken[:5])}{', …' * (len(taken) > 5)})")


def _side_by_side(
    root: Path, tasks: TasksParams, jobs: int, known_stages: set[str], on_line: Callable[[str], None]
) -> None:
    """Bring the stages that do not need each other up to date, several at a time."""
    names = [f"tasks@{name}" for name in tasks.meta_train] + [f"meta-test@{name}" for name in tasks.meta_test]
    _dvc_repro(root, _deal(names, jobs), on_line)
    _dvc_repro(root, [["base"]], on_line)
    _dvc_repro(root, _deal([f"zoo@{name}" for name in tasks.meta_train], jobs), on_line)
    # Neither needs the other, and `embed` uses one core only.
    if {"gate-zoo", "embed", "transfer"} <= known_stages:
        _dvc_repro(root, [["--single-item", "gate-zoo"]], on_line)
        _dvc_repro(root, _deal(["embed", "transfer"], 2), on_line)


def _stage_names(root: Path) -> set[str]:
    from tans_core.yaml_file import read_yaml

    try:
        return set(read_yaml(root / "dvc.yaml")["stages"])
    except (ParamsError, KeyError, TypeError):
        return set()  # `dvc repro` reports the error


def _families_of_zoo(root: Path) -> set[str]:
    from tans_core.params import load_params

    try:
        return set(load_params(root).networks)
    except ParamsError:
        return set()  # the stages report it


def _families_of_arrivals(root: Path) -> set[str]:
    families = set()
    for path in (root / "data/arrivals").glob("*/card.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # the stages report a damaged card
            families.add(str(read_json(path)["family"]))
    return families


def _deal(stages: Sequence[str], jobs: int) -> list[list[str]]:
    """Divide stages among `dvc repro` processes. Their upstream stages are up to date, so no process checks them."""
    return [["--single-item", *stages[job::jobs]] for job in range(min(jobs, len(stages)))]


def _dvc_repro(root: Path, calls: Sequence[Sequence[str]], on_line: Callable[[str], None]) -> None:
    """Run `dvc repro` side by side, once per list of arguments. Raise the error class of the first failed stage."""
    from tans_core.runtime import run_programs

    failed: dict[str, int] = {}
    said: list[str] = []

    def watch(line: str) -> None:
        match = _STAGE_FAILED.search(line)
        if match:
            failed[match["stage"]] = int(match["code"])
        if _ERROR.match(line) or (said and line.startswith(" ")):
            said.append(line)
        on_line(line)

    # DVC's lock is free while a stage runs, so the processes take turns. Without the option, DVC waits 3 s, then fails.
    dvc = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro"]
    codes = run_programs([[*dvc, *arguments] for arguments in calls], root, watch)
    code = next((code for code in codes if code), 0)
    if code == 0:
        return
    if not failed:
        raise TansError(f"`dvc repro` ended with exit code {code}, and no stage failed. DVC's message is above.")
    stage, stage_code = next(iter(failed.items()))
    kind = _ERROR_OF_EXIT_CODE.get(stage_code, TansError)
    message = (
        f"stage {stage!r} failed with exit code {stage_code}{':' if said else '; its message is above.'}\n"
        + "".join(f"  {line}\n" for line in said[:_SAID])
        + "  Finished stages are kept. Fix the cause, then run `tans build` again."
    )
    if stage_code < 0:  # it could not say why
        message = (
            f"stage {stage!r} was killed ({signal.Signals(-stage_code).name}): by someone, or for lack of memory.\n"
            "  Finished stages and checkpoints are kept: run `tans build` again."
        )
    raise GateError(message, tuple(said)) if kind is GateError else kind(message)
