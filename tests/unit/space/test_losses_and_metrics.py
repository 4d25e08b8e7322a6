import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tans_core.space.losses import contrastive_hinge
from tans_core.space.metrics import prediction_quality, ranks_of_own, recall_and_rank, standardise_within


def unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_contrastive_loss_is_the_hinge_summed_over_both_ways_a_violated_pair() -> None:
    queries, models, margin = unit(6, 0), unit(6, 1), 0.2
    similarity = models.numpy() @ queries.numpy().T
    total, violated = 0.0, 0
    for i in range(6):
        for j in range(6):
            if i == j:
                continue
            for own in (similarity[j, j], similarity[i, i]):
                term = max(0.0, similarity[i, j] + margin - own)
                total, violated = total + term, violated + (term > 0)
    assert float(contrastive_hinge(queries, models, margin)) == pytest.approx(total / max(violated, 6), rel=1e-5)


def test_contrastive_loss_is_zero_once_every_pair_keeps_its_margin() -> None:
    rows = torch.eye(4)
    assert float(contrastive_hinge(rows, rows, margin=0.5)) == 0.0
    assert float(contrastive_hinge(rows, rows.roll(1, 0), margin=0.5)) > 0.5


def test_contrast_of_one_task_is_refused() -> None:
    with pytest.raises(ValueError, match="two tasks"):
        contrastive_hinge(torch.ones(1, 2), torch.ones(1, 2), 0.2)


def test_ranks_count_nearer_models_and_half_of_the_ties() -> None:
    similarity = np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.5, 0.5, 0.5]])
    assert ranks_of_own(similarity).tolist() == [1, 3, 2]
    assert ranks_of_own(similarity[:1], own=[2]).tolist() == [2]


def test_constant_similarity_has_the_rank_of_chance_and_no_recall() -> None:
    summary = recall_and_rank(ranks_of_own(np.zeros((20, 20))))
    assert summary == {"recall_at_1": 0, "recall_at_5": 0, "recall_at_10": 0, "mean_rank": 10.5}


def test_prediction_quality_is_judged_inside_each_task() -> None:
    actual = [np.array([1.0, 2.0, 3.0]), np.array([11.0, 12.0, 13.0])]
    assert prediction_quality([a + 5 for a in actual], actual) == {"spearman": 1.0, "mae": 5.0}
    # Right about which task is easy, wrong inside both.
    assert prediction_quality([a[::-1] for a in actual], actual)["spearman"] == -1.0
    assert prediction_quality([np.zeros(3), np.zeros(3)], actual)["spearman"] == 0.0


def test_scores_are_standardised_inside_their_group() -> None:
    values, groups = np.array([0.1, 0.2, 0.3, 0.9, 0.9]), np.array([0, 0, 0, 1, 1])
    scores = standardise_within(values, groups)
    np.testing.assert_allclose(scores, [-1.2247449, 0, 1.2247449, 0, 0], atol=1e-6)
