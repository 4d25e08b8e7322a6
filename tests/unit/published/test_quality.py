"""Measures of a space on a zoo of the published form, compared with slow, obvious loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tans_core.errors import StoreError
from tans_core.published.fit import hold_out_at_random, quality


def retrieval(similarity: Tensor, home: Tensor, among: Tensor) -> dict[str, float]:
    zeros = torch.zeros(len(home))
    return quality(similarity, zeros, zeros, home, ~among)["insample"]


def test_a_share_of_each_task_is_held_out_and_never_all() -> None:
    home = torch.tensor([0] * 8 + [1] * 2 + [2])
    heldout = hold_out_at_random(home, 0.25, seed=0)
    assert [int(heldout[home == task].sum()) for task in range(3)] == [2, 1, 0]
    assert torch.equal(heldout, hold_out_at_random(home, 0.25, seed=0))
    assert int(hold_out_at_random(home, 0.9, seed=0)[:8].sum()) == 7
    assert not hold_out_at_random(home, 0.0, seed=0).any()
    # What a task holds out depends on its own networks alone.
    assert torch.equal(heldout[:8], hold_out_at_random(home[:8], 0.25, seed=0))
    assert any(not torch.equal(heldout, hold_out_at_random(home, 0.25, seed=seed)) for seed in range(1, 9))


def test_retrieval_is_that_of_a_slow_reference() -> None:
    home = torch.arange(6).repeat(5)
    similarity = torch.randn(6, 30, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    among = torch.ones(30, dtype=torch.bool)
    among[[2, 9, 17]] = False
    members = [[row for row in range(30) if home[row] == task and among[row]] for task in range(6)]
    ranks = []
    for draw in range(5):
        batch = [rows[draw % len(rows)] for rows in members]
        for task in range(6):
            mine = float(similarity[task, batch[task]])
            others = [float(similarity[task, batch[other]]) for other in range(6) if other != task]
            ranks.append(1 + sum(value > mine for value in others) + sum(value == mine for value in others) / 2)
    found = retrieval(similarity, home, among)
    assert found["mean_rank"] == pytest.approx(np.mean(ranks))
    assert found["recall_at_1"] == pytest.approx(np.mean([rank <= 1 for rank in ranks]))
    assert found["recall_at_5"] == pytest.approx(np.mean([rank <= 5 for rank in ranks]))


def test_task_without_a_network_takes_no_part() -> None:
    home, similarity = torch.tensor([0, 1, 1, 2, 0]), torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    among = torch.tensor([True, False, False, True, True])
    alone = retrieval(similarity[[0, 2]][:, among], torch.tensor([0, 1, 0]), torch.ones(3, dtype=torch.bool))
    assert retrieval(similarity, home, among) == alone
    with pytest.raises(StoreError, match="no network to measure on"):
        retrieval(similarity, home, torch.zeros(5, dtype=torch.bool))


def test_predictions_are_judged_inside_each_task_on_heldout_networks_alone() -> None:
    home = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1])
    accuracy = torch.tensor([0.2, 0.5, 0.6, 0.9, 0.7, 0.95, 1.0, 0.0])
    heldout = torch.tensor([True] * 6 + [False] * 2)
    similarity = torch.zeros(2, 8)
    # Task 0: its order is right. Task 1: its order is reversed, the worst is picked.
    predicted = torch.tensor([-5.0, 0.0, 9.0, 0.2, 0.3, 0.1, 99.0, 99.0])
    found = quality(similarity, predicted, accuracy, home, heldout)["heldout"]
    assert found["spearman"] == pytest.approx((1 - 1) / 2)
    assert found["regret"] == pytest.approx((0 + 0.25) / 2, abs=1e-6)
    assert found["chance_regret"] == pytest.approx((0.6 - 1.3 / 3 + 0.95 - 2.55 / 3) / 2, abs=1e-6)
    assert found["recall_at_1"] == 0
    # A constant prediction says nothing, and picks at random.
    constant = quality(similarity, torch.ones(8), accuracy, home, heldout)["heldout"]
    assert constant["spearman"] == 0
    assert constant["regret"] == pytest.approx(constant["chance_regret"])
