"""Drift: how far newcomers lie from the networks that a space was made from.

Axes: M networks that the space was made from, N newcomers, T topology width, E functional width, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.distance import cdist
from scipy.stats import binomtest

from tans_core.embeddings.store import ModelRows
from tans_core.errors import StoreError
from tans_core.io import read_json, write_json
from tans_core.zoo.weights import load_tensors, save_tensors

FAR = 0.95
"""A newcomer is far when it lies beyond this quantile of the space's own networks."""
_NEIGHBOURS = 5
_ROWS = 512  # rows of a distance matrix computed at a time

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Drift:
    """Where one newcomer lies.

    Attributes:
        id, home_task: of the newcomer.
        home_known: whether the space was made from networks of its home task.
        distance: mean distance to the k nearest networks of the space, as a multiple of the limit for far.
        quantile: share of the space's own networks that lie at most as far from the others, 0..1.
        new_slots: slots of its topology code outside the range of the space's own networks.
    """

    id: str
    home_task: str
    home_known: bool
    distance: float
    quantile: float
    new_slots: int

    @property
    def far(self) -> bool:
        return self.quantile > FAR


@dataclass(frozen=True)
class DriftVerdict:
    """Whether a group of newcomers still fits the space.

    Attributes:
        newcomers, far: how many, and how many of them are far.
        homes, far_homes: their home tasks, and those whose median newcomer is far.
        foreign: far newcomers whose home task the space was not made from.
        share: `far` over `newcomers`; 0 for no newcomer.
        p_value: probability of at least so many far homes by chance alone (binomial test); 1 for no newcomer.
        due: whether to retrain.
    """

    newcomers: int
    far: int
    homes: int
    far_homes: int
    foreign: int
    share: float
    p_value: float
    due: bool

    def in_words(self) -> str:
        """Return lines of text, with the next command."""
        if not self.newcomers:
            return "No newcomers: the space was made from all networks in production."
        counts = f"{self.far} of {self.newcomers} newcomers are far ({self.far_homes} of {self.homes} home tasks"
        lines = [f"{counts}; p = {self.p_value:.2g} by chance)."]
        if not self.due:
            return f"{lines[0]} They are served all the same."
        lines[0] += " Retraining is due: `tans build`, then `tans publish`."
        if self.foreign:
            lines.append(
                f"{self.foreign} of them come from home tasks that are not in params.yaml, so training uses only their "
                "trials. `tans tasks add` makes a data set a task."
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class DriftReference:
    """The networks that a space was made from, and how far each of them lies from the others.

    Networks of one task share a supernet and lie close together. A newcomer of an unknown home task has no such
    siblings, so it is compared with `without_siblings`, and a newcomer of a known home task with `with_siblings`.

    Attributes:
        ids: M ids.
        homes: M names of home tasks.
        functional: (M, E) float32, standardised.
        mean, scale: (E,) float32, of the standardisation; the scale of a constant column is 0.
        slots: (2, T) float32, least and greatest value of each slot of the topology code.
        with_siblings, without_siblings: (M,) float32, each network's distance to the k nearest others: of any home
            task, and of other home tasks only.
    """

    ids: tuple[str, ...]
    homes: tuple[str, ...]
    functional: Floats
    mean: Floats
    scale: Floats
    slots: Floats
    with_siblings: Floats
    without_siblings: Floats

    @classmethod
    def of(cls, models: ModelRows, tasks: Sequence[str]) -> DriftReference:
        """Build the reference from all networks of the table.

        Raises:
            StoreError: they come from fewer than two tasks.
        """
        # General features and newcomers of unknown tasks have no siblings: each gets a group of its own.
        known = {card.home_task for card in models.cards if not card.general} & set(tasks)
        homes = tuple(
            card.home_task if card.home_task in known and not card.general else f"({card.id})" for card in models.cards
        )
        if len(known) < 2:
            raise StoreError(
                f"drift needs networks of at least 2 home tasks, got {len(known)}. Run `tans build embed`."
            )
        functional, topology = models.functional, models.topology
        mean, deviation = functional.mean(axis=0), functional.std(axis=0)
        scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
        points = _standardise(functional, mean, scale)
        rows = np.arange(len(homes))
        return cls(
            ids=tuple(card.id for card in models.cards),
            homes=homes,
            functional=points,
            mean=mean,
            scale=scale,
            slots=np.stack([topology.min(axis=0), topology.max(axis=0)]),
            with_siblings=_distances(points, points, rows, rows),
            without_siblings=_distances(points, points, _numbered(homes, homes), _numbered(homes, homes)),
        )

    def measure(
        self, ids: Sequence[str], homes: Sequence[str], topology: Floats, functional: Floats
    ) -> tuple[Drift, ...]:
        """Measure N newcomers.

        Args:
            ids, homes: N ids and names of home tasks.
            topology: (N, T) float32 codes.
            functional: (N, E) float32, not standardised.

        Raises:
            StoreError: codes or embeddings differ in width from the space's.
        """
        got, want = (topology.shape[1], functional.shape[1]), (self.slots.shape[1], self.functional.shape[1])
        if got != want:
            raise StoreError(
                f"newcomers: topology and functional widths are {got}, the space's {want}. Run `tans build`."
            )
        distances = _distances(_standardise(functional, self.mean, self.scale), self.functional)
        new_slots = ((topology < self.slots[0]) | (topology > self.slots[1])).sum(axis=1)
        known = set(self.homes)
        drifts = []
        for row, (name, home) in enumerate(zip(ids, homes, strict=True)):
            reference = self.with_siblings if home in known else self.without_siblings
            limit = float(np.quantile(reference, FAR))
            drifts.append(
                Drift(
                    id=name,
                    home_task=home,
                    home_known=home in known,
                    distance=float(distances[row]) / limit if limit > 0 else 0.0,
                    quantile=float((reference <= distances[row]).mean()),
                    new_slots=int(new_slots[row]),
                )
            )
        return tuple(drifts)

    def save(self, folder: Path) -> None:
        """Write `drift.safetensors` and `drift.json` beside the space."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        save_tensors({name: torch.from_numpy(values) for name, values in arrays.items()}, folder / "drift.safetensors")
        write_json({"ids": self.ids, "homes": self.homes, "neighbours": _NEIGHBOURS}, folder / "drift.json")

    @classmethod
    def load(cls, folder: Path) -> DriftReference:
        """Read what `save` wrote.

        Raises:
            StoreError: the space was made before drift was measured.
            WeightsError: the file is damaged.
        """
        path = folder / "drift.json"
        if not path.is_file():
            raise StoreError(
                f"{path}: no such file: this space is older than drift. Run `tans build`, then `tans publish`."
            )
        names, tensors = read_json(path), load_tensors(folder / "drift.safetensors")
        arrays = {name: tensors[name].numpy() for name in _ARRAYS}
        return cls(tuple(names["ids"]), tuple(names["homes"]), **arrays)


_ARRAYS = ("functional", "mean", "scale", "slots", "with_siblings", "without_siblings")


def judge_drift(drifts: Sequence[Drift], max_share: float = 0.5, alpha: float = 0.01, few: int = 5) -> DriftVerdict:
    """Decide whether newcomers lie so far from the space's own networks that retraining is due.

    It is due when more than `max_share` of at least `few` newcomers are far, or when the number of far home tasks has a
    probability below `alpha` by chance. The test counts home tasks, since newcomers of one task are not independent.
    """
    far = [one for one in drifts if one.far]
    homes = {one.home_task for one in drifts}
    far_homes = [home for home in homes if median(d.quantile for d in drifts if d.home_task == home) > FAR]
    share = len(far) / len(drifts) if drifts else 0.0
    p_value = binomtest(len(far_homes), len(homes), 1 - FAR, alternative="greater").pvalue if homes else 1.0
    return DriftVerdict(
        newcomers=len(drifts),
        far=len(far),
        homes=len(homes),
        far_homes=len(far_homes),
        foreign=sum(not one.home_known for one in far),
        share=share,
        p_value=float(p_value),
        due=(share > max_share and len(drifts) >= few) or p_value < alpha,
    )


def _standardise(functional: Floats, mean: Floats, scale: Floats) -> Floats:
    return np.asarray((functional - mean) * scale, dtype=np.float32)


def _numbered(homes: Sequence[str], known: Sequence[str]) -> npt.NDArray[np.int64]:
    number = {home: index for index, home in enumerate(sorted(set(known)))}
    return np.array([number[home] for home in homes], dtype=np.int64)


def _distances(
    points: Floats,
    others: Floats,
    groups: npt.NDArray[np.int64] | None = None,
    other_groups: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """Return each point's (P,) root mean square distance over the E columns, averaged over its k nearest others.

    Args:
        points: (P, E) float32.
        others: (M, E) float32.
        groups, other_groups: (P,) and (M,); points of one group are not each other's neighbours. None compares all.
    """
    means = np.empty(len(points), dtype=np.float32)
    for start in range(0, len(points), _ROWS):
        rows = slice(start, start + _ROWS)
        distances = cdist(points[rows], others)  # (rows, M)
        if groups is not None and other_groups is not None:
            distances[groups[rows, None] == other_groups[None]] = np.inf
        count = min(_NEIGHBOURS, int(np.isfinite(distances).sum(axis=1).min()))
        nearest = np.partition(distances, count - 1, axis=1)[:, :count]
        means[rows] = nearest.mean(axis=1) / points.shape[1] ** 0.5
    return means
