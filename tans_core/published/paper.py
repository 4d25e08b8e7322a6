"""The space exactly as published (TANS, Jeong et al. 2021), as a baseline for ours, fitted on a zoo in memory.

Axes: D tasks, M models, n images of a task, F feature width, T topology width, E functional width, d space dimension.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.io import code_digest, sha256_bytes, write_json
from tans_core.published.fit import PublishedData, quality
from tans_core.runtime import derive_seed
from tans_core.space.quality import ranks_of_own, recall, rounds_of_one
from tans_core.space.training import Curve, Precision, step_generator, train_steps
from tans_core.zoo.weights import save_tensors


class PaperSpace(nn.Module):
    """The published encoders and predictor: linear, over raw inputs, without an interaction of query and model.

    Its limits are kept: all queries give the same order of networks, and the longer embedding dominates the other.
    """

    def __init__(self, feature_dim: int, topology_dim: int, functional_dim: int, dim: int = 128) -> None:
        super().__init__()
        names = ("feature_dim", "topology_dim", "functional_dim", "dim")
        self.dims = dict(zip(names, (feature_dim, topology_dim, functional_dim, dim), strict=True))
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

    def encode_query(self, pooled: Tensor) -> Tensor:
        """Encode tasks by mean image features (mean and linear layer commute): (D, F) to unit rows (D, d)."""
        return F.normalize(self.query_encoder(pooled), dim=-1)

    def encode_models(self, inputs: Tensor) -> Tensor:
        """Encode models by their `model_inputs`: (M, T + E) float32 to (M, d), rows of unit norm."""
        return F.normalize(self.model_encoder(inputs), dim=-1)

    def predict(self, queries: Tensor, models: Tensor) -> Tensor:
        """Predict accuracies in (0, 1): encoded queries and models (..., d), of the same shape, to (...,)."""
        return torch.sigmoid(self.predictor(torch.cat([queries, models], dim=-1))[..., 0])

    def save(self, folder: Path, description: dict[str, Any]) -> None:
        """Write `space.safetensors` and `space.json`; the latter also holds `description`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(dict(self.state_dict()), folder / "space.safetensors")
        write_json({**description, "objective": "paper", "dims": self.dims}, folder / "space.json")


def model_inputs(topology: Tensor, functional: Tensor) -> Tensor:
    """Concatenate the two embeddings of models for the encoder: l2([t || f]), (M, T + E) float32."""
    return F.normalize(torch.cat([topology, functional], dim=-1), dim=-1)


def pool(features: Sequence[Tensor]) -> Tensor:
    """Average the images of each task: D tensors (n, F) to (D, F)."""
    return torch.stack([images.mean(0) for images in features])


def paper_loss(
    queries: Tensor, models: Tensor, predicted: Tensor, accuracy: Tensor, margin: float = 0.2, weight: float = 1
) -> Tensor:
    """The published loss: a sum of hinges in both directions over one network a task, and the predictor's error.

    With S = models queries^T, s its diagonal and Z = S with a zero diagonal: the sum over i, j of
    max(0, Z_ij + margin - s_j) and max(0, Z_ij + margin - s_i), thousands at first; i = j requires s_i >= margin.

    Queries and models are (D, d), unit rows, row i of task i; accuracies (D,) in [0, 1], not percent, as a sigmoid
    predicts them. The error has weight 1 as published, far less than the sum of the hinges.
    """
    similarity = models @ queries.T  # (D, D), rows models, columns queries
    own = similarity.diagonal()
    crossed = similarity - torch.diag(own)
    # In the backward pass relu is one kernel, clamp_min four.
    by_query = F.relu(crossed + (margin - own)[None, :]).sum()
    by_model = F.relu(crossed + (margin - own)[:, None]).sum()
    return by_query + by_model + weight * F.mse_loss(predicted, accuracy)


@dataclass(frozen=True)
class PaperRecipe:
    """How the published space is trained: Adam at a constant rate, with one random network of every task a step."""

    steps: int = 1000
    dim: int = 128
    lr: float = 1e-2
    margin: float = 0.2
    prediction_weight: float = 1.0  # as published; with 100 the predictor learns
    eval_every: int = 0  # steps; 0 keeps no curve
    precision: Precision = "fp32"


def fit_paper(
    data: PublishedData, heldout: Tensor, recipe: PaperRecipe, seed: int, resume: Path | None = None, device: str = ""
) -> tuple[PaperSpace, Curve]:
    """Train the published space. A killed run resumes from the folder `resume`.

    `heldout` is (M,) bool, networks that training never sees; `device` is `cpu` or `cuda`, by default the best here.

    Returns:
        The space on the CPU in eval mode; and the curve: every `eval_every` steps the published evaluation, `recall`
        and `mse`, on one network a task, drawn at random from those that training sees.

    Raises:
        TansError: a task has no network to train on (StoreError), or the loss is no longer finite.
    """
    objective = _Objective(data, heldout, recipe, seed)
    curve = train_steps(
        objective,
        objective.step_loss,
        # One kernel for all weights: without `fused`, Adam takes longer than the rest of the step.
        partial(torch.optim.Adam, lr=recipe.lr, fused=True),
        recipe.steps,
        every=recipe.eval_every,
        on_step=objective.evaluate,
        resume_folder=resume,
        fingerprint=objective.fingerprint() if resume else "",
        precision=recipe.precision,
        device=device or "auto",
        description="published space",
    )
    return objective.space, curve


@torch.no_grad()
def measure_paper(space: PaperSpace, data: PublishedData, heldout: Tensor) -> dict[str, dict[str, float]]:
    """Measure a space on every network: the result of `quality`, and the `mse` of each group's predictions."""
    queries = space.encode_query(pool(data.val_features))
    models = space.encode_models(model_inputs(data.topology, data.functional))
    predicted = space.predict(queries[data.home], models)
    measured = quality(queries @ models.T, predicted, data.accuracy, data.home, heldout)
    for group, rows in (("insample", ~heldout), ("heldout", heldout)):
        if measured[group]:
            measured[group]["mse"] = float(F.mse_loss(predicted[rows], data.accuracy[rows]))
    return measured


class _Objective(nn.Module):
    """The space and the data of a step, on one device; only the space is trained and checkpointed."""

    def __init__(self, data: PublishedData, heldout: Tensor, recipe: PaperRecipe, seed: int) -> None:
        super().__init__()
        self.recipe, self.seed = recipe, seed
        self.next_batch: dict[int, tuple[Tensor, Tensor]] = {}
        buffers = {
            "pooled_train": pool(data.train_features),  # (D, F)
            "pooled_test": pool(data.val_features),  # (D, F)
            "inputs": model_inputs(data.topology, data.functional),  # (M, T + E)
            "accuracy": data.accuracy,
            "rounds": rounds_of_one(data.home, ~heldout, len(data.train_features)),  # (R, D)
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)
        self.counts = torch.bincount(data.home[~heldout], minlength=len(data.train_features))
        dims = buffers["pooled_train"].shape[1], data.topology.shape[1], data.functional.shape[1], recipe.dim
        self.space = PaperSpace(*dims).initialise(torch.Generator().manual_seed(derive_seed(seed, "weights")))

    def fingerprint(self) -> str:
        """Return a hash of all inputs of the training."""
        code = code_digest(sorted(Path(__file__).parent.glob("*.py")))
        made_from = json.dumps([asdict(self.recipe), self.seed, code, [list(value.shape) for value in self.buffers()]])
        return sha256_bytes(made_from.encode() + b"".join(value.numpy().tobytes() for value in self.buffers()))

    def draw(self, step: int) -> Tensor:
        """Return (D,) int64, one network of each task."""
        share = torch.rand(len(self.counts), dtype=torch.float64, generator=step_generator(self.seed, step))
        rounds: Tensor = self.get_buffer("rounds")
        rows = (share * self.counts).long().to(rounds.device)
        return rounds.gather(0, rows[None])[0]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the step's networks (D, d), encoded, and their accuracies (D,)."""
        chosen = self.draw(step)
        # `index_select` copies whole rows; indexing by [chosen] copies element by element.
        inputs = self.get_buffer("inputs").index_select(0, chosen)
        return self.space.encode_models(inputs), self.get_buffer("accuracy").index_select(0, chosen)

    def step_loss(self, step: int) -> Tensor:
        encoded, self.next_batch = self.next_batch.pop(step, None), {}
        models, actual = encoded or self.batch(step)
        queries = self.space.encode_query(self.get_buffer("pooled_train"))
        predicted = self.space.predict(queries, models)
        return paper_loss(queries, models, predicted, actual, self.recipe.margin, self.recipe.prediction_weight)

    def evaluate(self, done: int) -> dict[str, float]:
        # On the next step's networks: that step needs them encoded by the same weights.
        models, actual = self.batch(done)
        if self.recipe.precision == "fp32":
            self.next_batch = {done: (models, actual)}
        with torch.no_grad():
            queries = self.space.encode_query(self.get_buffer("pooled_test"))
            error = F.mse_loss(self.space.predict(queries, models), actual)
            return recall(ranks_of_own(queries @ models.T)) | {"mse": float(error)}
