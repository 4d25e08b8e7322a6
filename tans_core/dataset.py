"""A user's data set: a task of the project by name, or a path, which is scanned and checked by the gate."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from tans_core.errors import DataError, ParamsError, UnknownTaskError, did_you_mean, problems
from tans_core.index.settings import read_params
from tans_core.io import atomic_path, write_json
from tans_core.known import known_images, known_of, say_known
from tans_core.params import ImageParams, QueryGateParams, check_task_name
from tans_core.project import find_task_folder, run_folder, task_infos

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from tans_core.gates.query import QueryGate, QueryVerdict
    from tans_core.tasks.report import ScanReport
    from tans_core.tasks.task import Task, TaskInfo

_HELD_BYTES = 64 * 2**20
"""Decoded images of the service's requests that stay in memory: some 2,400 of 96 pixels."""


@dataclass(frozen=True)
class QueryLimits:
    """The size that a user's images are kept at, and the limits that they must meet.

    Attributes:
        stored_size_px: the largest side that images are kept at.
        min_images_per_class, max_bad_share: of `data` in params.yaml.
        thresholds: of `gates.query` in params.yaml.
    """

    stored_size_px: int
    min_images_per_class: int
    max_bad_share: float
    thresholds: QueryGateParams

    @classmethod
    def of(cls, root: Path, release: Mapping[str, Any] | None = None) -> QueryLimits:
        """Read a project's params.yaml as it is now; if there is none, use the params of a release.

        Args:
            root: the project's folder.
            release: the params of the release that is searched, which set `stored_size_px`; None if there is none.

        Raises:
            ParamsError: these settings are invalid, or there is neither.
        """
        path = root / "params.yaml"
        if not path.exists() and release is not None:
            data, gates = release["data"], {}
        else:
            params = read_params(root, ("data", "gates"))
            data, gates = params["data"], params["gates"]
        if not isinstance(data, Mapping) or not isinstance(gates or {}, Mapping):
            raise ParamsError(f"{path}: data and gates: want a mapping each. See docs/params.md.")
        within: tuple[str, ...] = ("data",)
        model: type[BaseModel] = ImageParams
        try:
            values = {**data, **({"stored_size_px": release["data"]["stored_size_px"]} if release else {})}
            images = ImageParams.model_validate({key: values[key] for key in ImageParams.model_fields if key in values})
            within, model = ("gates", "query"), QueryGateParams
            thresholds = QueryGateParams.model_validate((gates or {}).get("query") or {})
        except ValidationError as error:
            raise ParamsError(f"{path}: {'; '.join(problems(error, model, within))}") from None
        return cls(images.stored_size_px, images.min_images_per_class, images.max_bad_share, thresholds)


@dataclass(frozen=True)
class Scanned:
    """The result of a scan, and the gate's verdict.

    Attributes:
        report: counts, and lists of what is wrong.
        manifest: a row for each file, with its status (`tans_core.tasks.cleaning.MANIFEST`).
        verdict: of the gate.
        known: by task of the zoo, how many of the images the zoo was trained on.
        examples: by class, a few images (3, s, s) uint8, as `scan.html` shows them.
    """

    report: ScanReport
    manifest: pa.Table = field(repr=False)
    verdict: QueryVerdict
    examples: Mapping[str, Sequence[npt.NDArray[np.uint8]]] = field(repr=False)
    known: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the report's, and the gate's failures and warnings."""
        return {**self.report.to_dict(), "gate": self.verdict.to_dict(), "known": dict(self.known)}

    def summary(self) -> str:
        """Return a few lines for a terminal."""
        from tans_core.views.summary import summary

        refused = [f"  refused: {failure}" for failure in self.verdict.failures]
        warned = [f"  warning: {warning}" for warning in self.verdict.warnings]
        return "\n".join([summary(self.report), *refused, *warned])

    def write(self, folder: Path) -> None:
        """Write `scan.json`, `files.parquet`, and `scan.html`, a page without external files."""
        import pyarrow.parquet as pq

        from tans_core.views.scan_page import write_scan_page

        with atomic_path(folder / "files.parquet") as temporary:
            pq.write_table(self.manifest, temporary)
        write_json(self.to_dict(), folder / "scan.json")
        failures, warnings = self.verdict.failures, self.verdict.warnings
        examples = {label: list(images) for label, images in self.examples.items()}
        write_scan_page(self.report, failures, warnings, examples, folder / "scan.html")


class Opened(NamedTuple):
    """A data set that can be used: the task, the scan of a path, and by task of the zoo how many images it knows."""

    task: Task
    scan: Scanned | None
    known: Mapping[str, int]


@dataclass(frozen=True)
class ScanRun:
    """The result of `tans tasks scan`.

    Attributes:
        scanned: report and verdict.
        folder: `runs/<id>`, with `scan.json`, `files.parquet` and `scan.html`.
        task: the saved task, or None.
    """

    scanned: Scanned
    folder: Path
    task: TaskInfo | None

    @property
    def passed(self) -> bool:
        """Whether the data set passed the gate."""
        return self.scanned.verdict.passed

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `tans tasks scan --json` prints them."""
        return {**self.scanned.to_dict(), "folder": str(self.folder), "saved": self.task.name if self.task else None}


@contextlib.contextmanager
def query_gate(dataset: str | Path | Task, root: Path, ready: QueryGate | None = None) -> Iterator[QueryGate | None]:
    """Yield a gate that starts in its own process; None if the data set is a task, which has passed its gate.

    Importing great-expectations takes as long as the rest of a search: enter this early, and there is less to wait for.

    Args:
        dataset: the data set to be opened.
        root: the project's folder.
        ready: a gate that is already started; it is closed if it was needed.
    """
    from tans_core.gates.query import start_query_gate

    if not isinstance(dataset, str | Path) or find_task_folder(root, str(dataset)) is not None:
        yield None
        return
    with ready or start_query_gate() as gate:
        yield gate


def open_dataset(
    dataset: str | Path | Task,
    root: Path,
    limits: QueryLimits,
    gate: QueryGate | None,
    drop_empty_classes: bool = False,
    follow_links: bool = False,
    group: str | None = None,
    max_images: int | None = None,
    on_folder: Callable[[Path], None] = lambda _: None,
) -> Opened:
    """Read a task by its name, or scan a path, which must pass the gate.

    Args:
        dataset: a path (`tans_core.tasks.scan`), a task's name, or a `Task`, which is returned as it is. If a task and
            a path have the same name, it is the task; `./name` is the path.
        root: the project's folder.
        limits: that the images must meet.
        gate: from `query_gate`.
        drop_empty_classes: leave out classes of a path without a usable image, instead of failing.
        follow_links: follow links of a path that lead outside it.
        group: what keeps images of a path in one split (`tans_core.tasks.inputs.open.open_input`).
        max_images: open at most so many files of a path, evenly over classes.
        on_folder: called with the run that is made if the gate refuses the images.

    Raises:
        UnknownTaskError: neither a path nor a task.
        DataError: the path cannot be used; there is a subclass for each reason.
        GateError: the gate refuses it; the reasons are in `runs/<id>/scan.html`.
    """
    from tans_core.tasks.inputs.base import printable
    from tans_core.tasks.task import Task, read_task

    if isinstance(dataset, Task):
        return Opened(dataset, None, known_of(root, dataset))
    path, is_task = task_or_path(dataset, root)
    if is_task:
        task = read_task(path)
        return Opened(task, None, known_of(root, task))
    name = printable(path.resolve().name) or "data"
    made, scanned = scan_path(
        path,
        root,
        limits,
        gate,
        max_images=max_images,
        drop_empty_classes=drop_empty_classes,
        follow_links=follow_links,
        group=group,
        name=name,
    )
    if made is None:
        with run_folder(root, "scan") as details:
            on_folder(details)
            scanned.write(details)
        scanned.verdict.raise_on_failure(details / "scan.html")
    assert made is not None
    return Opened(made, scanned, scanned.known)


def task_or_path(given: str | Path, root: Path) -> tuple[Path, bool]:
    """Return the folder of the task of this name, else the path, and whether it is a task; `./name` is the path.

    Raises:
        UnknownTaskError: there is neither.
    """
    folder = find_task_folder(root, str(given))
    path = folder or path_of(given)
    if not path.exists():
        known = [info.name for info in task_infos(root)]
        tasks = f"one of the {len(known)} tasks" if known else "a task (no task is built yet)"
        raise UnknownTaskError(
            f"{str(given)!r}: neither a path (there is no {path.absolute()}) nor {tasks} of {root}"
            f"{did_you_mean(str(given), known)}.\n"
            "  `tans tasks list` shows the tasks; `tans tasks scan --help` explains what a path may be."
        )
    return path, folder is not None


def path_of(given: str | Path) -> Path:
    """Return the path that a user wrote; `~` is the home folder.

    Raises:
        DataError: it is empty, as if a variable of a script is not set; it does not stand for the current folder.
    """
    if not str(given).strip():
        raise DataError(
            f"the path {str(given)!r} is empty. Want a folder of class folders, an archive or a table; "
            "the current folder is `.`."
        )
    return Path(given).expanduser()


def scan_path(
    path: Path,
    root: Path,
    limits: QueryLimits,
    gate: QueryGate | None,
    *,
    max_images: int | None = None,
    drop_empty_classes: bool = False,
    follow_links: bool = False,
    group: str | None = None,
    name: str | None = None,
    scratch: Path | None = None,
) -> tuple[Task | None, Scanned]:
    """Scan a path and check it with the gate.

    Args:
        path: as the user gave it.
        root: the project's folder.
        limits: that the images must meet.
        gate: from `query_gate`; None checks in this process.
        max_images, drop_empty_classes, follow_links, group: as for `tans_core.tasks.scan.scan`.
        name: of the task; None makes no task.
        scratch: a folder of the caller's for decoded images that do not fit into `_HELD_BYTES`. With it, nothing is
            written to the project, and reports name the file without its folder. None keeps them in the project, where
            a later scan finds them.

    Returns:
        The task of this name, None if the gate refuses it or no name is given; and the result of the scan.

    Raises:
        DataError: the path cannot be scanned; there is a subclass for each reason.
    """
    from tans_core.gates.query import check_query
    from tans_core.tasks.scan import scan

    check = gate.check if gate is not None else check_query
    resume = scratch or scan_folder(root, path, follow_links)
    with scan(
        path,
        stored_size_px=limits.stored_size_px,
        max_images=max_images,
        drop_empty_classes=drop_empty_classes,
        follow_links=follow_links,
        group=group,
        resume=resume,
        held_bytes=0 if scratch is None else _HELD_BYTES,
    ) as scanning:
        report = scanning.report if scratch is None else replace(scanning.report, path=path.name)
        verdict = check(
            report,
            limits.thresholds,
            min_images_per_class=limits.min_images_per_class,
            max_bad_share=limits.max_bad_share,
            drop_empty_classes=drop_empty_classes,
        )
        known = known_images(root, scanning.digests)
        if known:
            verdict = replace(verdict, warnings=(*verdict.warnings, say_known(known, report.used)))
        scanned = Scanned(report, scanning.manifest, verdict, scanning.examples, known)
        if name is None or not verdict.passed:
            return None, scanned
        return scanning.task(name), scanned


def scan_folder(root: Path, path: Path, follow_links: bool = False) -> Path:
    """Return the folder that a killed scan is resumed from; of two scans of one path at a time, only one uses it."""
    key = f"{path.resolve()}{'?follow-links' if follow_links else ''}"
    return root / ".resume/scan" / hashlib.sha256(key.encode(errors="replace")).hexdigest()[:16]


def check_save_name(name: str, root: Path) -> None:
    """Raise ParamsError unless a scanned task can be saved under this name."""
    check_task_name(name)
    taken = find_task_folder(root, name)
    if taken is not None and taken.parent.name == "tasks":
        raise ParamsError(f"name {name!r}: a task of the project has it ({taken}). Choose another.")
