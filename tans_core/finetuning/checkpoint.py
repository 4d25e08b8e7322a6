"""Checkpoints of a fine-tuning: one that was killed goes on, and ends with the same weights and figures."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout

from tans_core.errors import StoreError
from tans_core.io import atomic_path, writing

logger = logging.getLogger(__name__)

EVERY_S = 15.0
"""Seconds of training between checkpoints; at least twenty times as long as one takes to write."""
_SHARE = 20
_KEPT_S = 7 * 24 * 3600.0
"""How long the files of an abandoned fine-tuning stay. One that runs changes its own all the time."""


class PausedError(Exception):
    """A training stopped at the step that it was to stop at. Its state is in the checkpoint; no test was made."""


class Reached(NamedTuple):
    """How far a checkpoint is: the step, 0 without one; the curve up to it; the size of its batches."""

    step: int = 0
    curve: Sequence[dict[str, float]] = ()
    batch_size: int | None = None


class Checkpoint(pl.Callback):
    """Writes the state of a training to a file every so often; `finetune` goes on from it.

    Data order and augmentation follow from the seed and the step (`TrainBatches`). The state has the rest: weights,
    optimizer, schedule, the best weights so far, the curve, and the generators that dropout draws from.

    Attributes:
        stop_at: a step, before the last one, after which the state is written and PausedError raised; None goes on.
    """

    def __init__(self, path: Path, every_s: float) -> None:
        self.path, self.every_s = path, every_s
        self.stop_at: int | None = None
        self.due = time.monotonic() + every_s
        self._generators: dict[str, Any] | None = None

    def found(self) -> Path | None:
        """Return the file to go on from; one that is damaged is removed."""
        step = self.reached().step
        if step:
            logger.info("going on from step %d (%s)", step, self.path)
        return self.path if step else None

    def reached(self) -> Reached:
        """Return how far the file is; one that is damaged is removed."""
        if not self.path.is_file():
            return Reached()
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            return Reached(int(state["global_step"]), state["curve"], state["batch_size"])
        except Exception as error:  # torch may fail in any way on a damaged file
            logger.warning("%s: damaged (%s: %s); starting again.", self.path, type(error).__name__, error)
            self.path.unlink(missing_ok=True)
            return Reached()

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.random.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._generators = state_dict

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        if self._generators is None:
            return
        torch.random.set_rng_state(self._generators["cpu"].cpu())
        if torch.cuda.is_available() and len(self._generators["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in self._generators["cuda"]])
        self._generators = None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self.stop_at:
            with atomic_path(self.path) as temporary:
                trainer.save_checkpoint(temporary)
            raise PausedError
        # Not after the last step: only the test is left, and Lightning would take an end for a beginning.
        if time.monotonic() < self.due or trainer.global_step >= trainer.num_training_batches:
            return
        start = time.monotonic()
        try:
            with atomic_path(self.path) as temporary:
                trainer.save_checkpoint(temporary)
        except StoreError as error:
            logger.warning("No checkpoints from here on: %s", error)
            self.due = float("inf")
            return
        now = time.monotonic()
        self.due = now + max(self.every_s, _SHARE * (now - start))


@contextlib.contextmanager
def checkpoint_of(folder: Path, key: str) -> Iterator[Checkpoint | None]:
    """Yield the checkpoint of a fine-tuning, which is removed if the code within succeeds.

    Files of others that have not changed for a week are removed.

    Args:
        folder: of all checkpoints of the project.
        key: a hash of all that determines the fine-tuning.

    Yields:
        None if the same fine-tuning runs in another process, which uses it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path, lock = folder / f"{key}.ckpt", FileLock(folder / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield None
        return
    try:
        for other in [*folder.glob("*.ckpt"), *folder.glob("*.json")]:
            with contextlib.suppress(FileNotFoundError):  # another fine-tuning ends in this moment
                if other.stem != key and time.time() - other.stat().st_mtime > _KEPT_S:
                    other.unlink()
        yield Checkpoint(path, EVERY_S)
        path.unlink(missing_ok=True)
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
