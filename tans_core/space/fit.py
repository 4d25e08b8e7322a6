"""Meta-training of the space, by Lightning, and its measurement on networks and tasks that training never saw.

Axes: D tasks, M models, R models a task, n images a query, F feature width, d space dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from pytorch_lightning.callbacks import Callback
from sklearn.model_selection import GroupKFold
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tans_core.runtime import derive_seed, progress, quiet_lightning
from tans_core.space.data import SpaceData
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.losses import contrastive_hinge
from tans_core.space.metrics import prediction_quality, ranks_of_own, recall_and_rank

Curve = list[dict[str, float]]


@dataclass(frozen=True)
class SpaceRecipe:
    """How a space is trained: Adam with a cosine to zero; each step takes one random model of every task.

    A few dozen home tasks are soon learnt by heart. Two things keep the predictor useful on tasks that it never saw: noise on the
    functional embeddings, in their standard deviations, and, for a share of the pairs, the query of any task in place of the home
    task's, under which a model's score is taken for the same: what makes a model good at home mostly makes it good elsewhere.
    """

    dim: int
    hidden: int
    steps: int
    lr: float
    weight_decay: float
    margin: float
    prediction_weight: float
    images_per_query: int
    functional_noise: float
    mismatched_share: float
    log_every: int


@dataclass(frozen=True)
class SpaceReport:
    """Metrics of the final space, and the curves of every logged step."""

    metrics: dict[str, Any]
    curve: Curve


def fit_space(data: SpaceData, recipe: SpaceRecipe, folds: int, seed: int) -> tuple[CrossModalSpace, SpaceReport]:
    """Train the space on all tasks, and beside it one space a fold of sources, to see how it does on unseen ones.

    Returns:
        The space of all tasks in eval mode; and the report: `heldout` (networks that training never saw, all tasks),
        `heldout_tasks` (whole sources that training never saw, mean over the folds), `insample`.
    """
    everything = tuple(range(len(data.tasks)))
    space, curve = _fit(data, everything, recipe, derive_seed(seed, "space"))
    fold_curves = []
    splits = source_folds(data.sources, folds)
    for number, unseen in enumerate(progress(splits, "folds of sources")):
        seen = tuple(task for task in everything if task not in unseen)
        fold_curves.append(_fit(data, seen, recipe, derive_seed(seed, "fold", number), unseen=unseen)[1])
    for index, row in enumerate(curve):
        for key in fold_curves[0][index] if fold_curves else ():
            if key.startswith("heldout_tasks."):
                row[key] = float(np.mean([fold[index][key] for fold in fold_curves]))
    metrics: dict[str, Any] = {"heldout": {}, "heldout_tasks": {}, "insample": {}, "loss": {}}
    for key, value in curve[-1].items():
        group, _, name = key.partition(".")
        if name:
            metrics[group][name] = value
    metrics["heldout"]["chance"] = metrics["heldout_tasks"]["chance"] = 1 / len(data.tasks)
    metrics["tasks"], metrics["models"] = len(data.tasks), len(data.home)
    metrics["heldout_models"], metrics["folds"] = int(data.heldout.sum()), len(splits)
    return space, SpaceReport(metrics, curve)


def source_folds(sources: Sequence[str], folds: int) -> list[tuple[int, ...]]:
    """Cut the tasks into folds of whole sources: fewer where sources are fewer, and none that leaves less than two tasks."""
    count = min(folds, len(set(sources)))
    if count < 2:
        return []
    tasks = np.arange(len(sources))
    cut = GroupKFold(count).split(tasks, groups=list(sources))
    return [tuple(int(task) for task in unseen) for seen, unseen in cut if len(seen) >= 2]


def _fit(
    data: SpaceData, seen: Sequence[int], recipe: SpaceRecipe, seed: int, unseen: Sequence[int] = ()
) -> tuple[CrossModalSpace, Curve]:
    quiet_lightning()
    torch.manual_seed(seed)
    features = torch.cat([data.train_features[task] for task in seen])
    space = CrossModalSpace(
        features.shape[1], data.topology.shape[1], data.functional.shape[1], recipe.dim, recipe.hidden
    )
    trained = torch.isin(data.home, torch.tensor(list(seen))) & ~data.heldout
    space.fit_scales(features, data.topology[trained], data.functional[trained])
    module = _SpaceModule(space, data, seen, recipe, seed)
    log = _Log(data, seen, unseen, recipe.log_every)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=recipe.steps,
        logger=False,
        callbacks=[log],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, DataLoader(_Steps(recipe.steps), batch_size=None))
    return space.cpu().eval(), log.curve


class _Steps(IterableDataset[int]):
    """One long epoch: Lightning's work between epochs costs more than a step."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


class _SpaceModule(pl.LightningModule):
    def __init__(
        self, space: CrossModalSpace, data: SpaceData, seen: Sequence[int], recipe: SpaceRecipe, seed: int
    ) -> None:
        super().__init__()
        self.space, self.data, self.recipe = space, data, recipe
        self.features = [data.train_features[task] for task in seen]
        self.members = [data.members(task, heldout=False) for task in seen]
        self.generator = torch.Generator().manual_seed(seed)
        # A column that never varies has a scale of 0, and gets no noise.
        scale = space.functional.scale
        self.deviation = torch.where(scale > 0, 1 / scale.clamp_min(1e-12), torch.zeros_like(scale))  # (E,)
        self.parts: dict[str, float] = {}

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        recipe, data = self.recipe, self.data
        chosen = torch.stack([members[self._draw(len(members), 1)[0]] for members in self.members])  # (D,)
        pictures = [features[self._draw(len(features), recipe.images_per_query)] for features in self.features]
        queries = self.space.encode_query(torch.stack(pictures).to(self.device))  # (D, n, F) -> (D, d)
        functional = data.functional[chosen]
        noise = torch.randn(functional.shape, generator=self.generator) * self.deviation
        models = self.space.encode_models(
            data.topology[chosen].to(self.device), (functional + recipe.functional_noise * noise).to(self.device)
        )  # (D, d)
        contrastive = contrastive_hinge(queries, models, recipe.margin)
        mismatched = torch.rand(len(chosen), generator=self.generator) < recipe.mismatched_share
        asked = torch.where(mismatched, self._draw(len(chosen), len(chosen)), torch.arange(len(chosen)))
        predicted = self.space.predict(queries[asked], models)
        prediction = F.mse_loss(predicted, data.score[chosen].to(self.device))
        self.parts = {"contrastive": float(contrastive.detach()), "prediction": float(prediction.detach())}
        return contrastive + recipe.prediction_weight * prediction

    def _draw(self, count: int, size: int) -> Tensor:
        return torch.randint(count, (size,), generator=self.generator)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.recipe.lr, weight_decay=self.recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.recipe.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Log(Callback):
    """Measures the space every few steps and at the last one."""

    def __init__(self, data: SpaceData, seen: Sequence[int], unseen: Sequence[int], every: int) -> None:
        self.data, self.seen, self.unseen, self.every = data, seen, unseen, every
        self.curve: Curve = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        assert isinstance(pl_module, _SpaceModule)
        row = {"step": float(step), "loss.contrastive": pl_module.parts["contrastive"]}
        row["loss.prediction"] = pl_module.parts["prediction"]
        groups = {"insample": (self.seen, False), "heldout": (self.seen, True)}
        if self.unseen:
            groups = {"heldout_tasks": (self.unseen, True)}
        for name, (queries, heldout) in groups.items():
            values = measure(pl_module.space, self.data, queries, (*self.seen, *self.unseen), heldout)
            row |= {f"{name}.{key}": value for key, value in values.items()}
        self.curve.append(row)


@torch.no_grad()
def measure(
    space: CrossModalSpace, data: SpaceData, queries: Sequence[int], candidates: Sequence[int], heldout: bool
) -> dict[str, float]:
    """Rank own networks among one network of each candidate task, and judge predictions inside each task.

    Queries are encoded from images that training does not see.

    Args:
        space: to be measured.
        data: all tasks and models.
        queries: tasks that ask.
        candidates: tasks whose models are ranked; holds the queries.
        heldout: whether the models are those that training never sees.

    Returns:
        `recall_at_1`, `recall_at_5`, `recall_at_10`, `mean_rank`, `spearman`, `mae`.
    """
    device = next(space.parameters()).device
    encoded_queries = torch.cat([space.encode_query(data.val_features[task][None].to(device)) for task in queries])
    encoded = space.encode_models(data.topology.to(device), data.functional.to(device))  # (M, d)
    members = [data.members(task, heldout) for task in candidates]
    own = [list(candidates).index(task) for task in queries]
    ranks = []
    for draw in range(max(len(m) for m in members)):
        batch = torch.stack([m[draw % len(m)] for m in members]).to(device)
        similarity = (encoded_queries @ encoded[batch].T).double().cpu().numpy()  # (Q, D)
        ranks.append(ranks_of_own(similarity, own))
    predicted, actual = [], []
    for query, column in zip(encoded_queries, own, strict=True):
        chosen = members[column]
        models = encoded[chosen.to(device)]
        predicted.append(space.predict(query.expand_as(models), models).double().cpu().numpy())
        actual.append(data.score[chosen].double().numpy())
    return recall_and_rank(np.stack(ranks)) | prediction_quality(predicted, actual)
