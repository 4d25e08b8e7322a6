"""Fitting the published space on a zoo that lies in memory, at full speed.

Axes: D tasks, M networks, F feature width, T topology width, E functional width, d space dimension.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tans_core.runtime import derive_seed
from tans_core.space.paper import PaperSpace, model_inputs, paper_loss
from tans_core.space.quality import heldout_quality, ranks_of_own, recall, retrieval_quality, rounds_of_one
from tans_core.space.training import Curve, Precision, step_generator, train_steps


@dataclass(frozen=True)
class PaperRecipe:
    """How the published space is trained: Adam at a constant rate, each step one random network of every task.

    `prediction_weight` is 1 as published; 100 lets the predictor learn. `eval_every` 0 keeps no curve.
    """

    steps: int = 1000
    dim: int = 128
    lr: float = 1e-2
    margin: float = 0.2
    prediction_weight: float = 1.0
    eval_every: int = 0
    precision: Precision = "fp32"


def fit_paper(
    pooled_train: Tensor,
    pooled_test: Tensor,
    topology: Tensor,
    functional: Tensor,
    accuracy: Tensor,
    home: Tensor,
    *,
    recipe: PaperRecipe,
    seed: int,
    heldout: Tensor | None = None,
    resume_folder: Path | None = None,
    device: str = "auto",
) -> tuple[PaperSpace, Curve]:
    """Train the published space; a run that was killed goes on from `resume_folder`.

    Args:
        pooled_train: (D, F) float32, means of the image features that training asks with.
        pooled_test: (D, F) float32, means of those that the evaluation asks with.
        topology: (M, T) float32.
        functional: (M, E) float32.
        accuracy: (M,) float32 in [0, 1].
        home: (M,) int64 in [0, D); every task has a network that is not held out.
        recipe: how.
        seed: of the weights and of each step's networks.
        heldout: (M,) bool, networks that training never sees; None holds none out.
        resume_folder: where the checkpoint is kept while it runs; None keeps none.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The space on the CPU in eval mode; and the curve: every `eval_every` steps what the published evaluation says of one
        network a task, drawn at random from those that training sees: `recall_at_1`, `recall_at_5`, `recall_at_10`, `mean_rank`,
        `median_rank`, `mse`.

    Raises:
        StoreError: a task has no network to train on.
        TansError: the loss is no longer finite.
    """
    data = (pooled_train, pooled_test, topology, functional, accuracy, home)
    trained = torch.ones(len(home), dtype=torch.bool) if heldout is None else ~heldout
    objective = _Objective(data, trained, recipe, seed)
    fingerprint = _fingerprint((*data, trained), recipe, seed) if resume_folder else ""

    def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        # One kernel for all weights: unfused, Adam takes longer than the rest of the step.
        return torch.optim.Adam(parameters, lr=recipe.lr, fused=True)

    curve = train_steps(
        objective,
        objective.step_loss,
        adam,
        recipe.steps,
        every=recipe.eval_every,
        on_step=objective.evaluate,
        resume_folder=resume_folder,
        fingerprint=fingerprint,
        precision=recipe.precision,
        device=device,
        description="published space",
    )
    return objective.space, curve


class _Objective(nn.Module):
    """The space, with all that a step needs beside it on the same device; only the space is trained and checkpointed."""

    def __init__(self, data: tuple[Tensor, ...], trained: Tensor, recipe: PaperRecipe, seed: int) -> None:
        super().__init__()
        pooled_train, pooled_test, topology, functional, accuracy, home = data
        self.recipe, self.seed = recipe, seed
        self.ready: dict[int, tuple[Tensor, Tensor]] = {}
        self.space = PaperSpace(pooled_train.shape[1], topology.shape[1], functional.shape[1], recipe.dim)
        self.space.initialise(torch.Generator().manual_seed(derive_seed(seed, "weights")))
        rounds = rounds_of_one(home, trained, len(pooled_train))  # (R, D)
        self.counts = torch.bincount(home[trained], minlength=len(pooled_train))
        tensors = {"pooled_train": pooled_train, "pooled_test": pooled_test, "accuracy": accuracy, "rounds": rounds}
        for name, value in {**tensors, "inputs": model_inputs(topology, functional)}.items():
            self.register_buffer(name, value, persistent=False)

    def draw(self, step: int) -> Tensor:
        """Return (D,) int64, one network of each task."""
        share = torch.rand(len(self.counts), dtype=torch.float64, generator=step_generator(self.seed, step))
        rounds: Tensor = self.get_buffer("rounds")
        rows = (share * self.counts).long().to(rounds.device)
        return rounds.gather(0, rows[None])[0]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the step's networks (D, d), encoded, and their accuracies (D,)."""
        chosen = self.draw(step)
        # Whole rows: indexing by [chosen] copies them number by number.
        inputs = self.get_buffer("inputs").index_select(0, chosen)
        return self.space.encode_inputs(inputs), self.get_buffer("accuracy").index_select(0, chosen)

    def step_loss(self, step: int) -> Tensor:
        ready, self.ready = self.ready.pop(step, None), {}
        models, actual = ready or self.batch(step)
        queries = self.space.encode_pooled(self.get_buffer("pooled_train"))
        predicted = self.space.predict(queries, models)
        return paper_loss(queries, models, predicted, actual, self.recipe.margin, self.recipe.prediction_weight)

    def evaluate(self, done: int) -> dict[str, float]:
        # On the networks of the step to come: encoded by the weights of now, as that step needs them too.
        models, actual = self.batch(done)
        if self.recipe.precision == "fp32":
            self.ready = {done: (models, actual)}
        with torch.no_grad():
            queries = self.space.encode_pooled(self.get_buffer("pooled_test"))
            error = F.mse_loss(self.space.predict(queries, models), actual)
            return recall(ranks_of_own(queries @ models.T)) | {"mse": float(error)}


@torch.no_grad()
def measure_paper(
    space: PaperSpace,
    pooled_test: Tensor,
    topology: Tensor,
    functional: Tensor,
    accuracy: Tensor,
    home: Tensor,
    heldout: Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """Measure a space on every network: tensors as for `fit_paper`.

    Returns:
        `insample`: what `retrieval_quality` says of the networks that training saw, and the `mse` of their predictions;
        `heldout`: what `heldout_quality` says of the others, and their `mse`; empty where `heldout` is None or holds none out.
    """
    queries = space.encode_pooled(pooled_test)
    models = space.encode_models(topology, functional)
    similarity, predicted = queries @ models.T, space.predict(queries[home], models)
    unseen = torch.zeros(len(home), dtype=torch.bool) if heldout is None else heldout
    seen = retrieval_quality(similarity, home, ~unseen)
    seen["mse"] = float(F.mse_loss(predicted[~unseen], accuracy[~unseen]))
    if not bool(unseen.any()):
        return {"insample": seen, "heldout": {}}
    others = heldout_quality(similarity, predicted, accuracy, home, unseen)
    others["mse"] = float(F.mse_loss(predicted[unseen], accuracy[unseen]))
    return {"insample": seen, "heldout": others}


def _fingerprint(tensors: tuple[Tensor, ...], recipe: PaperRecipe, seed: int) -> str:
    digest = hashlib.sha256(json.dumps([asdict(recipe), seed], sort_keys=True).encode())
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
