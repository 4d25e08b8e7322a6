"""How far a fine-tuning is, as lines of JSON in a file that other processes read while it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl

from tans_core.finetuning.checkpoint import Checkpoint
from tans_core.io import writing


class Report:
    """Appends lines to a file; None writes nothing. Each line is whole: other processes may append as well."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __call__(self, **values: Any) -> None:
        if self._path is not None:
            with writing(self._path), self._path.open("ab", buffering=0) as file:
                file.write(json.dumps(values).encode() + b"\n")

    def watched(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """Return a checkpoint that also reports each point of the curve."""
        return checkpoint if self._path is None else _Watched(checkpoint, self)


class _Watched(Checkpoint):
    """The last of a training's callbacks: the curve has the point of this step already."""

    state_key = Checkpoint.__qualname__  # its state may be that of a run without a report

    def __init__(self, checkpoint: Checkpoint | None, report: Report) -> None:
        path, every_s = (
            (Path(os.devnull), float("inf")) if checkpoint is None else (checkpoint.path, checkpoint.every_s)
        )
        super().__init__(path, every_s)
        self._report, self._told = report, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(pl_module)  # what it goes on from

    def on_train_batch_end(self, trainer: pl.Trainer, *others: Any, **more: Any) -> None:
        self._tell(trainer.lightning_module)
        super().on_train_batch_end(trainer, *others, **more)

    def _tell(self, module: Any) -> None:
        for point in module.curve[self._told :]:
            self._report(point=point)
        self._told = len(module.curve)


@dataclass
class Progress:
    """What a file of reports says.

    Attributes:
        folders: of `runs/`, by name, that the work has made so far.
        run: the one that will hold the result, once the training has begun.
        model: that it starts from.
        epochs: of the whole training.
        checkpoint: the file that a killed training goes on from.
        curve: the points so far; see `FinetuneResult.curve`.
        flow_run: the id of the flow run that does the work, if a Prefect server has it.
        waiting_for: what this flow run waits for.
    """

    folders: list[str] = field(default_factory=list)
    run: str | None = None
    model: str | None = None
    epochs: int | None = None
    checkpoint: str | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    flow_run: str | None = None
    waiting_for: str | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; a missing one says nothing, and a line that is being written does not count yet."""
        progress = cls()
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return progress
        for line in lines:
            progress._add(json.loads(line))
        return progress

    def _add(self, said: Mapping[str, Any]) -> None:
        if "folder" in said:
            self.folders.append(said["folder"])
        elif "point" in said:
            self.curve.append(said["point"])
        else:
            self.__dict__.update(said)
