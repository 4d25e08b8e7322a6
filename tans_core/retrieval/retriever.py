"""From a data set to ranked models: embed the query, search under the constraints, predict, rank.

Axes: M models that fit the constraints, d space dimension.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tans_core.embeddings.query import Backbone, load_backbone, query_features
from tans_core.embeddings.store import matrix, open_table
from tans_core.errors import StoreError, did_you_mean
from tans_core.index.releases import Release
from tans_core.index.schema import space_of
from tans_core.index.search import Constraints, nearest
from tans_core.networks.elastic import Architecture, ElasticNetwork, ElasticSpace
from tans_core.runtime import derive_seed
from tans_core.space.encoders import CrossModalSpace, space_digest
from tans_core.tasks.task import Task
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import fresh_classifier, load_base, load_model, read_space

__all__ = ["Candidate", "Constraints", "Retriever"]


@dataclass(frozen=True)
class Candidate:
    """A model that was retrieved, and why.

    Attributes:
        rank: from 1.
        model: its id.
        home_task, source, licence: where its weights come from.
        similarity: cosine between task and model in the space, -1..1.
        predicted_score: what the predictor says of this model on this task, in deviations around a task's mean model.
        score: what the ranking goes by: the predicted score plus the weighted similarity.
        home_accuracy: measured on the home task's validation split, 0..1.
        params_m, macs_m: costs in millions.
    """

    rank: int
    model: str
    home_task: str
    source: str
    licence: str
    similarity: float
    predicted_score: float
    score: float
    home_accuracy: float
    params_m: float
    macs_m: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Retriever:
    """A warm reader of one release: holds its space, backbone and index from start to end."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.space = CrossModalSpace.load(release.space_dir)
        self.table = open_table(release.store_dir, "index")
        named, loaded = space_of(self.table.schema), space_digest(release.space_dir)
        if named != loaded:
            raise StoreError(
                f"release {release.id}: its index belongs to space {named[:12]}, its space is {loaded[:12]}. Run `dvc repro`."
            )

    @classmethod
    def open(cls, release: Release) -> Retriever:
        """Open a release for reading.

        Raises:
            StoreError: a part is missing, or vectors and encoders are of different spaces.
            WeightsError: weights are damaged.
        """
        return cls(release)

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone(self.release.params["embed"]["backbone"], self.release.base_dir)

    @cached_property
    def architectures(self) -> ElasticSpace:
        """The search space of the zoo."""
        return read_space(self.release.base_dir)

    def retrieve(self, task: Task, constraints: Constraints | None = None, top_k: int = 10) -> list[Candidate]:
        """Rank the models that satisfy the constraints for a task, best first.

        Args:
            task: only its training images are looked at.
            constraints: on parameters, MACs and licence; None sets none.
            top_k: candidates at most.

        Raises:
            TooFewImagesError: the task has no training image.
            NoModelFitsError: no model satisfies the constraints.
        """
        query = self.embed(task)
        found = nearest(self.table, query, constraints or Constraints())
        predicted = self.predict(query, matrix(found["vector"]))
        similarity = found["similarity"].to_numpy()
        score = predicted + self.release.params["retrieval"]["similarity_weight"] * similarity
        rows = found.select(["id", "home_task", "source", "licence", "val_accuracy", "params_m", "macs_m"]).to_pylist()
        # Equal scores go by id, so that the order is the same on every machine.
        order = sorted(range(len(rows)), key=lambda index: (-float(score[index]), rows[index]["id"]))
        return [
            Candidate(
                rank=rank,
                model=rows[index]["id"],
                home_task=rows[index]["home_task"],
                source=rows[index]["source"],
                licence=rows[index]["licence"],
                similarity=float(similarity[index]),
                predicted_score=float(predicted[index]),
                score=float(score[index]),
                home_accuracy=rows[index]["val_accuracy"],
                params_m=rows[index]["params_m"],
                macs_m=rows[index]["macs_m"],
            )
            for rank, index in enumerate(order[:top_k], start=1)
        ]

    @torch.no_grad()
    def embed(self, task: Task) -> npt.NDArray[np.float32]:
        """Return a task's place in the space, (d,) float32 of unit norm."""
        features, _ = query_features(task, self.backbone, self.release.params["embed"]["images_per_class"])
        encoded: npt.NDArray[np.float32] = self.space.encode_query(torch.from_numpy(features)[None])[0].numpy()
        return encoded

    @torch.no_grad()
    def predict(self, query: npt.NDArray[np.float32], models: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Predict scores (M,) of embedded models (M, d) for an embedded query (d,)."""
        encoded = torch.from_numpy(models)
        predicted: npt.NDArray[np.float32] = self.space.predict(
            torch.from_numpy(query).expand_as(encoded), encoded
        ).numpy()
        return predicted

    @cached_property
    def cards(self) -> dict[str, ModelCard]:
        """All models of the release by id, in the order of their ids."""
        rows = self.table.search().select(["id", "card"]).limit(max(1, self.table.count_rows())).to_arrow().to_pylist()
        return {row["id"]: ModelCard.from_json(row["card"]) for row in sorted(rows, key=lambda row: row["id"])}

    def card(self, model_id: str) -> ModelCard:
        """Return one model's card.

        Raises:
            StoreError: the release holds no such model.
        """
        if model_id not in self.cards:
            hint = did_you_mean(model_id, self.cards)
            raise StoreError(f"release {self.release.id}: has no model {model_id!r}{hint}. See `tans models list`.")
        return self.cards[model_id]

    def load_model(self, model_id: str, num_classes: int, seed: int = 0) -> ElasticNetwork:
        """Return a model's network with its weights and a fresh classifier of `num_classes`, drawn from `seed`.

        Raises:
            StoreError: the release holds no such model.
            WeightsError: its weights are missing or damaged.
        """
        card = self.card(model_id)
        network = load_model(card, self.release.resolve(card.weights), self.architectures)
        return fresh_classifier(network, num_classes, _generator(seed))

    def base_subnet(self, model_id: str, num_classes: int, seed: int = 0) -> ElasticNetwork:
        """Return a model's architecture with the base supernet's weights and a fresh classifier."""
        base = load_base(self.release.base_dir, num_classes=2)
        subnet = base.extract(Architecture.from_dict(self.card(model_id).architecture))
        return fresh_classifier(subnet, num_classes, _generator(seed))

    def from_scratch(self, model_id: str, num_classes: int, seed: int = 0) -> nn.Module:
        """Return a model's architecture with fresh weights."""
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "scratch"))
            network = self.architectures.build(Architecture.from_dict(self.card(model_id).architecture), num_classes)
        return fresh_classifier(network, num_classes, _generator(seed))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "classifier"))
