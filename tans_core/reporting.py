"""How far a fine-tuning is, as lines of JSON in a file that other processes read while it runs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tans_core.errors import ParamsError
from tans_core.io import writing

if TYPE_CHECKING:
    from tans_core.finetuning.checkpoint import Checkpoint

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""The last states of a job of `tans api`."""


class Report:
    """Appends lines to a file; None writes nothing. Each line is whole: other processes may append as well."""

    def __init__(self, path: Path | None) -> None:
        """Raise ParamsError if the file's folder is missing, StoreError if it cannot be written."""
        self._path = path
        if path is not None:
            if not path.parent.is_dir():
                raise ParamsError(f"--progress {path}: there is no folder {path.parent.absolute()}. Make it first.")
            with writing(path), path.open("ab"):
                pass

    def __call__(self, **values: Any) -> None:
        if self._path is not None:
            with writing(self._path), self._path.open("ab", buffering=0) as file:
                file.write(json.dumps(values).encode() + b"\n")

    def watched(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """Return a checkpoint that also reports each point of the curve."""
        return checkpoint if self._path is None else _watched(checkpoint, self)


def _watched(checkpoint: Checkpoint | None, report: Report) -> Checkpoint:
    # Lightning takes seconds to import, and who only reads reports does not need it.
    from tans_core.finetuning import checkpoint as module

    class Watched(module.Checkpoint):
        """The last of a training's callbacks: the curve has the point of this step already."""

        state_key = module.Checkpoint.__qualname__  # its state may be that of a run without a report
        told = 0

        def on_train_start(self, trainer: Any, *_: Any, **__: Any) -> None:
            self.tell(trainer.lightning_module)  # what it goes on from

        def on_train_batch_end(self, trainer: Any, *others: Any, **more: Any) -> None:
            self.tell(trainer.lightning_module)
            super().on_train_batch_end(trainer, *others, **more)

        def tell(self, training: Any) -> None:
            for point in training.curve[self.told :]:
                report(point=point)
            self.told = len(training.curve)

    if checkpoint is None:
        return Watched(Path(os.devnull), float("inf"))
    return Watched(checkpoint.path, checkpoint.every_s)


@dataclass
class Progress:
    """What a file of reports says.

    Attributes:
        folders: of `runs/`, by name, that the work has made so far.
        run: the one that will hold the result, once the training has begun.
        model: that it starts from.
        epochs: of the whole training.
        checkpoints: the files that killed trainings go on from.
        curve: the points so far; see `FinetuneResult.curve`.
        flow_run: the id of the flow run that does the work, if a Prefect server has it.
        waiting_for: what this flow run waits for.
    """

    folders: list[str] = field(default_factory=list)
    run: str | None = None
    model: str | None = None
    epochs: int | None = None
    checkpoints: list[str] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    flow_run: str | None = None
    waiting_for: str | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; a missing one says nothing, nor does a line that is being written or that is damaged."""
        progress = cls()
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return progress
        for line in lines:
            with contextlib.suppress(ValueError):  # a full disk, or a killed writer, has cut it off
                said = json.loads(line)
                if isinstance(said, dict):
                    progress._add(said)
        return progress

    def _add(self, said: Mapping[str, Any]) -> None:
        if "folder" in said:
            self.folders.append(said["folder"])
        elif "checkpoint" in said:
            self.checkpoints.append(said["checkpoint"])
        elif "point" in said:
            self.curve.append(said["point"])
        else:
            self.__dict__.update(said)
