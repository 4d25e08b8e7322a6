from __future__ import annotations

import numpy as np
import pytest

from tans_core.tasks import splits as splits_module
from tans_core.tasks.splits import SHARES, assign_splits, balanced_subset, carve_val
from tans_core.tasks.task import SPLITS


def test_groups_never_straddle_splits() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 600)
    groups = [f"face {number}" for number in rng.integers(0, 12, 600)]
    splits = assign_splits(labels, groups, seed=1)
    for group in set(groups):
        assert len({split for split, name in zip(splits, groups, strict=True) if name == group}) == 1
    for label in range(5):
        assert set(splits[labels == label]) == {"train", "val", "test"}


def test_lone_images_are_split_by_class_in_the_wanted_shares() -> None:
    labels = np.repeat(np.arange(4), 100)
    splits = assign_splits(labels, [""] * 400, seed=0)
    for label in range(4):
        shares = [np.mean(splits[labels == label] == split) for split in ("train", "val", "test")]
        np.testing.assert_allclose(shares, SHARES, atol=0.02)


def test_a_class_of_two_groups_gives_one_to_test_and_none_to_val() -> None:
    labels = np.repeat([0, 1], 100)
    groups = [f"class {label}, field {number % 2}" for number, label in enumerate(labels)]
    splits = assign_splits(labels, groups, seed=3)
    test_groups = {group for group, split in zip(groups, splits, strict=True) if split == "test"}
    assert len(test_groups) == 2
    assert all(split == "test" for group, split in zip(groups, splits, strict=True) if group in test_groups)
    assert (splits == "val").sum() == 0


def test_no_group_straddles_any_two_splits_where_one_class_has_few_groups() -> None:
    labels = np.array([0] * 30 + [1] * 30 + [2] * 2)
    groups = [f"near-{index // 3}" for index in range(60)] + ["", ""]
    for seed in range(10):
        found = assign_splits(labels, groups, seed=seed)
        for group in set(groups) - {""}:
            assert len({str(split) for split, name in zip(found, groups, strict=True) if name == group}) == 1
        assert {"train", "val", "test"} == set(found[:30].tolist()) == set(found[30:60].tolist())


def test_a_class_of_one_group_stays_in_train() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2])
    splits = assign_splits(labels, [""] * 41, seed=0)
    assert splits[-1] == "train"


def test_the_seed_alone_decides() -> None:
    labels = np.repeat(np.arange(3), 50)
    groups = [f"g{number % 10}" for number in range(150)]
    first, again, other = (assign_splits(labels, groups, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_carving_val_leaves_test_alone_and_keeps_groups_whole() -> None:
    labels = np.repeat(np.arange(2), 60)
    groups = [f"{label}-{number % 6}" for number, label in enumerate(labels)]
    given = np.array(["train", "test"] * 60)
    # Groups of even number lie in train, of odd number in test.
    carved = carve_val(given, labels, groups, seed=0)
    np.testing.assert_array_equal(carved == "test", given == "test")
    assert set(carved) == {"train", "val", "test"}
    for group in set(groups):
        assert len({split for split, name in zip(carved, groups, strict=True) if name == group}) == 1


def test_a_capped_subset_is_even_over_classes_and_groups() -> None:
    labels = np.array([0] * 900 + [1] * 100)
    groups = ["large"] * 860 + ["small"] * 40 + [""] * 100
    picked = balanced_subset(labels, groups, 120, np.random.default_rng(0))
    assert len(set(picked.tolist())) == 120
    assert np.bincount(labels[picked]).tolist() == [60, 60]
    assert sum(groups[index] == "small" for index in picked) == 30


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_a_subset_never_exceeds_its_limit(limit: int) -> None:
    labels = np.arange(50) % 3
    assert len(balanced_subset(labels, [""] * 50, limit, np.random.default_rng(0))) == min(limit, 50)


def test_many_images_of_many_classes_are_split_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits_module, "LARGE_TABLE", 10)
    labels = np.repeat(np.arange(50), 40)
    groups = [f"g{index // 2}" if index % 40 < 10 else "" for index in range(len(labels))]
    found = assign_splits(labels, groups, seed=3)
    np.testing.assert_array_equal(found, assign_splits(labels, groups, seed=3))
    for label in range(50):
        counts = {split: int((found[labels == label] == split).sum()) for split in SPLITS}
        assert 20 <= counts["train"] <= 28 and 4 <= counts["val"] <= 8 and 9 <= counts["test"] <= 12
    for group in set(groups) - {""}:
        assert len({str(found[index]) for index, name in enumerate(groups) if name == group}) == 1
    lone = assign_splits(np.arange(20), [""] * 20, seed=0)
    assert set(lone.tolist()) == {"train"}
