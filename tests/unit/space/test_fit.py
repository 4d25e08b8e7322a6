from dataclasses import replace

import numpy as np
import pytest
import torch

from tans_core.errors import StoreError
from tans_core.space.data import SpaceData, assemble
from tans_core.space.encoders import CrossModalSpace, embed_in_space
from tans_core.space.fit import SpaceRecipe, SpaceReport, fit_space, source_folds
from tests.factories.embeddings import linked_tables

RECIPE = SpaceRecipe(
    dim=16,
    hidden=32,
    steps=300,
    lr=5e-3,
    weight_decay=0.01,
    margin=0.2,
    prediction_weight=1.0,
    images_per_query=10,
    functional_noise=0.3,
    mismatched_share=0.5,
    log_every=150,
)


@pytest.fixture(scope="module")
def data() -> SpaceData:
    models, features = linked_tables()
    return assemble(models, features, [f"task-{task:02d}" for task in range(12)], heldout_share=0.25, seed=0)


@pytest.fixture(scope="module")
def fitted(data: SpaceData) -> tuple[CrossModalSpace, SpaceReport]:
    return fit_space(data, RECIPE, folds=3, seed=0)


def test_heldout_networks_are_matched_to_their_tasks(fitted: tuple[CrossModalSpace, SpaceReport]) -> None:
    heldout = fitted[1].metrics["heldout"]
    assert heldout["chance"] == pytest.approx(1 / 12)
    assert heldout["recall_at_1"] > 0.8
    assert heldout["mean_rank"] < 2


def test_predictor_learns_what_makes_a_model_good_inside_its_task(fitted: tuple[CrossModalSpace, SpaceReport]) -> None:
    assert fitted[1].metrics["insample"]["spearman"] > 0.6
    assert fitted[1].metrics["heldout_tasks"]["spearman"] > 0.3


def test_curve_holds_every_group_of_metrics_at_every_logged_step(fitted: tuple[CrossModalSpace, SpaceReport]) -> None:
    curve = fitted[1].curve
    assert [row["step"] for row in curve] == [150, 300]
    for group in ("insample", "heldout", "heldout_tasks"):
        for name in ("recall_at_1", "recall_at_5", "recall_at_10", "mean_rank", "spearman", "mae"):
            assert all(np.isfinite(row[f"{group}.{name}"]) for row in curve)
    assert curve[-1]["loss.prediction"] < 1


def test_predicted_order_of_models_differs_between_two_queries(
    data: SpaceData, fitted: tuple[CrossModalSpace, SpaceReport]
) -> None:
    space = fitted[0]
    models = torch.from_numpy(embed_in_space(space, data.topology.numpy(), data.functional.numpy()))
    with torch.no_grad():
        queries = [space.encode_query(data.train_features[task][None]) for task in (0, 1)]
        orders = [space.predict(query.expand_as(models), models).argsort().tolist() for query in queries]
    assert orders[0] != orders[1]


def test_same_seed_gives_the_same_space_and_another_seed_another(data: SpaceData) -> None:
    short = replace(RECIPE, steps=5, log_every=5)
    first, second, other = (fit_space(data, short, folds=2, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model_encoder.weight"], other["model_encoder.weight"])


def test_saved_space_encodes_as_before(tmp_path, fitted, data: SpaceData) -> None:  # type: ignore[no-untyped-def]
    fitted[0].save(tmp_path, {"note": "kept"})
    loaded = CrossModalSpace.load(tmp_path)
    before, after = (embed_in_space(s, data.topology.numpy(), data.functional.numpy()) for s in (fitted[0], loaded))
    np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)


def test_missing_space_names_the_stage_to_run(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StoreError, match="dvc repro space"):
        CrossModalSpace.load(tmp_path)


def test_folds_never_cut_a_source() -> None:
    sources = ["a", "a", "b", "c", "c", "c", "d"]
    folds = source_folds(sources, 3)
    assert sorted(task for fold in folds for task in fold) == list(range(7))
    for name in set(sources):
        assert sum(any(sources[task] == name for task in fold) for fold in folds) == 1
    assert source_folds(["a", "a"], 4) == []
    assert source_folds(["a", "b"], 4) == []  # a contrast needs two tasks
    assert source_folds(["a", "a", "b"], 4) == [(2,)]


def test_heldout_models_stay_heldout_when_a_task_is_added(data: SpaceData) -> None:
    models, features = linked_tables()
    fewer = assemble(models, features, [f"task-{task:02d}" for task in range(11)], heldout_share=0.25, seed=0)
    kept = data.home < 11
    assert torch.equal(data.heldout[kept], fewer.heldout)
    assert [int((data.heldout & (data.home == task)).sum()) for task in range(12)] == [2] * 12


def test_newcomers_of_a_foreign_home_take_no_part() -> None:
    models, features = linked_tables()
    strange = replace(models, cards=(replace(models.cards[0], home_task="elsewhere"), *models.cards[1:]))
    assert len(assemble(strange, features, ["task-00", "task-01"], 0.25, 0).home) == 15


@pytest.mark.parametrize("tasks", [["task-00"], ["task-00", "unknown"]])
def test_too_few_tasks_or_a_task_without_models_is_refused(tasks: list[str]) -> None:
    with pytest.raises(StoreError):
        assemble(*linked_tables(), tasks, heldout_share=0.25, seed=0)
