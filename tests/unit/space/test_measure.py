from dataclasses import replace

import numpy as np
import pytest
import torch

from tans_core.space.data import SpaceData, assemble
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.fit import fit_on
from tans_core.space.measure import (
    Order,
    measure,
    measure_elsewhere,
    measure_refined,
    orders_elsewhere,
    refine_weights,
    scores_on_other_tasks,
)
from tests.factories.embeddings import linked_scores, linked_tables, space_recipe

TASKS = 6


@pytest.fixture(scope="module")
def data() -> SpaceData:
    models, features = linked_tables(tasks=TASKS, sources=3)
    options = {"heldout_share": 0.4, "samples": 2, "images_per_sample": 8, "seed": 0}
    names = [f"task-{task:02d}" for task in range(TASKS)]
    return assemble(models, features, linked_scores(models, tasks=TASKS), names, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def space(data: SpaceData) -> CrossModalSpace:
    return fit_on(data, range(TASKS), space_recipe(steps=20), log_every=0, seed=0)[0].requires_grad_(False)


@pytest.mark.parametrize("heldout", [False, True])
@pytest.mark.parametrize(("queries", "candidates"), [((4, 1), (0, 4, 1, 3)), (range(TASKS), range(TASKS))])
def test_ranks_are_among_one_network_of_each_candidate_task(
    space: CrossModalSpace, data: SpaceData, heldout: bool, queries: tuple[int, ...], candidates: tuple[int, ...]
) -> None:
    asked = space.encode_query(data.val_queries).numpy()
    places = space.encode_models(data.topology, data.functional).numpy()
    chosen = {
        task: [m for m in range(len(data.home)) if data.home[m] == task and data.heldout[m] == heldout]
        for task in candidates
    }
    ranks = []
    for draw in range(3 if heldout else 5):
        for query in queries:
            similarity = {task: asked[query] @ places[chosen[task][draw]] for task in candidates}
            ranks.append(1 + sum(value > similarity[query] for value in similarity.values()))
    found = measure(space, data, queries, candidates, heldout)
    assert found["mean_rank"] == pytest.approx(np.mean(ranks))
    assert found["recall_at_1"] == pytest.approx(np.mean(np.array(ranks) == 1))
    assert found["recall_at_5"] == pytest.approx(np.mean(np.array(ranks) <= 5))


def test_orders_are_of_networks_of_other_sources_that_were_tried_in_both_ways(
    space: CrossModalSpace, data: SpaceData
) -> None:
    some = replace(data, probed=data.probed.where(data.probed.model % 2 == 0))
    orders = orders_elsewhere(space, some, (1, 2))
    assert [len(order.tuned) for order in orders] == [4 * 4, 4 * 4]  # of 6 tasks, 2 share the source
    models, tuned, probed = [], [], []
    for model in range(0, len(data.home), 2):
        if data.sources[int(data.home[model])] != data.sources[2]:
            models.append(model)
            tuned.append(float(data.tuned.value[(data.tuned.task == 2) & (data.tuned.model == model)]))
            probed.append(float(data.probed.value[(data.probed.task == 2) & (data.probed.model == model)]))
    np.testing.assert_array_equal(orders[1].tuned, tuned)
    np.testing.assert_array_equal(orders[1].probed, probed)
    query = space.encode_query(data.queries[2:3]).expand(len(models), -1)
    topology, functional = data.topology[models], data.functional[models]
    wanted = space.predict(query, space.encode_models(topology, functional), *space.parts(topology, functional))
    np.testing.assert_allclose(orders[1].predicted, wanted.numpy(), atol=1e-5)


def test_networks_without_a_home_are_ordered_elsewhere_and_are_nobodys_own(
    space: CrossModalSpace, data: SpaceData
) -> None:
    last = data.home == TASKS - 1
    homeless = replace(data, home=torch.where(last, -1, data.home))
    before, after = orders_elsewhere(space, data, (2,))[0], orders_elsewhere(space, homeless, (2,))[0]
    # Of the same source as the task that asks, they took no part before.
    assert data.sources[2] == data.sources[TASKS - 1]
    assert len(after.tuned) == len(before.tuned) + int(last.sum())
    five = tuple(range(TASKS - 1))
    assert measure(space, homeless, five, five, False) == measure(space, data, five, five, False)


def test_the_list_that_is_blind_to_the_data_is_the_mean_over_other_tasks_of_networks_built_alike(
    data: SpaceData,
) -> None:
    models = list(range(len(data.home)))
    codes = data.topology
    found = scores_on_other_tasks(data, (1, 2), models)
    kept = data.tuned.where(~torch.isin(data.tuned.task, torch.tensor([1, 2])))
    for model, value in zip(models, found, strict=True):
        alike = (codes[kept.model] == codes[model]).all(dim=1)
        assert int(alike.sum()) > 1
        inside = kept.scores()[alike].double()
        assert inside.min() - 1e-6 <= value <= inside.max() + 1e-6
        if len(inside) <= 10:
            assert value == pytest.approx(float(inside.mean()), abs=1e-6)
    assert len(set(found.tolist())) > 3
    # A network of no task is told by its own trials alone.
    own = kept.model == 9
    lone = replace(data, home=torch.where(torch.arange(len(data.home)) == 9, -1, data.home))
    few = replace(lone, tuned=lone.tuned.where(~((lone.tuned.task > 2) & (lone.tuned.model != 9))))
    assert scores_on_other_tasks(few, (0, 1, 2), [9])[0] == pytest.approx(
        float(few.tuned.where(few.tuned.task > 2).scores().double().mean()), abs=1e-6
    )
    assert int(own.sum()) == 4
    assert not scores_on_other_tasks(data, range(TASKS), models).any()


def test_task_with_too_few_trials_counts_for_nothing(space: CrossModalSpace, data: SpaceData) -> None:
    kept = torch.isin(data.tuned.model, torch.arange(3)) | (data.tuned.task == 5)
    few = replace(data, tuned=data.tuned.where(kept))
    assert len(orders_elsewhere(space, few, range(TASKS))) == 1
    own = ("weighted_tau", "regret_at_1", "regret_at_3")
    names = (*own, *(f"other_tasks_{name}" for name in own), "spearman", "spearman_across")
    assert measure_elsewhere([]) == dict.fromkeys(names, 0.0)


def test_orders_are_judged_as_means_over_tasks() -> None:
    truth = np.array([0.9, 0.7, 0.4, 0.2])
    right, wrong = Order(truth, truth, truth, -truth), Order(-truth, truth, truth, -truth)
    found = measure_elsewhere([right, wrong])
    wanted = {"weighted_tau": 0, "regret_at_1": 35, "regret_at_3": 10, "spearman": 0, "spearman_across": 0}
    blind = {"other_tasks_weighted_tau": -1, "other_tasks_regret_at_1": 70, "other_tasks_regret_at_3": 20}
    assert found == pytest.approx({**wanted, **blind})


def test_across_tasks_scores_are_held_against_deviations_inside_each() -> None:
    """A task on which less works, scored as if it were average: across tasks, too, the order is right."""
    truth = np.array([0.9, 0.7, 0.4, 0.2])
    scores = np.array([1.3, 0.6, -0.6, -1.3])
    # Halved, so that deviations are equal to the last digit.
    right = [Order(scores, truth, truth), Order(scores, truth / 2, truth)]
    assert measure_elsewhere(right)["spearman_across"] == pytest.approx(1)
    # Right inside each task, and wrong about which task's networks stand out.
    shifted = [right[0], Order(scores + 9, truth, truth)]
    found = measure_elsewhere(shifted)
    assert found["spearman"] == pytest.approx(1)
    assert found["spearman_across"] < 0.5


def make_orders(predicted: float, probe: float, tasks: int = 40) -> list[Order]:
    """Orders whose truth is made of both parts, at these weights, in each task's own unit."""
    rng = np.random.default_rng(0)
    orders = []
    for _ in range(tasks):
        parts = rng.normal(size=(2, 25))
        parts = (parts - parts.mean(axis=1, keepdims=True)) / parts.std(axis=1, keepdims=True)
        tuned = predicted * parts[0] + probe * parts[1]
        orders.append(Order(rng.uniform(1, 9) * parts[0] + 5, rng.uniform(0.01, 0.1) * tuned + 0.5, 0.1 * parts[1]))
    return orders


def test_refining_weighs_both_parts_as_the_truth_does_whatever_their_units() -> None:
    found = refine_weights(make_orders(predicted=0.3, probe=0.9))
    assert found["probe"] / found["predicted"] == pytest.approx(3, rel=0.05)


def test_refined_orders_are_judged_by_the_weights_of_the_other_folds() -> None:
    orders = make_orders(predicted=0.5, probe=0.8, tasks=12)
    found = measure_refined([orders[:4], orders[4:8], orders[8:]])
    plain = measure_elsewhere(orders)
    assert found["refined_weighted_tau"] > 0.95 > plain["weighted_tau"] + 0.2
    assert found["refined_regret_at_1"] < plain["regret_at_1"]
    # Where one fold rewards what the other punishes, each is judged by what the other says.
    turned = [replace(order, probed=-order.probed, predicted=0 * order.predicted) for order in orders]
    same = [replace(order, predicted=0 * order.predicted) for order in orders]
    assert measure_refined([same, turned])["refined_weighted_tau"] < 0.1
    assert set(measure_refined([orders]).values()) == {0.0}


def test_part_that_misleads_weighs_nothing() -> None:
    found = refine_weights(make_orders(predicted=1.0, probe=-0.5))
    assert found["probe"] == 0
    assert found["predicted"] > 0.5


def test_refining_without_any_trial_weighs_both_alike() -> None:
    assert refine_weights([]) == {"predicted": 1.0, "probe": 1.0, "expected": 1.0}


def test_what_a_probe_may_be_expected_to_be_is_learned_from_the_predicted_scores() -> None:
    rng = np.random.default_rng(1)
    predicted = rng.normal(size=(30, 40))
    # Probes of all levels and spreads that rise with the prediction, half of them noise.
    probed = [0.2 * number + 0.01 * (number + 1) * (row + rng.normal(size=40)) for number, row in enumerate(predicted)]
    orders = [Order(row, row, found) for row, found in zip(predicted, probed, strict=True)]
    assert refine_weights(orders)["expected"] == pytest.approx(0.5**0.5, abs=0.05)
    turned = [Order(-order.predicted, order.tuned, order.probed) for order in orders]
    assert refine_weights(turned)["expected"] == 0


def test_constant_parts_are_no_error() -> None:
    truth = np.array([0.1, 0.5, 0.2, 0.4])
    found = refine_weights([Order(np.zeros(4), truth, truth), Order(truth, np.full(4, 0.3), truth)])
    assert found["probe"] > 0
    assert np.isfinite(list(found.values())).all()
