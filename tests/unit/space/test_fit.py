from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tans_core.errors import StoreError
from tans_core.runtime import derive_seed
from tans_core.space.data import SpaceData, Trials, assemble
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.fit import SpaceReport, fit_on, fit_space, source_folds
from tans_core.space.measure import measure_elsewhere, measure_refined, orders_elsewhere, worth_of_fit
from tans_core.space.objective import TansObjective
from tans_core.space.training import CHECKPOINT_FILE
from tests.factories.embeddings import linked_scores, linked_tables, space_recipe
from tests.factories.fits import StoppedError, stopping

TASKS = [f"task-{task:02d}" for task in range(12)]
RECIPE = space_recipe(
    dim=16, steps=300, positives=4, pairs_per_step=128, functional_noise=0.5, matching_weight=1.0, weight_decay=0.01
)
SHORT = replace(RECIPE, steps=6, pairs_per_step=16)
LONGER = replace(SHORT, steps=410)
SEEN, UNSEEN = tuple(range(8)), tuple(range(8, 12))


@pytest.fixture(scope="module")
def data() -> SpaceData:
    models, features = linked_tables()
    options = {"heldout_share": 0.25, "samples": 8, "images_per_sample": 16, "seed": 0}
    return assemble(models, features, linked_scores(models), TASKS, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted(data: SpaceData) -> tuple[CrossModalSpace, SpaceReport]:
    return fit_space(data, RECIPE, folds=3, log_every=150, seed=0)


def weights(space: CrossModalSpace) -> bytes:
    return b"".join(value.numpy().tobytes() for value in space.state_dict().values())


def spoilt(values: Tensor, rows: Tensor) -> Tensor:
    """Values that are NaN at `rows`, so that using them gives NaN."""
    changed = values.clone()
    changed[rows] = float("nan")
    return changed


def test_heldout_networks_are_matched_to_their_tasks(fitted: tuple[CrossModalSpace, SpaceReport]) -> None:
    heldout = fitted[1].metrics["heldout"]
    assert heldout["chance"] == pytest.approx(1 / 12)
    assert heldout["recall_at_1"] > 0.7
    assert heldout["mean_rank"] < 1.6


def test_networks_of_unseen_sources_are_matched_to_their_tasks(fitted: tuple[CrossModalSpace, SpaceReport]) -> None:
    unseen = fitted[1].metrics["heldout_tasks"]
    assert unseen["recall_at_1"] > 3 / 12
    assert unseen["mean_rank"] < 3  # by chance 6.5


def test_order_of_networks_on_unseen_sources_follows_what_they_reach_there(
    fitted: tuple[CrossModalSpace, SpaceReport],
) -> None:
    elsewhere = fitted[1].metrics["elsewhere"]
    assert elsewhere["weighted_tau"] > 0.6
    assert elsewhere["regret_at_3"] <= elsewhere["regret_at_1"] < 5


def test_without_what_is_known_of_accuracies_the_order_is_worse(
    data: SpaceData, fitted: tuple[CrossModalSpace, SpaceReport]
) -> None:
    blind = replace(RECIPE, steps=150, home_weight=0, tuned_weight=0, probed_weight=0, rank_weight=0)
    _, curve = fit_on(data, SEEN, blind, log_every=150, seed=0, unseen=UNSEEN)
    assert curve[-1]["elsewhere.weighted_tau"] < fitted[1].metrics["elsewhere"]["weighted_tau"] - 0.1


def test_predictor_learns_what_makes_a_model_good_inside_its_task(fitted: tuple[CrossModalSpace, SpaceReport]) -> None:
    assert fitted[1].metrics["insample"]["spearman"] > 0.6
    assert fitted[1].metrics["heldout_tasks"]["spearman"] > 0.3


def test_capacity_is_learned_from_trials_when_it_drives_them(data: SpaceData) -> None:
    trials_alone = replace(RECIPE, steps=150, home_weight=0)
    space, _ = fit_on(data, range(12), trials_alone, log_every=0, seed=0)
    with torch.no_grad():
        capacity, start = space.parts(data.topology, data.functional)
    assert np.corrcoef(capacity.numpy(), data.topology[:, 0].numpy())[0, 1] > 0.9
    assert start.std() < capacity.std()


def test_without_accuracies_capacity_and_start_stay_at_nothing(data: SpaceData) -> None:
    space, _ = fit_on(data, SEEN, replace(SHORT, home_weight=0, tuned_weight=0), log_every=0, seed=0)
    assert all(not part.any() for part in space.parts(data.topology, data.functional))


@pytest.fixture(scope="module")
def uninterrupted(data: SpaceData) -> tuple[CrossModalSpace, list[dict[str, float]]]:
    return fit_on(data, range(4), LONGER, log_every=50, seed=0)


@pytest.mark.parametrize("at", [199, 200, 409])
def test_run_killed_at_any_step_ends_with_the_same_bytes(
    data: SpaceData,
    uninterrupted: tuple[CrossModalSpace, list[dict[str, float]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    recipe, (whole, wanted) = LONGER, uninterrupted
    with monkeypatch.context() as patched, pytest.raises(StoppedError):
        patched.setattr(TansObjective, "loss", stopping(TansObjective.loss, at))
        fit_on(data, range(4), recipe, log_every=50, seed=0, resume_folder=tmp_path)
    assert (tmp_path / CHECKPOINT_FILE).exists() == (at >= 200)
    rest, curve = fit_on(data, range(4), recipe, log_every=50, seed=0, resume_folder=tmp_path)
    assert weights(rest) == weights(whole)
    assert curve == wanted


def test_half_precision_learns_the_same_space_nearly(data: SpaceData) -> None:
    spaces = [fit_on(data, SEEN, replace(RECIPE, steps=150, precision=p), 0, 0)[0] for p in ("fp32", "bf16")]
    assert weights(spaces[0]) != weights(spaces[1])
    taus = [measure_elsewhere(orders_elsewhere(space, data, UNSEEN))["weighted_tau"] for space in spaces]
    assert taus[1] == pytest.approx(taus[0], abs=0.1)
    assert taus[1] > 0.5


def test_curve_holds_every_group_of_metrics_at_every_logged_step(fitted: tuple[CrossModalSpace, SpaceReport]) -> None:
    curve = fitted[1].curve
    assert [row["step"] for row in curve] == [150, 300]
    names = ("recall_at_1", "recall_at_5", "recall_at_10", "mean_rank", "median_rank", "spearman", "mae")
    for group in ("insample", "heldout", "heldout_tasks"):
        assert all(np.isfinite(row[f"{group}.{name}"]) for row in curve for name in names)
    for name in ("weighted_tau", "regret_at_1", "regret_at_3", "spearman", "spearman_across"):
        assert all(np.isfinite(row[f"elsewhere.{name}"]) for row in curve)


def test_metrics_are_those_of_the_last_step_and_say_how_many(fitted: tuple[CrossModalSpace, SpaceReport]) -> None:
    metrics, last = fitted[1].metrics, fitted[1].curve[-1]
    for group in ("insample", "heldout", "heldout_tasks"):
        for key, value in metrics[group].items():
            assert key == "chance" or value == last[f"{group}.{key}"]
    # Elsewhere the fit counts by what it was worth on the other folds.
    assert 0 <= metrics["worth_of_fit"] <= 1
    counts = {name: metrics[name] for name in ("tasks", "models", "heldout_models", "folds", "tuned", "probed")}
    assert counts == {"tasks": 12, "models": 96, "heldout_models": 24, "folds": 3, "tuned": 1056, "probed": 1056}


def test_folds_count_by_the_tasks_that_were_judged(data: SpaceData) -> None:
    folds = source_folds(data.sources, 3)
    # Nothing was tried on the tasks of the first fold, and on one task alone of the second.
    known = ~torch.isin(data.tuned.task, torch.tensor([*folds[0], *folds[1][1:]]))
    some = replace(data, tuned=data.tuned.where(known))
    orders = []
    for number, unseen in enumerate(folds):
        seen = [task for task in range(12) if task not in unseen]
        space, _ = fit_on(some, seen, SHORT, log_every=0, seed=derive_seed(0, "fold", number))
        orders.append(orders_elsewhere(space, some, unseen))
    assert [len(fold) for fold in orders] == [0, 1, len(folds[2])]
    weighed = []
    for index, fold in enumerate(orders):
        worth = worth_of_fit([order for rest in (*orders[:index], *orders[index + 1 :]) for order in rest])
        weighed.append([order.with_fit(worth) for order in fold])
    space, report = fit_space(some, SHORT, folds=3, log_every=6, seed=0)
    wanted = measure_elsewhere([order for fold in weighed for order in fold]) | measure_refined(weighed)
    assert report.metrics["elsewhere"] == pytest.approx(wanted)
    plain, _ = fit_on(some, range(12), SHORT, log_every=0, seed=derive_seed(0, "space"))
    worth = worth_of_fit([order for fold in orders for order in fold])
    assert space.fit_scale.item() == pytest.approx(worth * plain.fit_scale.item(), abs=1e-6)
    none = replace(data, tuned=data.tuned.where(torch.zeros(len(data.tuned.task), dtype=torch.bool)))
    assert set(fit_space(none, SHORT, folds=3, log_every=6, seed=0)[1].metrics["elsewhere"].values()) == {0.0}


def test_same_seed_gives_the_same_bytes_and_another_seed_others(data: SpaceData) -> None:
    spaces = [fit_space(data, SHORT, folds=2, log_every=6, seed=seed) for seed in (0, 0, 1)]
    assert weights(spaces[0][0]) == weights(spaces[1][0]) != weights(spaces[2][0])
    assert spaces[0][1] == spaces[1][1]


def test_measuring_changes_nothing(data: SpaceData) -> None:
    quiet, _ = fit_on(data, SEEN, SHORT, log_every=0, seed=0)
    loud, _ = fit_on(data, SEEN, SHORT, log_every=2, seed=0, unseen=UNSEEN)
    assert weights(quiet) == weights(loud)


def test_heldout_networks_and_unseen_tasks_are_never_trained_on(data: SpaceData) -> None:
    unknown = data.heldout | (data.home >= len(SEEN))
    unseen = torch.arange(12) >= len(SEEN)

    def hidden(trials: Trials) -> Trials:
        return replace(trials, value=spoilt(trials.value, unseen[trials.task] | unknown[trials.model]))

    changed = replace(
        data,
        **{name: spoilt(getattr(data, name), unseen) for name in ("samples", "queries", "val_queries")},
        **{name: spoilt(getattr(data, name), unknown) for name in ("topology", "functional", "score")},
        tuned=hidden(data.tuned),
        probed=hidden(data.probed),
    )
    before, after = (weights(fit_on(one, SEEN, SHORT, log_every=0, seed=0)[0]) for one in (data, changed))
    assert before == after


@pytest.mark.parametrize("kind", ["tuned", "probed"])
def test_trials_of_seen_tasks_are_trained_on(data: SpaceData, kind: str) -> None:
    trials = getattr(data, kind)
    changed = replace(data, **{kind: replace(trials, value=-trials.value)})
    before, after = (weights(fit_on(one, SEEN, SHORT, log_every=0, seed=0)[0]) for one in (data, changed))
    assert before != after


def test_without_any_trial_the_space_learns_from_home_alone() -> None:
    models, features = linked_tables(tasks=4)
    none = replace(linked_scores(models, tasks=4), kinds=np.array(["other"] * (4 * 32 * 3)))
    options = {"heldout_share": 0.25, "samples": 2, "images_per_sample": 8, "seed": 0}
    data = assemble(models, features, none, TASKS[:4], **options)  # type: ignore[arg-type]
    _, report = fit_space(data, SHORT, folds=2, log_every=6, seed=0)
    assert set(report.metrics["elsewhere"].values()) == {0.0}
    assert (report.metrics["tuned"], report.metrics["probed"]) == (0, 0)


def test_two_tasks_are_enough() -> None:
    models, features = linked_tables(tasks=2, sources=1)
    options = {"heldout_share": 0.25, "samples": 2, "images_per_sample": 8, "seed": 0}
    data = assemble(models, features, linked_scores(models, tasks=2), TASKS[:2], **options)  # type: ignore[arg-type]
    space, report = fit_space(data, SHORT, folds=4, log_every=6, seed=0)
    assert all(value.isfinite().all() for value in space.state_dict().values())
    assert report.metrics["folds"] == 0
    assert set(report.metrics["heldout_tasks"]) == {"chance"}


def test_run_that_was_cut_off_between_folds_ends_as_one_that_was_not(data: SpaceData, tmp_path: Path) -> None:
    whole = fit_space(data, SHORT, folds=3, log_every=6, seed=0, resume_folder=tmp_path / "whole")
    parts = tmp_path / "parts"
    parts.mkdir()
    # In the place of the second fold's folder, so that its first checkpoint ends the run.
    (parts / "fold-1").write_text("in the way")
    with pytest.raises(StoreError, match="in the way"):
        fit_space(data, SHORT, folds=3, log_every=6, seed=0, resume_folder=parts)
    (parts / "fold-1").unlink()
    kept = [parts / CHECKPOINT_FILE, parts / "fold-0" / CHECKPOINT_FILE]
    times = [path.stat().st_mtime_ns for path in kept]
    resumed = fit_space(data, SHORT, folds=3, log_every=6, seed=0, resume_folder=parts)
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert weights(resumed[0]) == weights(whole[0])
    assert resumed[1] == whole[1]


def test_folds_never_cut_a_source() -> None:
    sources = ["a", "a", "b", "c", "c", "c", "d"]
    folds = source_folds(sources, 3)
    assert sorted(task for fold in folds for task in fold) == list(range(7))
    for name in set(sources):
        assert sum(any(sources[task] == name for task in fold) for fold in folds) == 1
    assert source_folds(["a", "a"], 4) == []
    assert source_folds(["a", "b"], 4) == []  # a contrast needs two tasks
    assert source_folds(["a", "a", "b"], 4) == [(2,)]
