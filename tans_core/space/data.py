"""Training data of the space, as tensors.

Axes: D tasks, M models, V random samples of a task's images, S statistics of a query, T topology width, E functional
width, n trials.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

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

_SEED_NOISE = 0.04
"""Difference in accuracy between two seeds of one short fine-tuning (`noise.between_seeds` of the evaluation)."""


@dataclass(frozen=True)
class Trials:
    """Results of models on tasks other than their home task.

    Attributes:
        task: (n,) int64 in [0, D).
        model: (n,) int64 in [0, M).
        value: (n,) float64, measured, mean over the seeds.
    """

    task: Tensor
    model: Tensor
    value: Tensor

    def rows(self) -> list[tuple[int, int, float]]:
        """Return task, model and value of each trial, in order."""
        return list(zip(self.task.tolist(), self.model.tolist(), self.value.tolist(), strict=True))

    def scores(self) -> Tensor:
        """Return (n,) float32: values standardised within each task, since raw ones mostly reflect how easy it is."""
        return torch.from_numpy(standardise_within(self.value.double().numpy(), self.task.numpy()))

    def weights(self) -> Tensor:
        """Return (n,) float32 in 0..1, confidence in scores: low where a task's trials differ as little as seeds."""
        spread = spread_within(self.value.double().numpy(), self.task.numpy()) ** 2
        return torch.from_numpy(spread / (spread + _SEED_NOISE**2)).float()

    def where(self, chosen: Tensor) -> Trials:
        """Return the chosen (n,) bool trials."""
        return Trials(self.task[chosen], self.model[chosen], self.value[chosen])


@dataclass(frozen=True)
class SpaceData:
    """Models, their home tasks, embeddings of models and tasks, and the models' results on other tasks.

    Attributes:
        tasks: D names.
        sources: D names of the sources that the tasks came from.
        samples: (D, V, S) statistics of random samples of each task's training images.
        queries: (D, S) statistics of all its training images.
        val_queries: (D, S) statistics of its validation images.
        topology: (M, T) float32.
        functional: (M, E) float32.
        home: (M,) int64 in [0, D), each model's home task; -1 for a model whose home task is none of these.
        score: (M,) float32, accuracy standardised by the home task's models that are not held out; 0 without a home.
        accuracy: (M,) float32, on the home task's validation split, 0..1; 0 without a home.
        params_m: (M,) float32, parameters in millions.
        heldout: (M,) bool, models that training never sees.
        tuned: short fine-tunings on other tasks; may be empty.
        probed: probes on other tasks; may be empty.
        models: M ids; may be empty where only numbers matter.
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
    models: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return a SHA-256 of all fields, which ties a checkpoint to its data."""
        digest = hashlib.sha256(json.dumps([self.tasks, self.sources]).encode())
        for value in (getattr(self, field.name) for field in fields(self)):
            parts = [getattr(value, part.name) for part in fields(value)] if isinstance(value, Trials) else [value]
            for part in parts:
                if isinstance(part, Tensor):
                    digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def comes_from(self, model: int, task: int) -> bool:
        """Return whether a model's home task and a task share a source."""
        home = int(self.home[model])
        return home >= 0 and self.sources[home] == self.sources[task]

    def members(self, task: int, heldout: bool) -> Tensor:
        """Return the indices of a task's models, held out or not."""
        return ((self.home == task) & (self.heldout == heldout)).nonzero()[:, 0]


def read_data(store: Path, tasks: Sequence[str], **sampling: Any) -> SpaceData:
    """Read the tables of a LanceDB folder, and `assemble` them; its other arguments go through."""
    return assemble(ModelRows.read(store), FeatureRows.read(store), ScoreRows.read(store), tasks, **sampling)


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
    """Combine the tables of the stages `embed` and `transfer`. Model m is row m of the table `models`.

    Args:
        models: the table `models`.
        features: the table `task_features`.
        scores: the table `transfer`.
        tasks: the meta-train tasks.
        heldout_share: share of each task's models that training never sees.
        samples: V, number of random samples of each task's images.
        images_per_sample: images in each sample.
        seed: of the held-out models (which do not depend on what other tasks there are) and of the samples.

    Raises:
        StoreError: fewer than two tasks, or a task has no features or too few models to hold one out.
    """
    if len(tasks) < 2:
        raise StoreError(f"the space needs at least 2 meta-train tasks, got {len(tasks)}. Add tasks to params.yaml.")
    task_number = {task: index for index, task in enumerate(tasks)}
    cards = models.cards
    # General features have no accuracy on a single home task, whatever their card names as home.
    home = np.array([-1 if card.general else task_number.get(card.home_task, -1) for card in cards], dtype=np.int64)
    sources = []
    for task in tasks:
        task_cards = [card for card in cards if card.home_task == task]
        if len(task_cards) < 2 or len(features.of(task)) == 0:
            raise StoreError(
                f"task {task!r}: {len(task_cards)} models, {len(features.of(task))} features. Run `tans build embed`."
            )
        sources.append(task_cards[0].source)
    accuracies = np.array(
        [card.val_accuracy if number >= 0 else 0.0 for card, number in zip(cards, home, strict=True)], float
    )
    ids = [card.id for card in cards]

    def of_split(task: str, split: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        rows = (features.splits == split) & (features.tasks == task)
        return features.features[rows], features.labels[rows]

    def all_images(split: str) -> Tensor:
        return torch.from_numpy(np.stack([query_statistics(*of_split(task, split)) for task in tasks]))

    sampled = [
        sampled_statistics(*of_split(task, "train"), samples, images_per_sample, derive_seed(seed, task))
        for task in tasks
    ]
    heldout = hold_out_by_id(ids, home, heldout_share, seed)
    model_number = {name: index for index, name in enumerate(ids)}
    return SpaceData(
        tasks=tuple(tasks),
        sources=tuple(sources),
        samples=torch.from_numpy(np.stack(sampled)),
        queries=all_images("train"),
        val_queries=all_images("val"),
        topology=torch.from_numpy(models.topology),
        functional=torch.from_numpy(models.functional),
        home=torch.from_numpy(home),
        score=torch.from_numpy(standardise_within(accuracies, home, heldout)),
        accuracy=torch.from_numpy(accuracies.astype(np.float32)),
        params_m=torch.tensor([card.params_m for card in cards]),
        heldout=torch.from_numpy(heldout),
        tuned=_trials(scores.of("finetune"), task_number, model_number, home),
        probed=_trials(scores.of("probe"), task_number, model_number, home),
        models=tuple(ids),
    )


def _trials(rows: ScoreRows, tasks: dict[str, int], models: dict[str, int], home: npt.NDArray[np.int64]) -> Trials:
    sums: dict[tuple[int, int], list[float]] = {}
    for task, model, value in zip(rows.tasks.tolist(), rows.models.tolist(), rows.values.tolist(), strict=True):
        # A result at home, where a network was trained, does not predict its results on other tasks.
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
    """Choose a share of each task's models, (M,) bool, by a hash of their ids, so that other tasks have no influence.

    At least one model of each task is held out, and never all of them. Models without a home (-1) are never held out.
    """
    heldout = np.zeros(len(ids), dtype=bool)
    for task in np.unique(home[home >= 0]):
        members = sorted(
            np.flatnonzero(home == task).tolist(), key=lambda index: derive_seed(seed, "heldout", ids[index])
        )
        heldout[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return heldout
