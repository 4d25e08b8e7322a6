"""The cross-modal space: query encoder, model encoder, performance predictor.

Axes: Q queries, M models, n images of a query, F feature width, T topology width, E functional width, d space dimension.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.errors import StoreError
from tans_core.io import read_json, sha256_file, write_json
from tans_core.zoo.weights import load_state, load_tensors, save_tensors


class CrossModalSpace(nn.Module):
    """Puts tasks and models on one unit sphere, a task near the models that do well on it, and predicts how well.

    The encoders are linear as in TANS, over standardised inputs: the published form lets whichever of topology and functional
    embedding has the larger norm drown the other. The predictor sees the product of query and model besides both, since
    without an interaction it would order the zoo alike for every query.
    """

    def __init__(self, feature_dim: int, topology_dim: int, functional_dim: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.dims = {
            "feature_dim": feature_dim,
            "topology_dim": topology_dim,
            "functional_dim": functional_dim,
            "dim": dim,
            "hidden": hidden,
        }
        self.features = _Standardise(feature_dim)
        self.functional = _Standardise(functional_dim)
        self.topology = _Standardise(topology_dim)
        self.query_encoder = nn.Linear(2 * feature_dim, dim)
        self.model_encoder = nn.Linear(topology_dim + functional_dim, dim)
        self.predictor = nn.Sequential(nn.Linear(3 * dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def fit_scales(self, features: Tensor, topology: Tensor, functional: Tensor) -> None:
        """Set the standardisation from what the space is trained on: (n, F), (M, T) and (M, E)."""
        self.features.fit(features)
        self.topology.fit(topology)
        self.functional.fit(functional)

    def encode_query(self, features: Tensor) -> Tensor:
        """Encode tasks by the mean and spread of their image features.

        Args:
            features: (Q, n, F) float32, n at least 1.

        Returns:
            (Q, d) float32, rows of unit norm.
        """
        scaled = self.features(features)
        pooled = torch.cat([scaled.mean(dim=1), scaled.std(dim=1, correction=0)], dim=1)  # (Q, 2 F)
        return F.normalize(self.query_encoder(pooled), dim=1)

    def encode_models(self, topology: Tensor, functional: Tensor) -> Tensor:
        """Encode models: topology (M, T) and functional (M, E) float32 to (M, d), rows of unit norm."""
        # Each part counts the same whatever its width.
        parts = [
            self.topology(topology) / topology.shape[1] ** 0.5,
            self.functional(functional) / functional.shape[1] ** 0.5,
        ]
        return F.normalize(self.model_encoder(torch.cat(parts, dim=1)), dim=1)

    def predict(self, queries: Tensor, models: Tensor) -> Tensor:
        """Predict how well models do on tasks, in deviations of a task's models around their mean.

        Args:
            queries: (..., d) encoded.
            models: (..., d) encoded, of the same shape.

        Returns:
            (...,) float32.
        """
        score: Tensor = self.predictor(torch.cat([queries, models, queries * models], dim=-1))[..., 0]
        return score

    def save(self, folder: Path, description: dict[str, Any]) -> None:
        """Write `space.safetensors` and `space.json`; the latter also holds `description`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(dict(self.state_dict()), folder / "space.safetensors")
        write_json({**description, "dims": self.dims}, folder / "space.json")

    @classmethod
    def load(cls, folder: Path) -> CrossModalSpace:
        """Read what `save` wrote, in eval mode.

        Raises:
            StoreError: `space.json` is missing.
            WeightsError: the weights are missing, damaged or of another shape.
        """
        path = folder / "space.json"
        if not path.is_file():
            raise StoreError(f"{path}: no such file. Run `dvc repro space`.")
        space = cls(**read_json(path)["dims"])
        load_state(space, load_tensors(folder / "space.safetensors"), str(folder / "space.safetensors"))
        return space.eval()


class _Standardise(nn.Module):
    """Zero mean and unit deviation a column, as seen in training."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, values: Tensor) -> None:
        self.mean.copy_(values.mean(dim=0))
        deviation = values.std(dim=0, correction=0)
        # A column that never varied in training tells nothing: it stays at zero whatever comes later.
        self.scale.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), torch.zeros_like(deviation)))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) * self.scale


def space_digest(folder: Path) -> str:
    """Return what names a space: the SHA-256 of its weights."""
    path = folder / "space.safetensors"
    if not path.is_file():
        raise StoreError(f"{path}: no such file. Run `dvc repro space`.")
    return sha256_file(path)


@torch.no_grad()
def embed_in_space(
    space: CrossModalSpace, topology: npt.NDArray[np.float32], functional: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Encode models, topology (M, T) and functional (M, E), to (M, d) float32, rows of unit norm."""
    encoded: npt.NDArray[np.float32] = space.encode_models(
        torch.from_numpy(topology), torch.from_numpy(functional)
    ).numpy()
    return encoded
