"""Which models of an index may answer. Axes: M models."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tans_core.errors import NoModelFitsError, ParamsError, StoreError, did_you_mean
from tans_core.index.search import Index, Kept
from tans_core.retrieval.constraints import RANGES, SETS, Constraints, nearest_miss
from tans_core.zoo.card import ModelCard
from tans_core.zoo.latency import medians

Beside = Mapping[str, Mapping[str, float]]
"""Values of models that the index does not contain: by range, by id."""


@dataclass(frozen=True)
class Fitting:
    """The models that satisfy the limits of a request: found before its images are read, and used until its answer.

    Attributes:
        index: that they were found in; for another one, they have to be found again.
        kept: (M,) which of its models they are; None for all.
        latencies: by id, in milliseconds, under the profile of the limits; empty without one.
    """

    index: Index
    kept: Kept | None
    latencies: Mapping[str, float]

    def __len__(self) -> int:
        return len(self.index) if self.kept is None else int(np.count_nonzero(self.kept))


def by_row(index: Index, values: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Return values that are given by id for all models, (M,); NaN for those that have none."""
    numbers, ids = index.names("id")
    return np.array([values.get(name, np.nan) for name in ids], dtype=np.float64)[numbers]


def values_of(index: Index, name: str, beside: Beside) -> npt.NDArray[np.float64]:
    """Return what a range compares, (M,); NaN where it is unknown."""
    one = RANGES[name]
    return by_row(index, beside.get(name, {})) if one.column is None else index.numbers(one.column) * one.factor


def within(index: Index, constraints: Constraints, beside: Beside) -> Kept | None:
    """Return which models satisfy the constraints, (M,); None if there are none.

    Args:
        index: the models.
        constraints: on them.
        beside: values of the ranges that the index does not contain.
    """
    kept: Kept | None = None

    def narrow(more: Kept) -> Kept:
        return more if kept is None else kept & more

    for name in filter(constraints.limits, RANGES):
        low, high = constraints.range_of(name)
        values = values_of(index, name, beside)
        if low is not None:
            kept = narrow(values >= low)
        if high is not None:
            kept = narrow(values <= high)
    for name, one in SETS.items():
        given = getattr(constraints, name)
        if given is not None:
            numbers, texts = index.names(one.column)
            kept = narrow(np.array([not one.lacks(text, given) for text in texts], dtype=np.bool_)[numbers])
    return kept


def check_homes(index: Index, constraints: Constraints) -> None:
    """Raise ParamsError if the constraints name a home task that no model has."""
    _, tasks = index.names("home_task")
    wrong = [
        f"{option}: got {name!r}, want the home task of a network{did_you_mean(name, tasks)}"
        for option in ("home", "not_home")
        for name in getattr(constraints, option) or ()
        if name not in tasks
    ]
    if wrong:
        raise ParamsError("; ".join(wrong) + ".\nRun `tans models list` to see them.")


def require_some(index: Index, constraints: Constraints, beside: Beside) -> Fitting:
    """Return the models that satisfy the constraints; arguments are those of `within`.

    Raises:
        NoModelFitsError: no model satisfies the constraints; names the nearest ones, and limits to relax for them.
        ParamsError: no model has a home task that they name.
    """
    check_homes(index, constraints)
    kept = within(index, constraints, beside)
    if not len(index) or (kept is not None and not kept.any()):
        raise NoModelFitsError(nearest_miss(_models(index, beside), constraints))
    return Fitting(index, kept, beside.get("latency_ms", {}))


def timed_profiles(folder: Path, cards: Mapping[str, ModelCard]) -> tuple[str, ...]:
    """Return the profiles of a folder of latencies under which one of these models was timed, by name."""
    names = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(StoreError):  # a damaged file: a search that names it says so
            names += [path.stem] if medians(folder, path.stem, cards) else []
    return tuple(names)


def _models(index: Index, beside: Beside) -> list[dict[str, Any]]:
    models = index.rows(np.arange(len(index)), ["id", *dict.fromkeys(one.column for one in SETS.values())])
    for name in RANGES:
        for model, value in zip(models, values_of(index, name, beside).tolist(), strict=True):
            model[name] = None if math.isnan(value) else value
    return models
