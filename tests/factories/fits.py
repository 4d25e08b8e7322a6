"""Small fits with a known answer: random targets for many short steps, and a zoo for the published space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save
from torch import Tensor, nn

from tans_core.published.fit import PublishedData
from tans_core.space.training import step_generator

TASKS, NETWORKS, LATENT = 12, 10, 6


class StoppedError(Exception):
    """The exception that ends a run half-way in tests."""


def stopping(step_loss: Callable[[Any, int], Tensor], at: int) -> Callable[[Any, int], Tensor]:
    """Return an objective's loss that ends the run before a step."""

    def killed(objective: nn.Module, step: int) -> Tensor:
        if step == at:
            raise StoppedError
        return step_loss(objective, step)

    return killed


class Line(nn.Module):
    """Fits random targets; can stop before a given step."""

    def __init__(self, seed: int = 0, stop_at: int = -1) -> None:
        super().__init__()
        self.seed, self.stop_at = seed, stop_at
        self.layer = nn.Linear(8, 3)
        with torch.no_grad():
            for values in self.layer.parameters():
                values.copy_(torch.randn(values.shape, generator=step_generator(seed, 0, "weights")))
        self.taken: list[int] = []

    def step_loss(self, step: int) -> Tensor:
        if step == self.stop_at:
            raise StoppedError
        self.taken.append(step)
        generator = step_generator(self.seed, step)
        inputs, targets = torch.randn(16, 8, generator=generator), torch.randn(16, 3, generator=generator)
        place = self.layer.weight.device
        return F.mse_loss(self.layer(inputs.to(place)), targets.to(place))

    def measure(self, step: int) -> dict[str, float]:
        self.eval()
        return {"norm": float(self.layer.weight.detach().norm())}

    def bytes(self) -> bytes:
        return save(dict(self.state_dict()))


class Zoo:
    """Tasks and networks share a latent; accuracy follows one column of the topology."""

    def __init__(self, ragged: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        latent, to_features, to_functional = normal(TASKS, LATENT), normal(LATENT, 20), normal(LATENT, 30)
        self.home = torch.arange(TASKS).repeat_interleave(NETWORKS)
        if ragged:
            kept = torch.rand(len(self.home), generator=generator) < 0.6
            kept[::NETWORKS] = kept[1::NETWORKS] = True
            self.home = self.home[kept][torch.randperm(int(kept.sum()), generator=generator)]
        count = len(self.home)
        pooled = latent @ to_features
        self.pooled_train = pooled + 0.1 * normal(TASKS, 20)
        self.pooled_test = pooled + 0.1 * normal(TASKS, 20)
        self.topology = torch.randint(3, 8, (count, 9), generator=generator).float()
        self.functional = 3 * (latent @ to_functional)[self.home] + normal(count, 30)
        self.accuracy = torch.sigmoid(self.topology[:, 0] - 5 + 0.1 * normal(count))

    @property
    def data(self) -> PublishedData:
        """Training data of the published space. Each task has one image, which is the mean."""
        names, count = tuple(f"task-{number}" for number in range(TASKS)), len(self.home)
        networks = (self.topology, self.functional, self.accuracy, torch.ones(count), self.home)
        queries = (tuple(pooled[:, None].unbind()) for pooled in (self.pooled_train, self.pooled_test))
        return PublishedData(names, names, *networks, *queries)

    @property
    def none_held_out(self) -> Tensor:
        return torch.zeros(len(self.home), dtype=torch.bool)
