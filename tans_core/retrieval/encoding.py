"""From a data set to its place in the space: the backbone runs on some of its images, their features are summarised,
and the summary is encoded.

Axes: S width of a query's statistics, d space dimension.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from tans_core.embeddings.cores import on_all_cores
from tans_core.embeddings.query import Backbone, load_backbone, query_features
from tans_core.errors import DataError
from tans_core.index.release import Release
from tans_core.io import sha256_bytes
from tans_core.retrieval.query import Query
from tans_core.space.encoders import CrossModalSpace, space_digest
from tans_core.space.queries import query_statistics
from tans_core.tasks.task import Task


@dataclass(frozen=True)
class QueryPlace:
    """The place of a data set in the space.

    Attributes:
        vector: (d,) float32, of unit norm.
        trust: in its fit, 0..1.
        images: how many images it was computed from.
    """

    vector: npt.NDArray[np.float32]
    trust: float
    images: int


class QueryEncoder:
    """Computes the places of data sets by the encoders of one release; its backbone is read when it is first used."""

    def __init__(self, release: Release, space: CrossModalSpace) -> None:
        self._release, self._space = release, space

    @cached_property
    def backbone(self) -> Backbone:
        self._release.check("base/")
        return on_all_cores(load_backbone(self._release.params["embed"]["backbone"], self._release.base_dir))

    @cached_property
    def digest(self) -> str:
        """A hash of all that turns images into a place: the size they are kept at, backbone, its settings, space."""
        base = {name: digest for name, digest in self._release.files.items() if name.startswith("base/")}
        settings = self._release.params["data"]["stored_size_px"], self._release.params["embed"]
        parts = [space_digest(self._release.space_dir), base, settings]
        return sha256_bytes(json.dumps(parts, sort_keys=True).encode())

    def place(self, task: Task | Query) -> QueryPlace:
        """Return the place of a task, from its training images; or of a query.

        Raises:
            TooFewImagesError: the task has no training image.
            DataError: other encoders made the query, or its vector is not that of its statistics.
        """
        return self._checked(task) if isinstance(task, Query) else self._encode(*self._statistics(task))

    def query(self, task: Task) -> Query:
        """Return what a search needs of a task's training images. Raises TooFewImagesError if there are none."""
        statistics, images = self._statistics(task)
        vector = self._encode(statistics, images).vector
        values = {"statistics": statistics.tolist(), "vector": vector.tolist()}
        return Query(release=self._release.id, encoder=self.digest, images=images, **values)

    def _statistics(self, task: Task) -> tuple[npt.NDArray[np.float32], int]:
        features, labels = query_features(task, self.backbone, self._release.params["embed"]["images_per_class"])
        return query_statistics(features, labels), len(labels)

    @torch.no_grad()
    def _encode(self, statistics: npt.NDArray[np.float32], images: int) -> QueryPlace:
        rows = torch.from_numpy(statistics)[None]
        return QueryPlace(self._space.encode_query(rows)[0].numpy(), float(self._space.trust(rows)[0]), images)

    def _checked(self, query: Query) -> QueryPlace:
        again = "Make it again: `tans embed PATH -o query.json`."
        if query.encoder != self.digest:
            raise DataError(
                f"query: made with the encoders of release {query.release}, those of release {self._release.id} are "
                f"others.\n  {again}"
            )
        statistics, vector = (np.array(values, dtype=np.float64) for values in (query.statistics, query.vector))
        widths, wanted = (len(statistics), len(vector)), (self._space.dims["query_dim"], self._space.dims["dim"])
        if widths != wanted:
            raise DataError(f"query: got {widths} statistics and values of the vector, want {wanted}.\n  {again}")
        if np.abs(statistics).max() > float(np.finfo(np.float32).max):
            raise DataError(f"query: a statistic is too large for float32.\n  {again}")
        place = self._encode(statistics.astype(np.float32), query.images)
        # Another processor rounds otherwise.
        if not np.isfinite(place.vector).all() or not np.allclose(place.vector, vector, atol=1e-3):
            raise DataError(f"query: its vector is not that of its statistics: the file was changed.\n  {again}")
        return place
