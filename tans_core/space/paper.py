"""The space exactly as published (TANS, Jeong et al. 2021): what ours is held against.

Axes: D tasks, one model each; Q queries, M models, n images of a query, F feature width, T topology width, E functional width,
d space dimension.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.errors import StoreError
from tans_core.io import read_json, write_json
from tans_core.networks.family import load_state
from tans_core.zoo.weights import load_tensors, save_tensors


class PaperSpace(nn.Module):
    """The published encoders and predictor: linear, over raw inputs, without an interaction of query and model.

    Known limits, kept on purpose: the predictor orders networks alike for every query, and whichever of topology and functional
    embedding has the larger norm drowns the other.
    """

    def __init__(self, feature_dim: int, topology_dim: int, functional_dim: int, dim: int = 128) -> None:
        super().__init__()
        self.dims = {
            "feature_dim": feature_dim,
            "topology_dim": topology_dim,
            "functional_dim": functional_dim,
            "dim": dim,
        }
        self.query_encoder = nn.Linear(feature_dim, dim)
        self.model_encoder = nn.Linear(topology_dim + functional_dim, dim)
        self.predictor = nn.Linear(2 * dim, 1)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> PaperSpace:
        """Draw the weights as `nn.Linear` does, uniformly within 1 / sqrt(inputs), but from a generator on the CPU."""
        for layer in (self.query_encoder, self.model_encoder, self.predictor):
            bound = layer.in_features**-0.5
            for values in (layer.weight, layer.bias):
                values.copy_(torch.empty(values.shape).uniform_(-bound, bound, generator=generator))
        return self

    def encode_query(self, features: Tensor) -> Tensor:
        """Encode tasks by their image features: (Q, n, F) float32 to (Q, d), rows of unit norm."""
        return self.encode_pooled(features.mean(dim=1))

    def encode_pooled(self, pooled: Tensor) -> Tensor:
        """Encode tasks by the mean of their image features: (Q, F) float32 to (Q, d), rows of unit norm.

        The published code encodes each image and takes the mean; a linear layer and a mean commute.
        """
        return F.normalize(self.query_encoder(pooled), dim=-1)

    def encode_models(self, topology: Tensor, functional: Tensor) -> Tensor:
        """Encode models: topology (M, T) and functional (M, E) float32 to (M, d), rows of unit norm."""
        return self.encode_inputs(model_inputs(topology, functional))

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Encode models by what `model_inputs` makes of them, once: (M, T + E) float32 to (M, d), rows of unit norm."""
        return F.normalize(self.model_encoder(inputs), dim=-1)

    def predict(self, queries: Tensor, models: Tensor) -> Tensor:
        """Predict accuracies in (0, 1): encoded queries and models (..., d), of the same shape, to (...,)."""
        predicted: Tensor = torch.sigmoid(self.predictor(torch.cat([queries, models], dim=-1))[..., 0])
        return predicted

    def save(self, folder: Path, description: dict[str, Any]) -> None:
        """Write `space.safetensors` and `space.json`; the latter also holds `description`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(dict(self.state_dict()), folder / "space.safetensors")
        write_json({**description, "objective": "paper", "dims": self.dims}, folder / "space.json")

    @classmethod
    def load(cls, folder: Path) -> PaperSpace:
        """Read what `save` wrote, in eval mode.

        Raises:
            StoreError: `space.json` is missing, or of another objective.
            WeightsError: the weights are missing, damaged or of another shape.
        """
        path = folder / "space.json"
        told = read_json(path) if path.is_file() else {}
        if told.get("objective") != "paper":
            raise StoreError(
                f"{path}: holds no space of the published objective. Run `tans space fit --objective paper`."
            )
        space = cls(**told["dims"])
        load_state(space, load_tensors(folder / "space.safetensors"), str(folder / "space.safetensors"))
        return space.eval()


def model_inputs(topology: Tensor, functional: Tensor) -> Tensor:
    """Put the two embeddings of models side by side, as the encoder takes them: l2([t || f]), (M, T + E) float32."""
    return F.normalize(torch.cat([topology, functional], dim=-1), dim=-1)


def contrastive_sum(queries: Tensor, models: Tensor, margin: float = 0.2) -> Tensor:
    """The published contrastive loss: hinges over a batch of one network a task, both ways round, summed.

    With S = models queries^T, s its diagonal and Z = S with a zero diagonal: the sum over i, j of max(0, Z_ij + margin - s_j)
    and of max(0, Z_ij + margin - s_i). The diagonal takes part, and asks for s_i >= margin.

    Args:
        queries: (D, d), unit rows.
        models: (D, d), unit rows; row i is a model of task i.
        margin: by which a task's own model must be nearer than another task's.

    Returns:
        A scalar, at least 0; some thousands before training.
    """
    similarity = models @ queries.T  # (D, D), rows models, columns queries
    own = similarity.diagonal()
    crossed = similarity - torch.diag(own)
    # On the way back relu is one kernel, clamp_min four.
    by_query = F.relu(crossed + (margin - own)[None, :]).sum()
    by_model = F.relu(crossed + (margin - own)[:, None]).sum()
    return by_query + by_model


def paper_loss(
    queries: Tensor,
    models: Tensor,
    predicted: Tensor,
    accuracy: Tensor,
    margin: float = 0.2,
    prediction_weight: float = 1.0,
) -> Tensor:
    """The published loss: `contrastive_sum` and the mean squared error of the predicted accuracies.

    Args:
        queries: (D, d), unit rows.
        models: (D, d), unit rows; row i is a model of task i.
        predicted: (D,) in (0, 1).
        accuracy: (D,) in [0, 1]; percent would leave the sigmoid no answer.
        margin: of the hinges.
        prediction_weight: of the error; 1 as published, which the sum of the hinges starves.

    Returns:
        A scalar.
    """
    return contrastive_sum(queries, models, margin) + prediction_weight * F.mse_loss(predicted, accuracy)
