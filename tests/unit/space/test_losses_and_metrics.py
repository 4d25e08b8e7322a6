import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.stats import weightedtau

from tans_core.space.losses import frechet_distances, frechet_loss, matching_loss, rank_loss
from tans_core.space.measure import Order, calibration, refine_weights
from tans_core.space.metrics import order_quality, prediction_quality, standardise_within


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, 5, generator=torch.Generator().manual_seed(seed)), dim=-1)


def slow_matching(queries: np.ndarray, models: np.ndarray, temperature: float) -> float:
    """By loops: -log of a model's task among all tasks, and of a task's model among itself and other tasks' models."""
    tasks, positives = models.shape[:2]
    by_model, by_query = [], []
    for task in range(tasks):
        for number in range(positives):
            own = math.exp(models[task, number] @ queries[task] / temperature)
            any_task = sum(math.exp(models[task, number] @ queries[other] / temperature) for other in range(tasks))
            by_model.append(-math.log(own / any_task))
            others = 0.0
            for other in range(tasks):
                for foreign in range(positives):
                    if other != task:
                        others += math.exp(models[other, foreign] @ queries[task] / temperature)
            by_query.append(-math.log(own / (own + others)))
    return float(np.mean(by_model) + np.mean(by_query))


@pytest.mark.parametrize(("tasks", "positives"), [(2, 1), (2, 3), (6, 1), (6, 4)])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_matching_loss_is_the_cross_entropy_of_both_ways(tasks: int, positives: int, temperature: float) -> None:
    queries, models = unit(tasks, seed=0), unit(tasks, positives, seed=1)
    wanted = slow_matching(queries.double().numpy(), models.double().numpy(), temperature)
    assert float(matching_loss(queries, models, temperature)) == pytest.approx(wanted, rel=1e-5)


def test_matching_loss_vanishes_for_matched_places_and_is_known_for_equal_ones() -> None:
    axes = torch.eye(4)
    assert float(matching_loss(axes, axes[:, None].expand(4, 3, 4), 0.02)) < 1e-6
    assert float(matching_loss(axes, axes.roll(1, 0)[:, None], 0.02)) > 50
    same = torch.ones(4, 5) / 5**0.5
    assert float(matching_loss(same, same[:, None].expand(4, 3, 5), 0.1)) == pytest.approx(math.log(4) + math.log(10))


def test_contrast_of_one_task_is_refused() -> None:
    with pytest.raises(ValueError, match="two tasks"):
        matching_loss(torch.ones(1, 2), torch.ones(1, 1, 2), 0.1)


def test_rank_loss_is_the_mean_hinge_over_pairs_of_one_task() -> None:
    rng = np.random.default_rng(0)
    similarity, score = rng.uniform(-1, 1, 20), rng.integers(0, 4, 20).astype(float)
    task, margin = rng.integers(0, 3, 20), 0.3
    terms = []
    for i in range(20):
        for j in range(20):
            if task[i] == task[j] and score[i] > score[j]:
                terms.append(max(0.0, margin - (similarity[i] - similarity[j])))
    found = rank_loss(torch.from_numpy(similarity), torch.from_numpy(score), torch.from_numpy(task), margin)
    assert float(found) == pytest.approx(np.mean(terms))


def test_rank_loss_is_zero_for_an_order_with_its_margin_and_where_there_is_no_order() -> None:
    similarity, score = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([3.0, 2.0, 1.0])
    one = torch.zeros(3, dtype=torch.int64)
    assert float(rank_loss(similarity, score, one, 0.3)) == 0
    assert float(rank_loss(similarity.flip(0), score, one, 0.3)) == pytest.approx(0.3 + (0.4 + 0.4 + 0.8) / 3)
    assert float(rank_loss(similarity.flip(0), score, torch.arange(3), 0.3)) == 0
    assert float(rank_loss(similarity, torch.ones(3), one, 0.3)) == 0


def test_frechet_distance_is_that_of_gaussians_with_uncorrelated_columns() -> None:
    rng = np.random.default_rng(0)
    mean, spread = rng.normal(size=(5, 7)), rng.uniform(0.1, 2, size=(5, 7))
    found = frechet_distances(torch.from_numpy(mean), torch.from_numpy(spread)).numpy()
    for k in range(5):
        for m in range(5):
            a, b = np.diag(spread[k] ** 2), np.diag(spread[m] ** 2)
            squared = ((mean[k] - mean[m]) ** 2).sum() + np.trace(a + b - 2 * np.sqrt(a @ b))
            assert found[k, m] == pytest.approx(max(squared, 0) ** 0.5, abs=1e-6)


def test_frechet_loss_is_one_less_the_correlation_of_both_distances() -> None:
    queries = unit(6, seed=3)
    distances = torch.rand(6, 6, generator=torch.Generator().manual_seed(4))
    distances = distances + distances.T
    places = queries.numpy()
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    apart = [1 - places[i] @ places[j] for i, j in pairs]
    correlation = np.corrcoef(apart, [float(distances[i, j]) for i, j in pairs])[0, 1]
    assert float(frechet_loss(queries, distances)) == pytest.approx(1 - correlation, rel=1e-4)
    assert float(frechet_loss(queries, 1 - queries @ queries.T)) == pytest.approx(0, abs=1e-5)
    assert float(frechet_loss(queries, queries @ queries.T)) == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("tasks", [2, 4])
def test_frechet_loss_of_too_few_or_equal_places_has_a_finite_gradient(tasks: int) -> None:
    queries = torch.ones(tasks, 3, requires_grad=True)
    frechet_loss(F.normalize(queries, dim=1), torch.ones(tasks, tasks)).backward()  # type: ignore[no-untyped-call]
    assert queries.grad is not None
    assert queries.grad.isfinite().all()


def slow_tau(actual: list[float], predicted: list[float]) -> float:
    """Vigna's weighted tau by loops: a pair weighs 1 / (rank + 1) of both, ranks from 0 by what is true."""
    ranks = {index: rank for rank, index in enumerate(sorted(range(len(actual)), key=lambda i: -actual[i]))}
    agree = total = 0.0
    for i in range(len(actual)):
        for j in range(i + 1, len(actual)):
            weight = 1 / (1 + ranks[i]) + 1 / (1 + ranks[j])
            agree += weight * np.sign(actual[i] - actual[j]) * np.sign(predicted[i] - predicted[j])
            total += weight
    return agree / total


def test_weighted_tau_weighs_the_top_of_the_truth_most() -> None:
    actual = np.array([0.9, 0.8, 0.6, 0.3, 0.1])
    top_swapped, bottom_swapped = np.array([4.0, 5.0, 3.0, 2.0, 1.0]), np.array([5.0, 4.0, 3.0, 1.0, 2.0])
    found = [order_quality(predicted, actual)["weighted_tau"] for predicted in (top_swapped, bottom_swapped)]
    assert found == pytest.approx([slow_tau(list(actual), list(p)) for p in (top_swapped, bottom_swapped)])
    # Weights of all ten pairs: 4 x (1 + 1/2 + 1/3 + 1/4 + 1/5); of the two that stand wrong: 1 + 1/2, and 1/4 + 1/5.
    assert found == pytest.approx([1 - 2 * 1.5 / (4 * 137 / 60), 1 - 2 * 0.45 / (4 * 137 / 60)])


def test_weighted_tau_is_scipys_by_the_rank_of_the_truth() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        actual, predicted = rng.random(12), rng.normal(size=12)
        found = order_quality(predicted, actual)["weighted_tau"]
        assert found == pytest.approx(weightedtau(actual, predicted, rank=None).statistic)
        assert found == pytest.approx(slow_tau(list(actual), list(predicted)))
    assert order_quality(np.array([2.0, 3.0, 1.0]), np.array([0.3, 0.2, 0.1]))["weighted_tau"] == pytest.approx(
        1 - 2 * 1.5 / (2 * 11 / 6)
    )


def test_perfect_reversed_and_constant_orders_are_told_apart() -> None:
    actual = np.array([0.2, 0.9, 0.5, 0.7])
    best = order_quality(10 * actual - 3, actual)
    assert best == pytest.approx({"weighted_tau": 1, "regret_at_1": 0, "regret_at_3": 0})
    worst = order_quality(-actual, actual)
    assert worst["weighted_tau"] == pytest.approx(-1)
    assert (worst["regret_at_1"], worst["regret_at_3"]) == pytest.approx((70, 20))
    constant = order_quality(np.zeros(4), actual)
    assert constant["weighted_tau"] == 0
    assert (constant["regret_at_1"], constant["regret_at_3"]) == pytest.approx((70, 0))
    assert order_quality(actual, np.full(4, 0.5)) == {"weighted_tau": 0, "regret_at_1": 0, "regret_at_3": 0}


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


def test_what_is_not_known_moves_no_score_but_its_own() -> None:
    unknown = np.array([False, True, False, False, True, False])
    groups = np.array([0, 0, 0, 1, 1, 1])
    values = np.array([0.1, 0.7, 0.3, 0.5, 0.5, 0.5])
    scores = standardise_within(values, groups, unknown)
    np.testing.assert_allclose(scores, [-1, 5, 1, 0, 0, 0], atol=1e-5)
    values[1] = 0.2
    np.testing.assert_allclose(standardise_within(values, groups, unknown), [-1, 0, 1, 0, 0, 0], atol=1e-5)


def made_orders(tasks: int, noise: float, level: float = 0.0) -> list[Order]:
    rng = np.random.default_rng(0)
    orders = []
    for _ in range(tasks):
        truth = rng.normal(size=40)
        # Tasks differ in level and spread, which says nothing of their networks; predictions are on one scale.
        orders.append(
            Order(2 * truth + noise * rng.normal(size=40) + level, 0.5 + 0.1 * truth, truth + rng.normal(size=40))
        )
    return orders


def test_calibration_finds_the_slope_and_an_interval_that_holds_four_times_in_five() -> None:
    exact, noisy, high = (
        calibration([orders[: len(orders) // 3], orders[len(orders) // 3 :], []])
        for orders in (made_orders(12, 0.0), made_orders(40, 2.0), made_orders(12, 0.0, level=7.0))
    )
    assert exact["slope"] == pytest.approx(0.5, abs=0.1)
    # Around the prediction itself, which is twice as far out as the truth here: four deviates in five are within 1.28.
    assert exact["half_width"] == pytest.approx(1.28, abs=0.2)
    assert noisy["half_width"] > exact["half_width"]
    assert noisy["coverage"] == pytest.approx(0.8, abs=0.05)
    # An interval around what is shown has to make up for a level that is off.
    assert high["half_width"] > 6 and high["slope"] == pytest.approx(exact["slope"])
    assert calibration([made_orders(1, 0.0)]) == {"slope": 1.0, "half_width": 1.28, "coverage": 0.8}


def test_refining_weighs_what_tells_more() -> None:
    sure, unsure = refine_weights(made_orders(20, 0.1)), refine_weights(made_orders(20, 8.0))
    assert sure["predicted"] > 0.9 > 0.2 > sure["probe"] >= 0
    assert unsure["probe"] > unsure["predicted"] >= 0
