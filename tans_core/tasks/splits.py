"""Assignment of images to train, val and test: seeded, by groups, stratified by class.

Axes: N images, G groups, K classes, 3 splits in the order of `SPLITS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tans_core.classes import in_order
from tans_core.tasks.duplicates import Labelled
from tans_core.tasks.task import SPLITS

SHARES = (0.6, 0.15, 0.25)
"""Shares of train, val and test if the source defines no splits."""

LARGE_TABLE = 20_000_000
"""Groups times classes above which images are split class by class, without a table of both."""

_FEW_GROUPS = 64
_TRIES = 32


class Splittable(Labelled, Protocol):
    """The fields of an image that decide its split; images of one `group` stay together, unless it is empty."""

    @property
    def group(self) -> str: ...


def labels_of(rows: Sequence[Splittable]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the K class names in order, and each row's index into them, (N,)."""
    names = in_order({row.label for row in rows})
    index_of = {label: index for index, label in enumerate(names)}
    return names, np.array([index_of[row.label] for row in rows], dtype=np.int64)


def plan_splits(rows: Sequence[Splittable], seed: int) -> npt.NDArray[np.str_]:
    """Return the split of each row, (N,): the input's own, and what it lacks of test and val; else drawn by group."""
    labels, groups = labels_of(rows)[1], [row.group for row in rows]
    given = {row.split for row in rows}
    if given <= {None}:
        return assign_splits(labels, groups, seed)
    splits = np.array([row.split for row in rows], dtype="<U5")
    if "test" not in given:
        # With train and val only, val serves as the test split.
        splits[splits == "val"] = "test"
    return splits if {"val", "test"} <= given else carve_val(splits, labels, groups, seed)


def assign_splits(
    labels: npt.NDArray[np.int64],
    groups: Sequence[str],
    seed: int,
    shares: tuple[float, float, float] = SHARES,
) -> npt.NDArray[np.str_]:
    """Assign each image to a split so that no group is in both train and test.

    If a class has fewer than three groups, test is drawn first and val from the rest, so test comes before val.

    Args:
        labels: (N,) class indices.
        groups: N names; images of one name stay together. An image with an empty name is alone.
        seed: the same seed, labels and groups give the same splits.
        shares: wanted shares of train, val, test.

    Returns:
        (N,) str, each one of `SPLITS`. A class of one group is in train only.
    """
    if not groups:
        return np.empty(0, dtype="<U5")
    rng = np.random.default_rng(seed)
    group_ids = _group_ids(groups)
    pairs = np.unique(np.stack([labels, group_ids]), axis=1)[0]
    if np.unique(pairs, return_counts=True)[1].min() >= 3:
        return _deal(labels, group_ids, np.array(shares), rng)
    splits = _deal(labels, group_ids, np.array([shares[0] + shares[1], 0.0, shares[2]]), rng)
    return carve_val(splits, labels, groups, seed)


def carve_val(
    splits: npt.NDArray[np.str_], labels: npt.NDArray[np.int64], groups: Sequence[str], seed: int
) -> npt.NDArray[np.str_]:
    """Return `splits` with val taken out of train by groups; a class with one group in train stays there."""
    in_train = np.flatnonzero(splits == "train")
    if len(in_train) == 0:
        return splits
    share = SHARES[1] / (SHARES[0] + SHARES[1])
    ids = _group_ids([groups[int(i)] for i in in_train])
    inner = _deal(labels[in_train], ids, np.array([1 - share, 0.0, share]), np.random.default_rng(seed))
    result = splits.copy()
    result[in_train[inner == "test"]] = "val"
    return result


def balanced_subset(
    labels: npt.NDArray[np.int64], groups: Sequence[str], limit: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return at most `limit` indices, evenly over classes, and within a class evenly over groups; in random order."""
    order = rng.permutation(len(labels))
    turn: dict[tuple[int, str], int] = {}
    turns: dict[int, list[tuple[int, int]]] = {}
    for index in order:
        label, group = int(labels[index]), groups[index]
        turn[label, group] = turn.get((label, group), -1) + 1
        # An image without a group is the first of its own, so these images keep their random order.
        turns.setdefault(label, []).append((turn[label, group] if group else 0, int(index)))
    queues = [[index for _, index in sorted(turns[label], key=lambda item: item[0])] for label in sorted(turns)]
    picked: list[int] = []
    depth = 0
    while len(picked) < limit and any(depth < len(queue) for queue in queues):
        picked += [queue[depth] for queue in queues if depth < len(queue)]
        depth += 1
    return rng.permutation(np.array(picked[:limit], dtype=np.int64))


def _group_ids(groups: Sequence[str]) -> npt.NDArray[np.int64]:
    known: dict[str, int] = {}
    ids = np.empty(len(groups), dtype=np.int64)
    for index, group in enumerate(groups):
        ids[index] = known.setdefault(group or f"\0{index}", len(known))
    return ids


def _deal(
    labels: npt.NDArray[np.int64],
    group_ids: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> npt.NDArray[np.str_]:
    """Assign whole groups to splits."""
    shape = (int(group_ids.max()) + 1, int(labels.max()) + 1)
    if shape[0] * shape[1] > LARGE_TABLE:
        return _deal_by_class(labels, group_ids, shares, rng)
    counts = np.zeros(shape, dtype=np.int64)
    np.add.at(counts, (group_ids, labels), 1)
    return np.array(SPLITS)[_deal_groups(counts, shares, rng)[group_ids]]


def _deal_by_class(
    labels: npt.NDArray[np.int64],
    group_ids: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> npt.NDArray[np.str_]:
    """Assign each class's groups in random order: to test, then val, then train, which gets at least one of them.

    A group counts for the class of its first image.
    """
    ids, first, sizes = np.unique(group_ids, return_index=True, return_counts=True)
    owner = labels[first]
    split_of = np.zeros(len(ids), dtype=np.int64)
    order = rng.permutation(len(ids))
    order = order[np.argsort(owner[order], kind="stable")]
    for members in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
        filled = np.cumsum(sizes[members]) - sizes[members]
        total = sizes[members].sum()
        split_of[members[filled < shares[2] * total]] = 2
        split_of[members[(filled >= shares[2] * total) & (filled < (shares[1] + shares[2]) * total)]] = 1
        # The last group is in train, so that each class can be learned.
        split_of[members[-1]] = 0
    return np.array(SPLITS)[split_of[group_ids]]


def _deal_groups(
    counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Assign G groups, (G, K) counts, to 3 splits; with few groups, take the best of several random orders."""
    totals = np.maximum(counts.sum(axis=0), 1)
    relative = counts / totals
    wanted = np.flatnonzero(shares > 0)
    taught = np.flatnonzero(counts.sum(axis=0))
    best: tuple[float, float] | None = None
    for _ in range(_TRIES if len(counts) <= _FEW_GROUPS else 1):
        chosen, filled = _deal_once(relative, shares, rng)
        # The first aim is every class in every split; the second, the wanted shares.
        empty = float((filled[np.ix_(wanted, taught)] == 0).sum())
        error = float(((filled - shares[:, None]) ** 2).sum())
        if best is None or (empty, error) < best:
            best, result = (empty, error), chosen
    return result


def _deal_once(
    relative: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    order = rng.permutation(len(relative))
    filled = np.zeros((len(SPLITS), relative.shape[1]))
    chosen = np.zeros(len(relative), dtype=np.int64)
    per_share = 1.0 / np.maximum(shares, 1e-9)
    dealt = np.flatnonzero(shares > 0).tolist()
    single, column = np.count_nonzero(relative, axis=1) == 1, relative.argmax(axis=1)
    # The only group of a class must be in train, or the class cannot be learned.
    lone = np.asarray((relative > 0.999).any(axis=1))
    for group in sorted(order, key=lambda g: not lone[g]):
        row = relative[group]
        if lone[group]:
            split = 0
        elif single[group]:
            # The same, without arrays: most groups are single images, and there may be many.
            at = column[group]
            split = max(dealt, key=lambda s: (shares[s] - filled[s, at]) * per_share[s] * row[at])
            filled[split, at] += row[at]
            chosen[group] = split
            continue
        else:
            missing = (shares[:, None] - filled) * per_share[:, None]
            gain = (missing * row).sum(axis=1)
            gain[shares == 0] = -np.inf
            split = int(np.argmax(gain))
        chosen[group] = split
        filled[split] += row
    return chosen, filled
