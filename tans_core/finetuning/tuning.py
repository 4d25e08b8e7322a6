"""A fine-tuning that is to be done, whole or in parts; and the choice among several under one budget of time."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tans_core.errors import ParamsError, StoreError
from tans_core.finetuning.batches import batches_per_epoch
from tans_core.finetuning.checkpoint import Checkpoint, PausedError, checkpoint_of
from tans_core.finetuning.contest import Curve, Entrant, admit, contest, halvings_of, score
from tans_core.finetuning.estimate import estimate_memory_mb, estimate_seconds
from tans_core.finetuning.finetune import FinetuneResult, finetune
from tans_core.finetuning.fits import fit_key
from tans_core.finetuning.progress import say_estimate
from tans_core.io import read_json, write_json
from tans_core.networks.family import Network
from tans_core.networks.registry import get_family
from tans_core.recipe import Recipe, for_family
from tans_core.tasks.task import Task
from tans_core.zoo.card import ModelCard

if TYPE_CHECKING:
    from tans_core.options import FinetuneOptions
    from tans_core.retrieval.retriever import Retriever

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuning:
    """A fine-tuning of one network on one task.

    Attributes:
        card: of the network, with the recipe that is followed.
        build: makes the network, with the classifier that it starts with.
        task: the task to train on.
        settings: epochs, batch_size and seed.
        rivals: how many networks it is one of, at most.
        resume: the folder of checkpoints.
        progress, weigh_classes: as for `finetune`.
    """

    card: ModelCard
    build: Callable[[], Network]
    task: Task
    settings: Mapping[str, int]
    rivals: int
    resume: Path
    progress: bool = False
    weigh_classes: bool = False

    @property
    def recipe(self) -> Recipe:
        assert self.card.recipe is not None
        return self.card.recipe

    @property
    def written(self) -> dict[str, Any]:
        """What `params.json` of the run says of it."""
        recipe = self.recipe.model_dump(mode="json")
        of_run = {"model": self.card.id, "top_k": self.rivals, "weigh_classes": self.weigh_classes}
        return {**self.settings, "recipe": recipe, **of_run}

    @property
    def eval_points(self) -> int:
        """One a epoch; with rivals, as many as put one at the end of each turn."""
        turns = 1 << halvings_of(self.rivals)
        return turns * math.ceil(self.settings["epochs"] / turns)

    @property
    def steps(self) -> int:
        images = len(self.task.where("train"))
        return self.settings["epochs"] * batches_per_epoch(images, self.settings["batch_size"])

    @cached_property
    def key(self) -> str:
        """A hash of all that determines it."""
        settings = {**self.settings, "eval_points": self.eval_points, "weigh_classes": self.weigh_classes}
        settings["alone"] = self.rivals == 1  # its checkpoint may have smaller batches
        return fit_key(self.build(), self.task, self.card.preprocess, self.recipe, settings)

    @cached_property
    def seconds(self) -> float:
        """The seconds that the whole will take, estimated once: a run that was killed goes on with the same.

        They are infinite if a step does not fit into memory.
        """
        path = self.resume / f"{self.key}.json"
        try:
            return float(read_json(path)["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            fit = {"epochs": self.settings["epochs"], "batch_size": self.settings["batch_size"]}
            fit["eval_points"] = self.eval_points
            try:
                found = estimate_seconds(self.build(), self.task, self.card.preprocess, **fit)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                return math.inf
            write_json({"seconds": found}, path)
            return found

    def checkpoint(self) -> AbstractContextManager[Checkpoint | None]:
        return checkpoint_of(self.resume, self.key)

    def run(self, network: Network, checkpoint: Checkpoint | None) -> FinetuneResult:
        """Train a network that `build` made, going on from the checkpoint.

        If memory runs out, it begins again with batches of half the size, unless it has rivals.

        Raises:
            ParamsError: memory runs out all the same.
        """
        options: dict[str, Any] = {**self.settings, "eval_points": self.eval_points, "progress": self.progress}
        options |= {"by_class": True, "weigh_classes": self.weigh_classes, "checkpoint": checkpoint}
        if checkpoint is not None:
            options["batch_size"] = checkpoint.reached().batch_size or options["batch_size"]
        start = {name: value.clone() for name, value in network.state_dict().items()}
        while True:
            try:
                return finetune(network, self.task, self.card.preprocess, self.recipe, **options)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if self.rivals > 1 or options["batch_size"] < 4:
                    raise ParamsError(
                        f"{self.card.id}: out of memory with batches of {options['batch_size']} images. Lower "
                        "finetune.batch_size, or choose a smaller network, such as by --max-macs-m."
                    ) from error
            options["batch_size"] //= 2
            logger.warning("Out of memory: beginning again with batches of %d images.", options["batch_size"])
            network.load_state_dict(start)
            if checkpoint is not None and checkpoint.path.is_file():
                checkpoint.path.unlink()

    def run_to(self, share: float) -> Curve:
        """Train up to a share of the run, going on from the checkpoint. Return the curve up to there.

        Raises:
            StoreError: the checkpoint cannot be written, or another process has it.
            ParamsError: the loss stopped being finite, or memory runs out.
        """
        stop = math.ceil(share * self.steps)
        curve: Curve = []
        # Its file stays: the block ends by an exception.
        with contextlib.suppress(PausedError), self.checkpoint() as checkpoint:
            if checkpoint is None:
                raise StoreError(f"{self.resume}: another process does the same fine-tuning. Wait for its end.")
            if checkpoint.reached().step < stop:
                checkpoint.stop_at = stop
                with contextlib.suppress(PausedError):
                    self.run(self.build(), checkpoint)
            curve = list(checkpoint.reached().curve)
            raise PausedError
        return [point for point in curve if point["step"] <= stop]

    def forget(self) -> None:
        """Remove its files from the folder of checkpoints, unless another process uses them."""
        with self.checkpoint() as checkpoint:  # its end removes that file
            if checkpoint is not None:
                (self.resume / f"{self.key}.json").unlink(missing_ok=True)

    def say(self) -> None:
        """Say on a terminal how long it will take, and how much memory."""
        if self.progress and sys.stderr.isatty() and math.isfinite(self.seconds):
            batch_size = self.settings["batch_size"]
            # Shapes are enough: no weights are read again.
            outline = get_family(self.card.family).outline(self.card.architecture, len(self.task.info.class_names))
            memory_mb = estimate_memory_mb(outline, self.card.preprocess, batch_size=batch_size)
            say_estimate(self.card.id, self.steps, self.seconds, memory_mb)


def tunings_of(
    retriever: Retriever, models: Sequence[str], task: Task, options: FinetuneOptions, resume: Path, progress: bool
) -> dict[str, Tuning]:
    """Return the fine-tunings of a retriever's models on a task, by model, with the settings of its release."""
    tunings, rivals = {}, min(options.top_k, len(models))
    for model in models:
        card = retriever.card(model)
        side, stored = card.preprocess.image_size_px, task.info.stored_size_px
        if side > stored:
            words = "%s takes images of %d px, but these are kept at %d (data.stored_size_px): it sees them enlarged"
            logger.warning(words, model, side, stored)
        own = for_family(retriever.release.params["finetune"], card.family)
        settings = {"epochs": options.epochs or own["epochs"], "batch_size": own["batch_size"], "seed": options.seed}
        tunings[model] = Tuning(
            card.model_copy(update={"recipe": retriever.recipe(model)}),
            partial(retriever.load_model, model, task.info.num_classes, seed=options.seed),
            task,
            *(settings, rivals, resume, progress, options.weigh_classes),
        )
    return tunings


def _out_of_memory(error: RuntimeError) -> bool:
    # On a CPU, torch has no class of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def choose(
    tunings: Sequence[Tuning], budget_s: float, on_checkpoint: Callable[[Tuning], None] = lambda one: None
) -> list[Entrant]:
    """Train fine-tunings in turns; leave the one with `fits` set to be trained to its end.

    Args:
        tunings: in the order in which they are tried, as many as there are rivals.
        budget_s: seconds for all, the winner's whole run included; `inf` sets no limit.
        on_checkpoint: called before a fine-tuning writes files to the folder of checkpoints.

    Returns:
        Those that were looked at, in the same order.

    Raises:
        ParamsError: no run fits into the budget, a run is too short to be halved, or all diverged or lacked memory.
    """
    most = tunings[0].rivals
    if most == 1 and math.isinf(budget_s):
        on_checkpoint(tunings[0])
        tunings[0].say()
        return [Entrant(tunings[0].card.id, 0.0)]
    by_model = {one.card.id: one for one in tunings}
    for one in tunings:
        if one.steps < 2 ** halvings_of(most):
            raise ParamsError(
                f"--top-k {most}: {one.settings['epochs']} epochs of this data set are {one.steps} steps, want at "
                f"least {2 ** halvings_of(most)} to compare networks on the way. Raise --epochs, or lower --top-k."
            )

    def entrants() -> Iterator[Entrant]:
        for one in tunings:
            on_checkpoint(one)
            yield Entrant(one.card.id, one.seconds)

    def train(entrant: Entrant, share: float) -> Curve:
        return by_model[entrant.model].run_to(share)

    try:
        looked_at = admit(entrants(), most, budget_s)
    except ParamsError:
        for one in tunings:
            if not (one.resume / f"{one.key}.ckpt").exists():  # a killed run may go on with another budget
                one.forget()
        raise
    for entrant in looked_at:
        by_model[entrant.model].say()
    contest(looked_at, train, most, budget_s)
    return looked_at


def leaderboard(entrants: Sequence[Entrant], curve: Curve) -> list[dict[str, Any]]:
    """Return a row for each network that was considered: the winner, whose whole curve is given, then by accuracy."""
    rows: list[dict[str, Any]] = []
    for one in sorted(entrants, key=lambda one: (not one.fits, -one.accuracy)):
        reached = curve if one.fits else one.curve
        outcome = one.failed or ("stopped" if reached else "left out: over the budget")
        rows.append(
            {
                "rank": len(rows) + 1,
                "model": one.model,
                "val_accuracy": max(reached, key=score)["val_accuracy"] if reached else None,
                "epochs": reached[-1]["epoch"] if reached else 0.0,
                "seconds": reached[-1]["seconds"] if one.fits else one.used_s,
                "outcome": "winner" if one.fits else outcome,
            }
        )
    return rows
