"""From a data set to ranked models: places it in the space, searches under the constraints, predicts and ranks.

Axes: M models that fit the constraints, d space dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tans_core.embeddings.query import Backbone
from tans_core.embeddings.store import open_table
from tans_core.errors import StoreError, did_you_mean
from tans_core.index.release import Release
from tans_core.index.schema import space_of
from tans_core.index.search import Index, columns_of
from tans_core.io import read_json
from tans_core.networks.family import Network
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import get_family
from tans_core.recipe import Recipe
from tans_core.retrieval.candidate import Candidate, Prefer
from tans_core.retrieval.constraints import Constraints
from tans_core.retrieval.encoding import QueryEncoder
from tans_core.retrieval.limits import Beside, Fitting, check_homes, require_some, within
from tans_core.retrieval.query import Query
from tans_core.retrieval.ranking import Answer, Choice, Ranked, Search, chosen_again
from tans_core.retrieval.refine import RefineWeights, refine
from tans_core.runtime import derive_seed
from tans_core.space.encoders import CrossModalSpace, space_digest
from tans_core.tasks.task import Task
from tans_core.zoo.card import ModelCard
from tans_core.zoo.latency import medians
from tans_core.zoo.weights import Base, fresh_classifier, load_model

__all__ = ["Candidate", "Constraints", "Query", "Retriever"]

REFINE_POOL = 10_000
"""Models that are ranked again once some were probed: those of the highest predictions."""


class Retriever:
    """A reader of one release, which keeps its space, backbone and index loaded."""

    def __init__(self, release: Release, latency: Path | None = None) -> None:
        self.release, self._latency = release, latency
        release.check("space/")
        self.space = CrossModalSpace.load(release.space_dir)
        self.table = open_table(release.store_dir, "index")
        expected, loaded = space_of(self.table.schema), space_digest(release.space_dir)
        if expected != loaded:
            raise StoreError(
                f"release {release.id}: its index belongs to space {expected[:12]}, its space is {loaded[:12]}. "
                "Run `tans build`, then `tans publish`."
            )

    @classmethod
    def open(cls, release: Release, latency: Path | None = None) -> Retriever:
        """Open a release for reading.

        Args:
            release: the release.
            latency: the folder of `tans zoo profile`; without it no network counts as timed.

        Raises:
            StoreError: a part is missing, or index and encoders are of different spaces.
            WeightsError: weights are damaged.
        """
        return cls(release, latency)

    @cached_property
    def encoder(self) -> QueryEncoder:
        """What turns a data set into its place in the space."""
        return QueryEncoder(self.release, self.space)

    @property
    def backbone(self) -> Backbone:
        return self.encoder.backbone

    @cached_property
    def refine_weights(self) -> RefineWeights:
        return RefineWeights(**self._description["refine"])

    @cached_property
    def plus_minus(self) -> float:
        """Half the width of an interval around a predicted score that held 80% of results on sources left out."""
        return float(self._description["metrics"]["calibration"]["half_width"])

    @cached_property
    def _description(self) -> dict[str, Any]:
        description: dict[str, Any] = read_json(self.release.space_dir / "space.json")
        return description

    @cached_property
    def index(self) -> Index:
        """The models in memory."""
        return Index.read(self.table)

    def beside(self, constraints: Constraints) -> Beside:
        """Return what the constraints compare and the index does not contain: by range, by id.

        The file of latencies is read each time, so that new timings count at once. Raises StoreError for a bad one.
        """
        values: dict[str, Mapping[str, float]] = {}
        if constraints.limits("input_size_px"):
            values["input_size_px"] = {name: card.preprocess.image_size_px for name, card in self.cards.items()}
        if constraints.latency_profile is not None and self._latency is not None:
            values["latency_ms"] = medians(self._latency, constraints.latency_profile, self.cards)
        return values

    def fitting(self, constraints: Constraints | None = None) -> Fitting:
        """Return the models that satisfy the constraints: all for None.

        Raises:
            NoModelFitsError: none does; names the nearest ones, and limits to relax for them.
            ParamsError: no model has a home task that they name.
        """
        limits = constraints or Constraints()
        return require_some(self.index, limits, self.beside(limits))

    def cards_within(self, constraints: Constraints) -> list[ModelCard]:
        """Return the cards of the models that satisfy the constraints, in the order of their ids; there may be none."""
        check_homes(self.index, constraints)
        kept = within(self.index, constraints, self.beside(constraints))
        rows = np.arange(len(self.index)) if kept is None else np.flatnonzero(kept)
        return sorted((self.cards[row["id"]] for row in self.index.rows(rows, ["id"])), key=lambda card: card.id)

    def retrieve(
        self,
        task: Task | Query,
        fitting: Fitting | None = None,
        top_k: int = 10,
        refine_first: int = 0,
        prefer: Prefer = "accurate",
        per_task: int | None = None,
        pool: int = 0,
    ) -> Answer:
        """Rank models for a task, best first.

        Args:
            task: only its training images are used; or what `query` made of them.
            fitting: the models to rank, from `fitting`; None for all.
            top_k: candidates at most.
            refine_first: how many to probe on the task's images before ranking again; 0 runs no network.
            prefer: `small` or `fast` leaves out models that another one equals or beats in score and in cost
                (parameters; latency under the profile of the constraints, else MACs). Those within `plus_minus` of the
                best score come first, the cheapest ahead.
            per_task: candidates of one home task at most; None for no limit.
            pool: how many of the best models the answer keeps besides the candidates, for an explanation.

        Raises:
            TooFewImagesError: the task has no training image.
            NoModelFitsError: the release has no model.
            DataError: other encoders made the query, or it is damaged.
        """
        choice = Choice(top_k, prefer, per_task)
        search = self.search(task, fitting)
        if refine_first:
            assert not isinstance(task, Query), "a query has no images to run networks on"
            candidates, places = self.rank(search, REFINE_POOL)
            refined = self.refine(task, candidates, places, refine_first)
            row = {one.model: number for number, one in enumerate(candidates)}
            best = refined[:pool]
            return Answer(chosen_again(refined, choice), search, (best, places[[row[one.model] for one in best]]))
        # To leave some out, all are ranked.
        ranked = self._ranked(search, max(top_k, pool) if choice.keeps_order else None)
        chosen = ranked.chosen(choice, self.plus_minus).candidates(search.place, self.plus_minus)
        return Answer(chosen, search, self._pooled(search, ranked[:pool]))

    def search(self, task: Task | Query, fitting: Fitting | None = None) -> Search:
        """Find a task's place in the space; the arguments and the errors are those of `retrieve`."""
        fitting = self.fitting() if fitting is None else fitting
        assert fitting.index is self.index, "these models were found in another release"
        return Search(self.encoder.place(task), fitting)

    def rank(
        self, wanted: Task | Query | Search, limit: int | None = None
    ) -> tuple[list[Candidate], npt.NDArray[np.float32]]:
        """Return models, best first, at most `limit` of them, and their places (M, d).

        Args:
            wanted: from `search`; or a task or a query, for which all models are ranked.
            limit: None for all.

        Raises:
            TooFewImagesError, NoModelFitsError, DataError: as `retrieve`.
        """
        search = wanted if isinstance(wanted, Search) else self.search(wanted)
        return self._pooled(search, self._ranked(search, limit))

    def _pooled(self, search: Search, ranked: Ranked) -> tuple[list[Candidate], npt.NDArray[np.float32]]:
        return ranked.candidates(search.place, self.plus_minus), self.index.vectors.numpy()[ranked.rows]

    def _ranked(self, search: Search, limit: int | None) -> Ranked:
        index, place = self.index, search.place
        weight = float(self.space.fit_weight(place.trust).detach())
        rows = index.best(place.vector, weight, limit, search.fitting.kept)
        parts = index.vectors.numpy()[rows], index.capacity[rows], index.start[rows]
        predicted = self.predict(place.vector, *parts, place.trust)
        # Equal scores are ordered by id, so that the order is the same on every machine.
        order = np.lexsort((index.by_id[rows], -predicted))[:limit]
        return Ranked(index, rows[order], predicted[order], search.fitting.latencies)

    def refine(
        self, task: Task, candidates: Sequence[Candidate], places: npt.NDArray[np.float32], count: int
    ) -> list[Candidate]:
        """Probe the first `count` candidates of `rank` on a task's training images, and rank all again."""
        transfer = self.release.params["transfer"]
        images = transfer["probe_images_per_class"], transfer["probe_images"]
        return refine(candidates, places, count, task, self._with_preprocess, self.refine_weights, *images)

    def embed(self, task: Task) -> npt.NDArray[np.float32]:
        """Return a task's vector in the space, (d,) float32 of unit norm."""
        return self.encoder.place(task).vector

    def query(self, task: Task) -> Query:
        """Return what a search needs of a task's training images."""
        return self.encoder.query(task)

    @torch.no_grad()
    def predict(
        self,
        query: npt.NDArray[np.float32],
        models: npt.NDArray[np.float32],
        capacity: npt.NDArray[np.float32],
        start: npt.NDArray[np.float32],
        trust: float = 1.0,
    ) -> npt.NDArray[np.float32]:
        """Predict scores (M,) of embedded models (M, d), with their parts (M,), for an embedded query (d,)."""
        encoded = torch.from_numpy(models)
        queries = torch.from_numpy(query).expand_as(encoded)
        parts = torch.from_numpy(capacity), torch.from_numpy(start)
        predicted: npt.NDArray[np.float32] = self.space.predict(queries, encoded, *parts, trust).numpy()
        return predicted

    @cached_property
    def cards(self) -> dict[str, ModelCard]:
        """All models of the release by id, in the order of their ids."""
        rows = columns_of(self.table, "id", "card").to_pylist()
        return {row["id"]: ModelCard.from_json(row["card"]) for row in sorted(rows, key=lambda row: row["id"])}

    def card(self, model_id: str) -> ModelCard:
        """Return one model's card.

        Raises:
            StoreError: the release has no such model.
        """
        if model_id not in self.cards:
            hint = did_you_mean(model_id, self.cards)
            raise StoreError(f"release {self.release.id}: no model {model_id!r}{hint}. See `tans models list`.")
        return self.cards[model_id]

    def recipe(self, model_id: str) -> Recipe:
        """Return a model's fine-tuning recipe: its card's, or its family's in params.yaml.

        Raises:
            StoreError: the release has no such model.
        """
        return self.card(model_id).recipe_by(self.release.params["finetune"])

    def load_model(self, model_id: str, num_classes: int, seed: int = 0) -> Network:
        """Return a model's network with its weights and a fresh classifier of `num_classes`, drawn from `seed`.

        Raises:
            StoreError: the release has no such model.
            WeightsError: its weights are missing or damaged.
        """
        card = self.card(model_id)
        return fresh_classifier(load_model(card, self.release.resolve(card.weights)), num_classes, seed)

    def base_subnet(self, model_id: str, num_classes: int, seed: int = 0) -> Network:
        """Return a model's architecture with the weights of its family's base supernet and a fresh classifier.

        Raises:
            WeightsError: its family has no base here, or the architecture is not in its search space.
        """
        card, base = self.card(model_id), Base.open(self.release.base_dir)
        supernet = base.load(card.family)
        return fresh_classifier(supernet.extract(supernet.space.member(card.architecture)), num_classes, seed)

    def from_scratch(self, model_id: str, num_classes: int, seed: int = 0) -> Network:
        """Return a model's architecture with fresh weights."""
        card = self.card(model_id)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "scratch"))
            network = get_family(card.family).build(card.architecture, num_classes)
        return fresh_classifier(network, num_classes, seed)

    def _with_preprocess(self, model_id: str) -> tuple[Network, Preprocess]:
        return self.load_model(model_id, num_classes=2), self.card(model_id).preprocess
