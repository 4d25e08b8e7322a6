"""A plain version of the published training of the space, with which `make bench-space` compares this project's.

Written from a description of the public code, not from the code. An item of its data set is one random network of a
task and the task's images. A DataLoader loads all items again in every epoch. All images of a task are encoded, then
averaged. After every epoch, a batch is embedded again and ranked. An epoch is one step over all tasks.

Axes: D tasks, n images of a task, F feature width, T topology width, E functional width, d space dimension.
"""

from __future__ import annotations

import random
import time
import warnings
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Item = tuple[Tensor, float, Tensor]
Batch = tuple[Tensor, Tensor, list[Tensor]]


class PlainTasks(Dataset[Item]):
    """Items: topology and functional embedding (T + E,) of one random network of a task, its accuracy, images (n, F).

    `rows` fixes the networks instead, one per task.
    """

    def __init__(self, zoo: dict[str, Any], queries: dict[str, Any], split: str, rows: list[int] | None = None) -> None:
        self.zoo, self.queries, self.split, self.rows = zoo, queries, split, rows
        self.names = list(queries)
        self.members: dict[str, list[int]] = {name: [] for name in self.names}
        for row, name in enumerate(zoo["dataset"]):
            self.members[name].append(row)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, task: int) -> Item:
        name = self.names[task]
        row = random.choice(self.members[name]) if self.rows is None else self.rows[task]
        topology = torch.tensor(self.zoo["topol"][row], dtype=torch.float32)
        # As one tensor: passed one by one between processes, the images of a batch need too many file descriptors.
        images = torch.stack(self.queries[name][f"x_query_{self.split}"])
        return torch.cat([topology, self.zoo["f_emb"][row]]), self.zoo["acc"][row], images


def collate(items: list[Item]) -> Batch:
    """Stack networks (D, T + E) and accuracies (D,). Images stay a list, since their number differs between tasks."""
    models, accuracies, images = zip(*items, strict=True)
    return torch.stack(models), torch.tensor(accuracies), list(images)


class PlainSpace(nn.Module):
    """The published encoders and predictor; the layers are named as in `PaperSpace`."""

    def __init__(self, feature_dim: int, model_dim: int, dim: int = 128) -> None:
        super().__init__()
        self.query_encoder = nn.Linear(feature_dim, dim)
        self.model_encoder = nn.Linear(model_dim, dim)
        self.predictor = nn.Linear(2 * dim, 1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return queries (D, d), models (D, d), predicted and true accuracies (D,)."""
        networks, accuracies, images = batch
        queries = torch.stack([self.query_encoder(of_task).mean(dim=0) for of_task in images])
        queries = F.normalize(queries, dim=1)
        models = F.normalize(self.model_encoder(F.normalize(networks, dim=1)), dim=1)
        predicted = torch.sigmoid(self.predictor(torch.cat([queries, models], dim=1)))[:, 0]
        return queries, models, predicted, accuracies


def plain_loss(outputs: tuple[Tensor, Tensor, Tensor, Tensor], margin: float = 0.2) -> Tensor:
    """Return the sum of the hinge losses in both directions and the mean squared error."""
    queries, models, predicted, accuracies = outputs
    scores = models @ queries.t()
    own = scores.diag().view(-1, 1)
    crossed = scores * (1 - torch.eye(len(scores)))
    by_query = torch.clamp(margin + crossed - own.t().expand_as(scores), min=0)
    by_model = torch.clamp(margin + crossed - own.expand_as(scores), min=0)
    return by_query.sum() + by_model.sum() + F.mse_loss(predicted, accuracies)


class PlainTraining:
    """Training and evaluation by epochs, with `workers` loading processes and a DataLoader's default settings."""

    def __init__(self, zoo: dict[str, Any], queries: dict[str, Any], workers: int, seed: int = 0) -> None:
        # Four processes are compared, even if there are fewer cores.
        warnings.filterwarnings("ignore", message=".*suggested max number of worker.*")
        random.seed(seed)
        torch.manual_seed(seed)
        self.loaders = {
            split: DataLoader(
                PlainTasks(zoo, queries, split),
                batch_size=len(queries),
                shuffle=split == "train",
                num_workers=workers,
                collate_fn=collate,
            )
            for split in ("train", "test")
        }
        features = next(iter(queries.values()))["x_query_train"][0]
        self.space = PlainSpace(len(features), len(zoo["topol"][0]) + len(zoo["f_emb"][0]))
        self.optimizer = torch.optim.Adam(self.space.parameters(), lr=1e-2)

    def epochs(self, count: int) -> float:
        """Train and evaluate; return the seconds."""
        start = time.perf_counter()
        for _ in range(count):
            self._train()
            self._evaluate()
        return time.perf_counter() - start

    def _train(self) -> None:
        self.space.train()
        for batch in self.loaders["train"]:
            self.optimizer.zero_grad()
            loss = plain_loss(self.space(batch))
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        self.space.eval()
        parts = [self.space(batch) for batch in self.loaders["test"]]
        queries, models, predicted, accuracies = (torch.cat(part) for part in zip(*parts, strict=True))
        order = (queries @ models.t()).argsort(dim=1, descending=True)
        ranks = 1 + (order == torch.arange(len(order))[:, None]).float().argmax(dim=1)
        recalls = {f"recall_at_{k}": float((ranks <= k).float().mean()) for k in (1, 5, 10, 50)}
        error = float(F.mse_loss(predicted, accuracies))
        return recalls | {"mean_rank": float(ranks.float().mean()), "median_rank": float(ranks.median()), "mse": error}
