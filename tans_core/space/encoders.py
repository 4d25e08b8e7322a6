"""The cross-modal space of the `tans` objective: query encoder, model encoder, and a predictor of three parts.

Axes: Q queries, M models, S width of a query's statistics, T topology width, E functional width, d space dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.errors import StoreError
from tans_core.io import read_json, sha256_file, write_json
from tans_core.networks.family import load_state
from tans_core.space.prior import TrialPrior
from tans_core.zoo.weights import load_tensors, save_tensors

Floats = npt.NDArray[np.float32]
_REACH, _STEEPNESS = 1.5, 8
"""Parameters of trust, chosen on held-out sources: reaches of 1.2 to 2.2 and steepnesses of 4 and 8 differ little."""
_PRIOR_SCALE = 3.0
"""Factor on the outputs of the linear parts, so that their weights learn as fast as the encoders'."""


class CrossModalSpace(nn.Module):
    """Encodes tasks and models on one unit sphere, tasks near the models that do well on them, and predicts how well.

    A predicted score has three parts: the model's **capacity** (from its topology), how good a **start** its weights
    are in general (from its functional embedding), and how well they **fit** the task: the cosine of task and model,
    times a learned scale. Capacity and start are the same for every task, and are stored beside the model's vector.

    The fit was learned from the training tasks, and is unreliable on a data set far from all of them. **Trust**, which
    falls with the distance to the nearest training task, weights it; capacity and start keep their full weight.

    The encoders are linear as in TANS, over standardised inputs: in the published form, topology or functional
    embedding, whichever has the larger norm, dominates the other. Only the cosine makes the order depend on the query.
    """

    objective = "tans"

    seen: Tensor
    apart: Tensor

    def __init__(
        self, query_dim: int, topology_dim: int, functional_dim: int, dim: int, tasks: int, known: int = 0
    ) -> None:
        super().__init__()
        self.dims = {
            "tasks": tasks,
            "query_dim": query_dim,
            "topology_dim": topology_dim,
            "functional_dim": functional_dim,
            "dim": dim,
            "known": known,
        }
        self.queries = Standardise(query_dim)
        self.functional = Standardise(functional_dim)
        self.topology = Standardise(topology_dim)
        self.query_encoder = nn.Linear(query_dim, dim)
        self.model_encoder = nn.Linear(topology_dim + functional_dim, dim)
        self.prior = Prior(topology_dim, functional_dim)
        self.tried = TrialPrior(known, topology_dim, functional_dim)
        self.fit_scale = nn.Parameter(torch.tensor(_PRIOR_SCALE))
        self.register_buffer("seen", torch.zeros(tasks, query_dim))
        self.register_buffer("apart", torch.ones(()))

    def fit_scales(self, statistics: Tensor, topology: Tensor, functional: Tensor) -> None:
        """Set standardisation and distance scale from the training data: (tasks, S), (M, T), (M, E)."""
        self.queries.fit(statistics)
        self.seen.copy_(self.queries(statistics))
        between = torch.cdist(self.seen, self.seen).fill_diagonal_(float("inf"))
        self.apart.copy_(between.min(dim=1).values.median().clamp_min(1e-6))
        self.topology.fit(topology)
        self.functional.fit(functional)

    def encode_query(self, statistics: Tensor) -> Tensor:
        """Encode tasks by their image statistics (`query_statistics`): (Q, S) to (Q, d), rows of unit norm."""
        scaled = self.queries(statistics) / statistics.shape[-1] ** 0.5
        return F.normalize(self.query_encoder(scaled), dim=-1)

    def encode_models(self, topology: Tensor, functional: Tensor) -> Tensor:
        """Encode models: topology (M, T) and functional (M, E) float32 to (M, d), rows of unit norm."""
        return F.normalize(self.model_encoder(torch.cat(self.scaled(topology, functional), dim=-1)), dim=-1)

    def parts(self, topology: Tensor, functional: Tensor) -> tuple[Tensor, Tensor]:
        """Return capacity and start of models, (M,) each, in standard deviations around a task's mean model."""
        inputs = self.scaled(topology, functional)
        (capacity, start), (trial_capacity, trial_start) = self.prior(*inputs), self.tried(*inputs)
        return capacity + trial_capacity, start + trial_start

    @torch.no_grad()
    def weigh_fit(self, worth: float) -> None:
        """Multiply the scale of the fit by a share."""
        self.fit_scale.mul_(worth)

    def trust(self, statistics: Tensor) -> Tensor:
        """Return how far the fit can be trusted for tasks, (Q, S) to (Q,) in 0..1.

        One half where the nearest training task is `_REACH` times as far as training tasks lie from their nearest.
        """
        nearest = torch.cdist(self.queries(statistics), self.seen).min(dim=1).values
        return 1 / (1 + (nearest / (_REACH * self.apart)) ** _STEEPNESS)

    def predict(
        self, queries: Tensor, models: Tensor, capacity: Tensor, start: Tensor, trust: Tensor | float = 1.0
    ) -> Tensor:
        """Predict how well models do on tasks, in standard deviations around a task's mean model.

        Args:
            queries: (..., d) encoded.
            models: (..., d) encoded, of the same shape.
            capacity: (...,) of the models.
            start: (...,) of the models.
            trust: (...,) of the queries; 1 for training tasks.

        Returns:
            (...,) float32.
        """
        return capacity + start + self.fit_weight(trust) * (queries * models).sum(dim=-1)

    def fit_weight(self, trust: Tensor | float) -> Tensor:
        """Return the weight of the cosine of query and model in a score, for the trust of the query."""
        return trust * self.fit_scale

    def scaled(self, topology: Tensor, functional: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise the inputs of the model encoder, (M, T) and (M, E)."""
        # Divided by the root of the width, so that both parts have equal weight.
        return (
            self.topology(topology) / topology.shape[-1] ** 0.5,
            self.functional(functional) / functional.shape[-1] ** 0.5,
        )

    def save(self, folder: Path, description: dict[str, Any]) -> None:
        """Write `space.safetensors` and `space.json`; the latter also holds `description`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(dict(self.state_dict()), folder / "space.safetensors")
        write_json({**description, "objective": self.objective, "dims": self.dims}, folder / "space.json")

    @classmethod
    def load(cls, folder: Path) -> CrossModalSpace:
        """Read what `save` wrote, in eval mode.

        Raises:
            StoreError: `space.json` is missing, or is of another objective or version.
            WeightsError: the weights are missing, damaged or of another shape.
        """
        path = folder / "space.json"
        if not path.is_file():
            raise StoreError(f"{path}: no such file. Run `tans build space`.")
        description = read_json(path)
        if description.get("objective") != cls.objective:
            raise StoreError(
                f"{path}: got objective {description.get('objective')!r}, want {cls.objective!r}. "
                "Run `tans build space` and publish again."
            )
        space = cls(**description["dims"])
        load_state(space, load_tensors(folder / "space.safetensors"), str(folder / "space.safetensors"))
        return space.eval()


class Prior(nn.Module):
    """Linear capacity and start of a model, the same for every task; zero before training."""

    def __init__(self, topology_dim: int, functional_dim: int) -> None:
        super().__init__()
        self.capacity = nn.Linear(topology_dim, 1)
        self.start = nn.Linear(functional_dim, 1, bias=False)
        for values in (self.capacity.weight, self.capacity.bias, self.start.weight):
            nn.init.zeros_(values)

    def forward(self, topology: Tensor, functional: Tensor) -> tuple[Tensor, Tensor]:
        """Map standardised topology (M, T) and functional embeddings (M, E) to capacity and start, (M,) each."""
        return _PRIOR_SCALE * self.capacity(topology)[..., 0], _PRIOR_SCALE * self.start(functional)[..., 0]


class Standardise(nn.Module):
    """Scales each column to the training data's zero mean and unit deviation."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, values: Tensor) -> None:
        self.mean.copy_(values.mean(dim=0))
        deviation = values.std(dim=0, correction=0)
        # A column that is constant in training carries no information: it is zero for all later inputs.
        self.scale.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), torch.zeros_like(deviation)))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) * self.scale


def space_digest(folder: Path) -> str:
    """Return the SHA-256 of a space's weights, which identifies it."""
    path = folder / "space.safetensors"
    if not path.is_file():
        raise StoreError(f"{path}: no such file. Run `tans build space`.")
    return sha256_file(path)


@dataclass(frozen=True)
class Places:
    """Vectors of models in a space, with their task-independent scores.

    Attributes:
        vectors: (M, d) float32, rows of unit norm.
        capacity: (M,) float32, the score of their topology on any task.
        start: (M,) float32, the score of their weights on any task.
    """

    vectors: Floats
    capacity: Floats
    start: Floats


@torch.no_grad()
def embed_in_space(space: CrossModalSpace, topology: Floats, functional: Floats) -> Places:
    """Encode models by their topology (M, T) and functional embeddings (M, E), in the order of the rows."""
    inputs = torch.from_numpy(topology), torch.from_numpy(functional)
    capacity, start = space.parts(*inputs)
    return Places(space.encode_models(*inputs).numpy(), capacity.numpy(), start.numpy())
