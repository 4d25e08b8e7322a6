"""A row of hostile input: how to make it, and the expected result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tans_core.errors import (
    TansError,
)
from tans_core.tasks.report import ScanReport
from tans_core.tasks.task import Task, read_task
from tests.factories.images import (
    write_class_folders,
)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Found:
    """The result of a folder that passed."""

    report: ScanReport
    manifest: pa.Table
    task: Task
    warnings: tuple[str, ...]

    @classmethod
    def saved(cls, folder: Path, root: Path) -> Found:
        """The run's folder that `tans tasks scan --save` wrote, and the one task below the project's root."""
        answer = json.loads((folder / "scan.json").read_text(encoding="utf-8"))
        (task,) = [path.parent for path in root.glob("*/**/task.json")]
        report = ScanReport(**{name: _tuples(answer[name]) for name in ScanReport.__dataclass_fields__})
        manifest = pq.read_table(folder / "files.parquet")
        return cls(report, manifest, read_task(task), tuple(answer["gate"]["warnings"]))

    def image(self, path: str) -> npt.NDArray[np.uint8]:
        """(3, s, s) uint8."""
        return self.task.images[self.task.paths.index(path)]

    def size(self, path: str) -> tuple[int, int]:
        width, height = self.task.sizes[self.task.paths.index(path)].tolist()
        return width, height

    def label(self, path: str) -> str:
        return self.task.info.class_names[self.task.labels[self.task.paths.index(path)]]

    def check_account(self) -> None:
        """Check that each file is in the manifest once, with its result."""
        became: dict[str, set[str]] = {}
        for name, status in zip(self.manifest["name"].to_pylist(), self.manifest["status"].to_pylist(), strict=True):
            became.setdefault(status, set()).add(name)
        assert sum(map(len, became.values())) == len(self.manifest) == self.report.files
        assert became.pop("used") == set(self.task.paths)
        assert became.pop("unreadable", set()) == set(dict(self.report.bad))
        assert became.pop("copy", set()) == set(self.report.copies)
        assert became.pop("contradiction", set()) == {name for pair in self.report.contradictions for name in pair}
        assert became.pop("leak", set()) == {name for name, _ in self.report.leaks}
        assert not became

    def format(self, path: str) -> str:
        """Return the manifest's entry of a file."""
        return self.manifest["format"][self.manifest["name"].to_pylist().index(path)].as_py()

    def left_out(self, path: str) -> str:
        """Return the reason of a file that is listed as bad; the task must not have it."""
        assert path not in self.task.paths
        return dict(self.report.bad)[path]

    def skipped(self, reason: str) -> int:
        return self.report.skipped.get(reason, 0)


@dataclass(frozen=True)
class HostileRow:
    """One kind of problem.

    Attributes:
        make: adds it to the class folders at a path.
        check: checks the result of a folder that passes with it; None if it is refused.
        error: class of the error if it is refused; `words` are a part of the message.
        alone: `make` writes the whole folder.
        file: the path in the folder that is scanned; empty for the folder itself.
    """

    make: Callable[[Path], None]
    check: Callable[[Found], None] | None = None
    error: type[TansError] | None = None
    words: str = ""
    alone: bool = False
    file: str = ""

    def folder(self, root: Path) -> Path:
        """Make a folder with only this problem, and return the path to scan."""
        root.mkdir(parents=True)
        if not self.alone:
            healthy(root)
        self.make(root)
        return root / self.file


def healthy(root: Path) -> Path:
    """Three classes of twenty images."""
    return write_class_folders(root, {"ash": 20, "elm": 20, "oak": 20})


def just(root: Path, classes: dict[str, int]) -> None:
    """Class folders of so many images. No other row has these images."""
    write_class_folders(root, classes, seed=350)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
