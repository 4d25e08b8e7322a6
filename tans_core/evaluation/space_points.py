"""Reads the places of a release's space: tasks from image features, networks from the index.

Axes: P places, d space dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tans_core.embeddings.store import FeatureRows, matrix, read_digests, read_table
from tans_core.errors import StoreError
from tans_core.evaluation.space_map import Kind, Place
from tans_core.index.release import Release
from tans_core.index.releases import PIPELINE
from tans_core.io import read_json
from tans_core.space.drift import DriftReference
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.queries import query_statistics

Floats = npt.NDArray[np.float32]


@torch.no_grad()
def task_vectors(space: CrossModalSpace, features: FeatureRows) -> dict[str, Floats]:
    """Return each task's vector (d,) in the space, from its training images."""
    train = features.splits == "train"
    names = sorted(set(features.tasks[train].tolist()))
    rows = {name: train & (features.tasks == name) for name in names}
    statistics = [query_statistics(features.features[chosen], features.labels[chosen]) for chosen in rows.values()]
    return dict(zip(names, space.encode_query(torch.from_numpy(np.stack(statistics))).numpy(), strict=True))


def read_places(release: Release, store: Path) -> tuple[tuple[Place, ...], Floats]:
    """Return all networks of a release and the tasks of its space, with their vectors (P, d).

    Args:
        release: the one in production, or the view of data/.
        store: the folder of the table `task_features` that the space was made from; releases have none.

    Raises:
        StoreError: something is not built, or the space was made from other features.
    """
    vectors = read_tasks(release, store, CrossModalSpace.load(release.space_dir))
    index = read_table(release.store_dir, "index")
    newcomers = set(index["id"].to_pylist()) - _made_from(release)
    columns = ["id", "home_task", "source", "val_accuracy", "params_m"]
    rows = index.select(columns).to_pylist()
    models = [
        Place(
            Kind.NEWCOMER if row["id"] in newcomers else Kind.MODEL,
            row["id"],
            row["home_task"],
            row["source"],
            row["val_accuracy"],
            row["params_m"],
        )
        for row in rows
    ]
    sources = _sources(models)
    tasks = [Place(Kind.TASK, name, name, sources.get(name, "unknown")) for name in vectors]
    return (*models, *tasks), np.concatenate([matrix(index["vector"]), np.stack(list(vectors.values()))])


def read_tasks(release: Release, store: Path, space: CrossModalSpace) -> dict[str, Floats]:
    """Return the vector (d,) of each task of a release's space; other arguments and errors as for `read_places`."""
    _check_features(release, store)
    return task_vectors(space, FeatureRows.read(store))


def _made_from(release: Release) -> set[str]:
    """Return the ids of the networks that the release's space was made from; if not recorded, all of the index."""
    try:
        return set(DriftReference.load(release.space_dir).ids)
    except StoreError:
        return set(read_table(release.store_dir, "index")["id"].to_pylist())


def _sources(models: list[Place]) -> Mapping[str, str]:
    # The source in the zoo's own cards overrides that in newcomers' cards.
    newcomers_first = sorted(models, key=lambda place: place.kind is not Kind.NEWCOMER)
    return {place.home_task: place.source for place in newcomers_first}


def _check_features(release: Release, store: Path) -> None:
    described = release.space_dir / "space.json"
    wanted = read_json(described).get("trained_on", {}).get("task_features") if described.is_file() else None
    if wanted is not None and wanted != read_digests(store, "task_features")["task_features"]:
        advice = "Run `tans build`." if release.id == PIPELINE else "Show what is built, without --production."
        raise StoreError(f"{store}: the space of {release.id} was made from other task features. {advice}")
