"""What the space is trained on, as tensors.

Axes: D tasks, M models, V random samples of a task's images, S statistics of a query, T topology width, E functional width,
n trials.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tans_core.embeddings.scores import ScoreRows
from tans_core.embeddings.store import FeatureRows, ModelRows
from tans_core.errors import StoreError
from tans_core.runtime import derive_seed
from tans_core.space.metrics import spread_within, standardise_within
from tans_core.space.queries import query_statistics, sampled_statistics

_SEEDS = 0.04
"""By how much two seeds of one short fine-tuning differ, in accuracy (`noise.between_seeds` of the evaluation)."""


@dataclass(frozen=True)
class Trials:
    """Models on tasks that are not their home.

    Attributes:
        task: (n,) int64 in [0, D).
        model: (n,) int64 in [0, M).
        value: (n,) float64, as measured, mean over the seeds.
    """

    task: Tensor
    model: Tensor
    value: Tensor

    def rows(self) -> list[tuple[int, int, float]]:
        """Return task, model and value of each trial, in their order."""
        return list(zip(self.task.tolist(), self.model.tolist(), self.value.tolist(), strict=True))

    def scores(self) -> Tensor:
        """Return (n,) float32: values in deviations of the task's trials: raw ones mostly tell how easy it is."""
        return torch.from_numpy(standardise_within(self.value.double().numpy(), self.task.numpy()))

    def weights(self) -> Tensor:
        """Return (n,) float32 in 0..1: how sure a score is. Where the trials of a task differ little, seeds decide."""
        spread = spread_within(self.value.double().numpy(), self.task.numpy()) ** 2
        return torch.from_numpy(spread / (spread + _SEEDS**2)).float()

    def where(self, chosen: Tensor) -> Trials:
        """Return the chosen (n,) bool trials."""
        return Trials(self.task[chosen], self.model[chosen], self.value[chosen])


@dataclass(frozen=True)
class SpaceData:
    """Models, their home tasks, both sides' embeddings, and how models did elsewhere.

    Attributes:
        tasks: D names.
        sources: D names of the sources that the tasks came from.
        samples: (D, V, S) statistics of random samples of the images that training sees.
        queries: (D, S) statistics of all of these.
        val_queries: (D, S) statistics of other images of the same tasks.
        topology: (M, T) float32.
        functional: (M, E) float32.
        home: (M,) int64, each model's home task in [0, D), or -1 for one that has none among these: trials alone tell of it.
        score: (M,) float32, accuracy in deviations of those of the home task's models that are not held out; 0 without a home.
        accuracy: (M,) float32, on the home task's validation split, 0..1; 0 without a home.
        params_m: (M,) float32, parameters in millions.
        heldout: (M,) bool, models that training never sees.
        tuned: short fine-tunings elsewhere; may be empty.
        probed: probes elsewhere; may be empty.
    """

    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    samples: Tensor
    queries: Tensor
    val_queries: Tensor
    topology: Tensor
    functional: Tensor
    home: Tensor
    score: Tensor
    accuracy: Tensor
    params_m: Tensor
    heldout: Tensor
    tuned: Trials
    probed: Trials

    def digest(self) -> str:
        """Return a SHA-256 of everything in it: a checkpoint belongs to the data that it was made from."""
        digest = hashlib.sha256(json.dumps([self.tasks, self.sources]).encode())
        for value in (getattr(self, field.name) for field in fields(self)):
            parts = [getattr(value, part.name) for part in fields(value)] if isinstance(value, Trials) else [value]
            for part in parts:
                if isinstance(part, Tensor):
                    digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def comes_from(self, model: int, task: int) -> bool:
        """Say whether a model's home task is of the same source as a task."""
        home = int(self.home[model])
        return home >= 0 and self.sources[home] == self.sources[task]

    def members(self, task: int, heldout: bool) -> Tensor:
        """Return the indices of a task's models, held out or not."""
        return ((self.home == task) & (self.heldout == heldout)).nonzero()[:, 0]


def assemble(
    models: ModelRows,
    features: FeatureRows,
    scores: ScoreRows,
    tasks: Sequence[str],
    *,
    heldout_share: float,
    samples: int,
    images_per_sample: int,
    seed: int,
) -> SpaceData:
    """Put the tables of `embed` and `transfer` together. Model m is the m-th of the table.

    Args:
        models: the table `models`.
        features: the table `task_features`.
        scores: the table `transfer`.
        tasks: the meta-train tasks.
        heldout_share: share of each task's models that training never sees.
        samples: V, random samples of each task's images.
        images_per_sample: images of each.
        seed: of what is held out (a model stays on its side when other tasks come or go), and of the samples.

    Raises:
        StoreError: fewer than two tasks, or a task has no features or too few models to hold one out.
    """
    if len(tasks) < 2:
        raise StoreError(f"the space needs at least 2 meta-train tasks, got {len(tasks)}. Add tasks to params.yaml.")
    number = {task: index for index, task in enumerate(tasks)}
    cards = models.cards
    # Features of no single task have no accuracy at home, whatever they name as it.
    home = np.array([-1 if card.general else number.get(card.home_task, -1) for card in cards], dtype=np.int64)
    sources = []
    for task in tasks:
        own = [card for card in cards if card.home_task == task]
        if len(own) < 2 or len(features.of(task)) == 0:
            raise StoreError(
                f"task {task!r}: {len(own)} models, {len(features.of(task))} features. Run `dvc repro embed`."
            )
        sources.append(own[0].source)
    accuracies = np.array([card.val_accuracy if at >= 0 else 0.0 for card, at in zip(cards, home, strict=True)], float)
    ids = [card.id for card in cards]

    def of_split(task: str, split: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        rows = (features.splits == split) & (features.tasks == task)
        return features.features[rows], features.labels[rows]

    def whole(split: str) -> Tensor:
        return torch.from_numpy(np.stack([query_statistics(*of_split(task, split)) for task in tasks]))

    drawn = [
        sampled_statistics(*of_split(task, "train"), samples, images_per_sample, derive_seed(seed, task))
        for task in tasks
    ]
    heldout = hold_out_by_id(ids, home, heldout_share, seed)
    model_number = {name: index for index, name in enumerate(ids)}
    return SpaceData(
        tasks=tuple(tasks),
        sources=tuple(sources),
        samples=torch.from_numpy(np.stack(drawn)),
        queries=whole("train"),
        val_queries=whole("val"),
        topology=torch.from_numpy(models.topology),
        functional=torch.from_numpy(models.functional),
        home=torch.from_numpy(home),
        score=torch.from_numpy(standardise_within(accuracies, home, heldout)),
        accuracy=torch.from_numpy(accuracies.astype(np.float32)),
        params_m=torch.tensor([card.params_m for card in cards]),
        heldout=torch.from_numpy(heldout),
        tuned=_trials(scores.of("finetune"), number, model_number, home),
        probed=_trials(scores.of("probe"), number, model_number, home),
    )


def _trials(rows: ScoreRows, tasks: dict[str, int], models: dict[str, int], home: npt.NDArray[np.int64]) -> Trials:
    sums: dict[tuple[int, int], list[float]] = {}
    for task, model, value in zip(rows.tasks.tolist(), rows.models.tolist(), rows.values.tolist(), strict=True):
        # Probes at home, where a network was trained, say nothing about it elsewhere.
        if task in tasks and model in models and home[models[model]] != tasks[task]:
            sums.setdefault((tasks[task], models[model]), []).append(value)
    pairs = sorted(sums)
    task = np.array([pair[0] for pair in pairs], dtype=np.int64)
    values = np.array([np.mean(sums[pair]) for pair in pairs], dtype=np.float64)
    return Trials(
        task=torch.from_numpy(task),
        model=torch.tensor([pair[1] for pair in pairs], dtype=torch.int64),
        value=torch.from_numpy(values),
    )


def hold_out_by_id(ids: Sequence[str], home: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose a share of each task's models, (M,) bool, by a hash of their ids: a task that comes or goes moves no model.

    Of a task's models one at least is held out, and never all; of those without a home (-1), none.
    """
    heldout = np.zeros(len(ids), dtype=bool)
    for task in np.unique(home[home >= 0]):
        members = sorted(
            np.flatnonzero(home == task).tolist(), key=lambda index: derive_seed(seed, "heldout", ids[index])
        )
        heldout[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return heldout
