"""What the space is trained on, as tensors.

Axes: D tasks, M models, n images of a task, F feature width, T topology width, E functional width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tans_core.embeddings.store import FeatureRows, ModelRows
from tans_core.errors import StoreError
from tans_core.runtime import derive_seed
from tans_core.space.metrics import standardise_within


@dataclass(frozen=True)
class SpaceData:
    """Models, their home tasks, and both sides' embeddings.

    Attributes:
        tasks: D names.
        sources: D names of the sources that the tasks came from.
        train_features: D tensors (n, F), of images that training sees.
        val_features: D tensors (n, F), of other images of the same tasks.
        topology: (M, T) float32.
        functional: (M, E) float32.
        home: (M,) int64 in [0, D), each model's home task.
        score: (M,) float32, accuracy in deviations of the home task's models around their mean.
        heldout: (M,) bool, models that training never sees.
    """

    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    train_features: tuple[Tensor, ...]
    val_features: tuple[Tensor, ...]
    topology: Tensor
    functional: Tensor
    home: Tensor
    score: Tensor
    heldout: Tensor

    def members(self, task: int, heldout: bool) -> Tensor:
        """Return the indices of a task's models, held out or not."""
        return ((self.home == task) & (self.heldout == heldout)).nonzero()[:, 0]


def assemble(
    models: ModelRows, features: FeatureRows, tasks: Sequence[str], heldout_share: float, seed: int
) -> SpaceData:
    """Put the tables of `embed` together. Models whose home is none of the tasks take no part.

    Args:
        models: the table `models`.
        features: the table `task_features`.
        tasks: the meta-train tasks.
        heldout_share: share of each task's models that training never sees.
        seed: of which these are; a model stays on its side when other tasks come or go.

    Raises:
        StoreError: fewer than two tasks, or a task has no features or too few models to hold one out.
    """
    if len(tasks) < 2:
        raise StoreError(f"the space needs at least 2 meta-train tasks, got {len(tasks)}. Add tasks to params.yaml.")
    number = {task: index for index, task in enumerate(tasks)}
    kept = [index for index, card in enumerate(models.cards) if card.home_task in number]
    cards = [models.cards[index] for index in kept]
    home = np.array([number[card.home_task] for card in cards], dtype=np.int64)
    sources = []
    for task in tasks:
        own = [card for card in cards if card.home_task == task]
        if len(own) < 2 or len(features.of(task)) == 0:
            raise StoreError(
                f"task {task!r}: {len(own)} models, {len(features.of(task))} features. Run `dvc repro embed`."
            )
        sources.append(own[0].source)
    accuracies = np.array([card.val_accuracy for card in cards])
    heldout = _hold_out([card.id for card in cards], home, heldout_share, seed)

    def of_split(split: str) -> tuple[Tensor, ...]:
        rows = features.splits == split
        return tuple(torch.from_numpy(features.features[rows & (features.tasks == task)]) for task in tasks)

    return SpaceData(
        tasks=tuple(tasks),
        sources=tuple(sources),
        train_features=of_split("train"),
        val_features=of_split("val"),
        topology=torch.from_numpy(models.topology[kept]),
        functional=torch.from_numpy(models.functional[kept]),
        home=torch.from_numpy(home),
        score=torch.from_numpy(standardise_within(accuracies, home)),
        heldout=torch.from_numpy(heldout),
    )


def _hold_out(ids: Sequence[str], home: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.bool_]:
    heldout = np.zeros(len(ids), dtype=bool)
    for task in np.unique(home):
        members = sorted(
            np.flatnonzero(home == task).tolist(), key=lambda index: derive_seed(seed, "heldout", ids[index])
        )
        heldout[members[: max(1, round(share * len(members)))]] = True
    return heldout
