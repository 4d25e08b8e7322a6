"""Ablation of the space: it is fitted without a part, and measured on sources that it never saw.

Axes: D tasks, M models, V samples of a query, S = 3 F + 1 statistics, F feature width, T topology width, E functional
width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
import torch

from tans_core.space.data import SpaceData
from tans_core.space.objective import SpaceRecipe

FULL = "full"
METRICS = ("weighted_tau", "regret_at_1", "regret_at_3", "recall_at_1")
SeedMetrics = dict[str, float]
"""Each of METRICS, for one seed."""

_PREDICTION = ("home_weight", "tuned_weight", "probed_weight")


class Ranking(StrEnum):
    """Score by which a fitted space ranks networks."""

    PREDICTED = "predicted"
    SIMILARITY = "similarity"
    UNTRUSTED = "untrusted"


@dataclass(frozen=True)
class Inputs:
    """Inputs of the data that differ from the built tables; None keeps a part as built.

    Attributes:
        anchors_per_task: images of each task used as anchors of functional embeddings.
        noise_images: noise images used as anchors instead.
        images_per_class: most images of each class in a query.
        backbone: network that computes query features.
    """

    anchors_per_task: int | None = None
    noise_images: int | None = None
    images_per_class: int | None = None
    backbone: str | None = None


def as_it_is(data: SpaceData) -> SpaceData:
    return data


@dataclass(frozen=True)
class Variant:
    """One change to the full objective.

    Attributes:
        name: on the command line.
        label: in tables and pictures.
        recipe: fields of `SpaceRecipe` that differ.
        data: changes the data of training and measurement.
        ranking: score by which networks are ranked.
        inputs: inputs of the data that differ.
    """

    name: str
    label: str
    recipe: Mapping[str, float] = field(default_factory=dict)
    data: Callable[[SpaceData], SpaceData] = as_it_is
    ranking: Ranking = Ranking.PREDICTED
    inputs: Inputs = Inputs()


def known_variants(projection_dim: int, backbones: Sequence[str] = ()) -> tuple[Variant, ...]:
    """Return the full objective, first, and every change to it.

    Args:
        projection_dim: number of columns of a functional embedding in projected form; the rest are in Gram form.
        backbones: names of other networks that can compute query features.
    """
    none = dict.fromkeys(("rank_weight", "frechet_weight"), 0.0)
    return (
        Variant(FULL, "full objective"),
        Variant("no-topology", "without topology codes", data=without_topology),
        Variant("no-functional", "without functional embeddings", data=without_functional),
        Variant("projected-only", "projected answers alone", data=partial(functional_columns, stop=projection_dim)),
        Variant("gram-only", "Gram matrix of answers alone", data=partial(functional_columns, start=projection_dim)),
        Variant("query-mean", "query: means alone", data=partial(query_blocks, blocks=1)),
        Variant("query-mean-spread", "query: means and spreads", data=partial(query_blocks, blocks=2)),
        Variant("no-predictor", "ranked by similarity alone", ranking=Ranking.SIMILARITY),
        Variant("no-trust", "without trust", ranking=Ranking.UNTRUSTED),
        Variant(
            "matching-only",
            "matching loss alone, by similarity",
            none | dict.fromkeys(_PREDICTION, 0.0),
            ranking=Ranking.SIMILARITY,
        ),
        Variant("prediction-only", "prediction losses alone", none | {"matching_weight": 0.0}),
        Variant("no-trials", "without trials elsewhere", {"tuned_weight": 0.0, "probed_weight": 0.0}),
        Variant("no-tunings", "without fine-tunings elsewhere", {"tuned_weight": 0.0}),
        Variant("no-probes", "without probes elsewhere", {"probed_weight": 0.0}),
        Variant("no-matching", "without matching loss", {"matching_weight": 0.0}),
        Variant("no-home", "without accuracies at home", {"home_weight": 0.0}),
        Variant("no-rank", "without rank loss", {"rank_weight": 0.0}),
        Variant("frechet", "with Fréchet loss", {"frechet_weight": 0.1}),
        *(Variant(f"temperature-{t}", f"temperature {t}", {"temperature": t}) for t in (0.05, 0.1, 0.2)),
        *(Variant(f"dim-{dim}", f"{dim} dimensions", {"dim": dim}) for dim in (16, 32, 64, 128)),
        *(
            Variant(f"anchors-{count}", f"anchors: {count} a task", inputs=Inputs(anchors_per_task=count))
            for count in (1, 2, 4, 8)
        ),
        *(
            Variant(f"noise-{count}", f"anchors: {count} of noise", inputs=Inputs(noise_images=count))
            for count in (1, 4, 16, 64)
        ),
        *(
            Variant(f"images-{count}", f"query: {count} images a class", inputs=Inputs(images_per_class=count))
            for count in (5, 10, 20)
        ),
        *(Variant(f"backbone-{name}", f"query: by {name}", inputs=Inputs(backbone=name)) for name in backbones),
    )


def without_topology(data: SpaceData) -> SpaceData:
    """Make all topology codes the same: a constant column has no effect."""
    return replace(data, topology=torch.zeros_like(data.topology))


def without_functional(data: SpaceData) -> SpaceData:
    """Make all functional embeddings the same."""
    return replace(data, functional=torch.zeros_like(data.functional))


def functional_columns(data: SpaceData, start: int = 0, stop: int | None = None) -> SpaceData:
    """Keep only some columns of the functional embeddings."""
    return replace(data, functional=data.functional[:, start:stop].contiguous())


def query_blocks(data: SpaceData, blocks: int) -> SpaceData:
    """Keep the first blocks of F columns of queries (means, spreads, spreads of class means); zero the rest."""
    stop = blocks * ((data.queries.shape[1] - 1) // 3)
    kept = torch.arange(data.queries.shape[1]) < stop
    changed = {name: getattr(data, name) * kept for name in ("samples", "queries", "val_queries")}
    return replace(data, **changed)


@dataclass(frozen=True)
class Study:
    """A variant with its recipe and data."""

    variant: Variant
    recipe: SpaceRecipe
    data: SpaceData


def make_study(variant: Variant, recipe: SpaceRecipe, data: SpaceData) -> Study:
    """Apply a variant to a recipe, and to data that was assembled from its inputs."""
    return Study(variant, replace(recipe, **variant.recipe), variant.data(data))  # type: ignore[arg-type]


def is_full(study: Study, full: Study) -> bool:
    """Return whether a variant is the same as the full objective."""
    same = study.recipe == full.recipe and study.variant.ranking is full.variant.ranking
    return same and study.data.digest() == full.data.digest()


def compare_variants(rows: Mapping[str, Sequence[SeedMetrics]]) -> dict[str, dict[str, dict[str, float | bool]]]:
    """Compare each variant with the full objective.

    Args:
        rows: by variant, one row a seed, at least two; includes FULL.

    Returns:
        By variant and metric: `mean` and sample `std` over the seeds; `difference`, this mean less that of FULL;
        `beyond`, whether that exceeds the root of the sum of both squared standard deviations.
    """
    compared: dict[str, dict[str, dict[str, float | bool]]] = {}
    for name, own in rows.items():
        compared[name] = {}
        for metric in METRICS:
            values, full = (np.array([row[metric] for row in part]) for part in (own, rows[FULL]))
            difference = float(values.mean() - full.mean())
            compared[name][metric] = {
                "mean": float(values.mean()),
                "std": float(values.std(ddof=1)),
                "difference": difference,
                "beyond": abs(difference) > float(np.hypot(values.std(ddof=1), full.std(ddof=1))),
            }
    return compared


def with_earlier(made: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Add an earlier run's results of other variants to this run's.

    Args:
        made, earlier: records of `tans space ablate`. The earlier one is used if its full objective has exactly the
            same figures on equally many networks and tasks: then data, recipe and seeds are the same. Code that only a
            variant uses may differ.
    """
    counts = ("seeds", "folds", "tasks", "judged_tasks", "networks")
    same = all(earlier.get(name) == made[name] for name in counts)
    if not same or earlier.get("variants", {}).get(FULL) != made["variants"][FULL]:
        return dict(made)
    kept = {name: reason for name, reason in earlier["left_out"].items() if name not in made["variants"]}
    variants = {name: row for name, row in earlier["variants"].items() if name not in made["left_out"]}
    return {**made, "variants": variants | made["variants"], "left_out": kept | made["left_out"]}
