"""A map of the space: tasks and networks in two dimensions, with measures of its reliability.

Axes: P places, D tasks, M models, d space dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness

from tans_core.errors import StoreError
from tans_core.runtime import derive_seed

# Less than the number of a task's networks: with that number, t-SNE contracts each task's networks to a dot.
_PERPLEXITY = 10.0
_NEIGHBOURS = 5
# At most so many places: trustworthiness needs a matrix of all distances.
_JUDGED = 3000

Floats = npt.NDArray[np.float32]

QUERY = "your images"
"""Name of the data set on the map of an answer."""


class Kind(StrEnum):
    """Kind of a place. A newcomer is a network admitted after the space was made; a query is a user's data set."""

    MODEL = "model"
    NEWCOMER = "newcomer"
    TASK = "task"
    QUERY = "query"


class Method(StrEnum):
    """Projection from d dimensions to two: t-SNE keeps neighbours together, PCA the directions of most variance."""

    TSNE = "tsne"
    PCA = "pca"


@dataclass(frozen=True)
class Place:
    """A task, network or query with a vector in the space.

    Attributes:
        kind, name: of the place.
        home_task: of a network; for a task or query its own name.
        source: of the home task.
        val_accuracy: of a network, on its home task's validation split, 0..1.
        params_m: of a network, in millions.
    """

    kind: Kind
    name: str
    home_task: str
    source: str
    val_accuracy: float | None = None
    params_m: float | None = None

    @property
    def network(self) -> bool:
        return self.kind in (Kind.MODEL, Kind.NEWCOMER)


@dataclass(frozen=True)
class SpaceMap:
    """The map.

    Attributes:
        places: P places.
        positions: (P, 2) float32, centred, the longer side spanning 2.
        method, seed: of the projection.
        figures: `trustworthiness` (0..1: how far neighbours on the map are neighbours in the space) and `own_nearest`
            (share of a task's own among the five networks nearest to it in the space, mean over tasks), where defined.
        nearest: by query, the five tasks nearest to it in the space, with their cosines.
    """

    places: tuple[Place, ...]
    positions: Floats
    method: Method
    seed: int
    figures: dict[str, float]
    nearest: dict[str, tuple[tuple[str, float], ...]]

    def of(self, *kinds: Kind) -> list[int]:
        """Return the indices of the places of these kinds."""
        return [index for index, place in enumerate(self.places) if place.kind in kinds]

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources, by decreasing number of places; queries have none."""
        counts: dict[str, int] = {}
        for place in self.places:
            if place.kind is not Kind.QUERY:
                counts[place.source] = counts.get(place.source, 0) + 1
        return tuple(sorted(counts, key=lambda name: (-counts[name], name)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        rows = [
            {**{key: value for key, value in asdict(place).items() if value is not None}, "x": x, "y": y}
            for place, (x, y) in zip(self.places, self.positions.round(5).astype(float).tolist(), strict=True)
        ]
        nearest = {
            query: [{"task": task, "similarity": cosine} for task, cosine in tasks]
            for query, tasks in self.nearest.items()
        }
        return {
            "method": self.method.value,
            "seed": self.seed,
            "figures": self.figures,
            "nearest": nearest,
            "places": rows,
        }


def lay_out(places: Sequence[Place], vectors: Floats, method: Method = Method.TSNE, seed: int = 0) -> SpaceMap:
    """Project all places to a map. The same places and seed give the same map.

    Args:
        places: P places.
        vectors: (P, d) float32 of unit norm, their vectors in the space.
        method: PCA is fitted without the queries, so that a query moves nothing else.
        seed: of t-SNE.

    Raises:
        StoreError: there are no places, or a vector is not finite.
    """
    if not places:
        raise StoreError("the space is empty: there is neither a task nor a network to show. Run `tans build`.")
    if bad := [place.name for place, row in zip(places, vectors, strict=True) if not np.isfinite(row).all()]:
        raise StoreError(
            f"{len(bad)} vectors are not finite, such as those of {bad[:5]}. Run `dvc repro --force index`."
        )
    if method is Method.PCA:
        fitted = np.array([place.kind is not Kind.QUERY for place in places])
        positions = _pca(vectors, vectors[fitted] if fitted.any() else vectors)
    else:
        positions = _tsne(vectors, seed)
    positions = positions - (positions.max(axis=0) + positions.min(axis=0)) / 2
    positions = positions / max(float(np.abs(positions).max()), 1e-12)
    figures = _figures(places, vectors, positions, seed)
    return SpaceMap(tuple(places), positions.astype(np.float32), method, seed, figures, _nearest_tasks(places, vectors))


def map_answer(networks: Sequence[Place], vectors: Floats, tasks: Mapping[str, Floats], query: Floats) -> SpaceMap:
    """Project an answer by PCA: its M networks, all tasks, and the data set as the place `QUERY`.

    Args:
        networks: of the answer, best first.
        vectors: (M, d) float32 of unit norm, of the networks.
        tasks: (d,) float32 of each task; may be empty.
        query: (d,) float32 of the data set.
    """
    places = [*networks, *(Place(Kind.TASK, name, name, "") for name in tasks), Place(Kind.QUERY, QUERY, QUERY, "")]
    return lay_out(places, np.concatenate([vectors, np.stack([*tasks.values(), query])]), Method.PCA)


def _pca(vectors: Floats, fitted_on: Floats) -> npt.NDArray[np.float64]:
    if not np.ptp(fitted_on, axis=0).any():
        return np.zeros((len(vectors), 2))
    count = min(2, *fitted_on.shape)
    projected = PCA(count, svd_solver="full").fit(fitted_on.astype(np.float64)).transform(vectors.astype(np.float64))
    return np.pad(projected, ((0, 0), (0, 2 - count)))


def _tsne(vectors: Floats, seed: int) -> npt.NDArray[np.float64]:
    count = len(vectors)
    # For so few, or for equal ones, PCA shows as much.
    if count < 5 or not np.ptp(vectors, axis=0).any():
        return _pca(vectors, vectors)
    perplexity = min(_PERPLEXITY, (count - 1) / 3)
    tsne = TSNE(
        2,
        perplexity=perplexity,
        init=_start(vectors),
        learning_rate="auto",
        random_state=derive_seed(seed, "map") % 2**32,
    )
    return np.asarray(tsne.fit_transform(vectors), dtype=np.float64)


def _start(vectors: Floats) -> Floats:
    """Start t-SNE from the first two components, without random numbers, which keeps the overall shape."""
    start = _pca(vectors, vectors)
    return np.asarray(start / max(float(start[:, 0].std()), 1e-12) * 1e-4, dtype=np.float32)


def _figures(
    places: Sequence[Place], vectors: Floats, positions: npt.NDArray[np.float64], seed: int
) -> dict[str, float]:
    figures: dict[str, float] = {}
    rows = np.arange(len(places))
    if len(rows) > _JUDGED:
        rows = np.sort(np.random.default_rng(derive_seed(seed, "judged")).choice(rows, _JUDGED, replace=False))
    if len(rows) > 2 * _NEIGHBOURS + 1:
        figures["trustworthiness"] = float(trustworthiness(vectors[rows], positions[rows], n_neighbors=_NEIGHBOURS))
    networks = [index for index, place in enumerate(places) if place.network]
    tasks = [index for index, place in enumerate(places) if place.kind is Kind.TASK]
    if networks and tasks:
        similarity = vectors[tasks] @ vectors[networks].T  # (D, M)
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :_NEIGHBOURS]
        own = [
            np.mean([places[networks[index]].home_task == places[task].name for index in row])
            for task, row in zip(tasks, nearest, strict=True)
        ]
        figures["own_nearest"] = float(np.mean(own))
    return figures


def _nearest_tasks(places: Sequence[Place], vectors: Floats) -> dict[str, tuple[tuple[str, float], ...]]:
    tasks = [index for index, place in enumerate(places) if place.kind is Kind.TASK]
    nearest = {}
    for index, place in enumerate(places):
        if place.kind is Kind.QUERY:
            cosines = vectors[tasks] @ vectors[index]  # (D,)
            order = np.argsort(-cosines, kind="stable")[:_NEIGHBOURS]
            nearest[place.name] = tuple((places[tasks[which]].name, float(cosines[which])) for which in order)
    return nearest
