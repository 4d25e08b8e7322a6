"""Rounds of one network a task, and the ranks in them."""

from __future__ import annotations

import pytest
import torch

from tans_core.errors import StoreError
from tans_core.space.quality import ranks_of_own, recall, rounds_of_one

HOME = torch.tensor([1, 0, 1, 2, 0, 1, 2, 1])


def test_rounds_hold_one_network_of_each_task_and_use_all() -> None:
    rounds = rounds_of_one(HOME, torch.ones(8, dtype=torch.bool), 3)
    assert rounds.shape == (4, 3)
    for one in rounds:
        assert HOME[one].tolist() == [0, 1, 2]
    assert rounds[:, 1].tolist() == [0, 2, 5, 7]
    assert rounds[:, 0].tolist() == [1, 4, 1, 4]


def test_rounds_draw_from_those_that_may_take_part() -> None:
    among = torch.tensor([True, True, False, True, False, True, False, False])
    assert rounds_of_one(HOME, among, 3).tolist() == [[1, 0, 3], [1, 5, 3]]
    among[3] = False
    with pytest.raises(StoreError, match="1 of 3 tasks have no network"):
        rounds_of_one(HOME, among, 3)


def test_ranks_count_ties_half() -> None:
    similarity = torch.tensor([[0.5, 0.9, 0.5], [0.1, 0.7, 0.2], [0.3, 0.3, 0.3]])
    assert ranks_of_own(similarity).tolist() == [2.5, 1.0, 2.0]
    assert recall(torch.tensor([1.0, 2.5, 6.0, 40.0, 1.0])) == {
        "recall_at_1": 0.4,
        "recall_at_5": 0.6,
        "recall_at_10": 0.8,
        "mean_rank": pytest.approx(10.1),
        "median_rank": 2.5,
    }
