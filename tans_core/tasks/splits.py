"""Which image goes to train, val and test: from a seed, by groups, stratified.

Axes: N images, G groups, K classes, 3 splits in the order of `SPLITS`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tans_core.tasks.task import SPLITS

SHARES = (0.6, 0.15, 0.25)
"""Shares of train, val and test where the source draws no line."""

LARGE_TABLE = 20_000_000
"""Groups times classes above which images are dealt class by class, without a table of both."""

_FEW_GROUPS = 64
_TRIES = 32


def assign_splits(
    labels: npt.NDArray[np.int64],
    groups: Sequence[str],
    seed: int,
    shares: tuple[float, float, float] = SHARES,
) -> npt.NDArray[np.str_]:
    """Assign each image to a split so that no group straddles train and test.

    Where a class has fewer than three groups, test is drawn first, and val from what is left, so that few groups serve test.

    Args:
        labels: (N,) class indices.
        groups: N names; images of one name stay together. An empty name stands alone.
        seed: the same seed, labels and groups give the same splits.
        shares: wanted shares of train, val, test.

    Returns:
        (N,) str, each one of `SPLITS`. A class of one group is in train alone.
    """
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
    """Return `splits` with a val split taken out of train by groups; a class of one group there stays in train whole."""
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
    place: dict[int, list[tuple[int, int]]] = {}
    for index in order:
        label, group = int(labels[index]), groups[index]
        turn[label, group] = turn.get((label, group), -1) + 1
        # A lone image counts as the first of its group, so lone images keep their random order.
        place.setdefault(label, []).append((turn[label, group] if group else 0, int(index)))
    queues = [[index for _, index in sorted(place[label], key=lambda item: item[0])] for label in sorted(place)]
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
    """Deal whole groups to the splits."""
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
    """Deal each class's groups in random order: test first, then val, the rest to train, where at least one of them stays.

    A group belongs to the class of its first image.
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
        # The last one teaches the class, whatever it takes from the others.
        split_of[members[-1]] = 0
    return np.array(SPLITS)[split_of[group_ids]]


def _deal_groups(
    counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Deal G groups, (G, K) counts, to 3 splits; with few groups the best of several random orders is kept."""
    totals = np.maximum(counts.sum(axis=0), 1)
    relative = counts / totals
    wanted = np.flatnonzero(shares > 0)
    taught = np.flatnonzero(counts.sum(axis=0))
    best: tuple[float, float] | None = None
    for _ in range(_TRIES if len(counts) <= _FEW_GROUPS else 1):
        chosen, filled = _deal_once(relative, shares, rng)
        # First of all every class in every split; then shares as wanted.
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
    # A lone group of its class must stay in train: nothing else can teach the class.
    lone = np.asarray((relative > 0.999).any(axis=1))
    for group in sorted(order, key=lambda g: not lone[g]):
        row = relative[group]
        if lone[group]:
            split = 0
        else:
            missing = (shares[:, None] - filled) * per_share[:, None]
            gain = (missing * row).sum(axis=1)
            gain[shares == 0] = -np.inf
            split = int(np.argmax(gain))
        chosen[group] = split
        filled[split] += row
    return chosen, filled
