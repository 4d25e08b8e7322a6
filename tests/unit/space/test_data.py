from dataclasses import replace

import numpy as np
import pytest
import torch

from tans_core.embeddings.scores import ScoreRows
from tans_core.errors import StoreError
from tans_core.space.data import SpaceData, assemble, hold_out_by_id
from tans_core.space.queries import query_statistics
from tests.factories.embeddings import linked_scores, linked_tables

MODELS, FEATURES = linked_tables(tasks=4, models=8)
TASKS = [f"task-{task:02d}" for task in range(4)]


def put_together(
    tasks: list[str] = TASKS, scores: ScoreRows | None = None, share: float = 0.25, seed: int = 0
) -> SpaceData:
    found = linked_scores(MODELS, tasks=4) if scores is None else scores
    return assemble(MODELS, FEATURES, found, tasks, heldout_share=share, samples=3, images_per_sample=10, seed=seed)


def score_rows(rows: list[tuple[str, str, str, int, float]]) -> ScoreRows:
    tasks, models, kinds, seeds, values = zip(*rows, strict=True)
    return ScoreRows(np.array(tasks), np.array(models), np.array(kinds), np.array(seeds), np.array(values))


def test_queries_are_of_the_images_of_their_split() -> None:
    data = put_together()
    for number, task in enumerate(TASKS):
        for split, found in (("train", data.queries), ("val", data.val_queries)):
            rows = (FEATURES.tasks == task) & (FEATURES.splits == split)
            wanted = query_statistics(FEATURES.features[rows], FEATURES.labels[rows])
            np.testing.assert_array_equal(found[number].numpy(), wanted)
    assert data.samples.shape == (4, 3, 3 * 24 + 1)
    assert len(data.samples.flatten(end_dim=1).unique(dim=0)) == 12


def test_trial_is_the_mean_over_its_seeds_in_deviations_inside_its_task() -> None:
    a, b, c = "m.task-01.000", "m.task-02.003", "m.task-03.001"
    rows = [
        ("task-00", c, "finetune", 0, 0.9),
        ("task-00", a, "finetune", 0, 0.2),
        ("task-00", a, "finetune", 1, 0.4),
        ("task-00", b, "finetune", 0, 0.6),
        ("task-02", a, "finetune", 0, 0.7),
        ("task-02", c, "finetune", 0, 0.7),
        ("task-02", a, "probe", 0, -0.5),
        ("task-02", c, "probe", 0, 0.5),
    ]
    data = put_together(scores=score_rows(rows))
    tuned = data.tuned
    assert tuned.task.tolist() == [0, 0, 0, 2, 2]
    assert tuned.model.tolist() == [8, 19, 25, 8, 25]
    assert tuned.value.tolist() == pytest.approx([0.3, 0.6, 0.9, 0.7, 0.7])
    assert tuned.scores().tolist() == pytest.approx([-1.2247449, 0, 1.2247449, 0, 0], abs=1e-6)
    assert (data.probed.task.tolist(), data.probed.model.tolist()) == ([2, 2], [8, 25])
    assert data.probed.scores().tolist() == pytest.approx([-1, 1])


def test_trials_at_home_and_of_strangers_are_left_out() -> None:
    rows = [
        ("task-00", "m.task-00.000", "probe", 0, 0.9),  # at home
        ("task-00", "m.task-01.000", "probe", 0, 0.5),
        ("task-00", "m.elsewhere.000", "probe", 0, 0.4),  # in no table
        ("task-09", "m.task-01.000", "probe", 0, 0.3),  # no meta-train task
    ]
    data = put_together(scores=score_rows(rows))
    assert (data.probed.task.tolist(), data.probed.model.tolist()) == ([0], [8])
    assert len(data.tuned.task) == 0
    every = put_together().tuned
    assert len(every.task) == 4 * 3 * 8
    assert not (data.home[every.model] == every.task).any()


def test_trials_of_each_task_have_no_mean_and_unit_deviation() -> None:
    for trials in (put_together().tuned, put_together().probed):
        for task in range(4):
            own = trials.scores()[trials.task == task].double()
            assert float(own.mean()) == pytest.approx(0, abs=1e-6)
            assert float(own.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_order_of_the_rows_of_trials_does_not_matter() -> None:
    scores = linked_scores(MODELS, tasks=4)
    order = np.random.default_rng(0).permutation(len(scores.values))
    names = ("tasks", "models", "kinds", "seeds", "values")
    shuffled = ScoreRows(*(getattr(scores, name)[order] for name in names))
    assert put_together(scores=shuffled).digest() == put_together().digest()


def test_digest_tells_any_change() -> None:
    data = put_together()
    assert data.digest() == put_together().digest()
    changed = [
        replace(data, sources=("other", *data.sources[1:])),
        replace(data, samples=data.samples + 1),
        replace(data, heldout=~data.heldout),
        replace(data, tuned=replace(data.tuned, value=-data.tuned.value)),
        replace(data, probed=data.probed.where(data.probed.task > 0)),
        put_together(seed=1),
    ]
    assert len({data.digest(), *(one.digest() for one in changed)}) == 7


def test_heldout_models_stay_heldout_when_a_task_is_added() -> None:
    data, fewer = put_together(), put_together(TASKS[:3])
    assert torch.equal(data.heldout[data.home < 3], fewer.heldout[fewer.home >= 0])
    assert torch.equal(data.samples[:3], fewer.samples)
    assert [int((data.heldout & (data.home == task)).sum()) for task in range(4)] == [2] * 4
    assert not torch.equal(data.heldout, put_together(seed=1).heldout)


@pytest.mark.parametrize(("models", "share", "wanted"), [(2, 0.01, 1), (2, 0.9, 1), (8, 0.25, 2), (8, 0.99, 7)])
def test_of_a_task_some_models_are_held_out_and_never_all(models: int, share: float, wanted: int) -> None:
    ids = [f"m.{number}" for number in range(2 * models)]
    heldout = hold_out_by_id(ids, np.arange(2 * models) % 2, share, seed=0)
    assert (heldout[::2].sum(), heldout[1::2].sum()) == (wanted, wanted)


def test_order_of_the_models_does_not_choose_who_is_held_out() -> None:
    ids = [f"m.{number}" for number in range(20)]
    home = np.arange(20) % 2
    heldout = hold_out_by_id(ids, home, 0.3, seed=0)
    back = hold_out_by_id(ids[::-1], home[::-1], 0.3, seed=0)
    assert back[::-1].tolist() == heldout.tolist()


def test_networks_without_a_home_among_the_tasks_take_part_by_their_trials_alone() -> None:
    first = MODELS.cards[0].model_copy(update={"home_task": "elsewhere", "class_names": (), "val_accuracy": None})
    strange = replace(MODELS, cards=(first, *MODELS.cards[1:]))
    scores = linked_scores(MODELS, tasks=4)
    options = {"heldout_share": 0.5, "samples": 1, "images_per_sample": 5, "seed": 0}
    data = assemble(strange, FEATURES, scores, TASKS[:2], **options)  # type: ignore[arg-type]
    without = data.home == -1
    assert without.nonzero()[:, 0].tolist() == [0, *range(16, 32)]
    assert not data.heldout[without].any() and not data.score[without].any() and not data.accuracy[without].any()
    assert not {0, *range(16, 32)} & {m for t in range(2) for h in (True, False) for m in data.members(t, h).tolist()}
    assert set(data.tuned.task[data.tuned.model == 0].tolist()) == {0, 1}
    assert not any(data.comes_from(0, task) for task in range(2))
    assert data.comes_from(1, 0) and not data.comes_from(1, 1)


@pytest.mark.parametrize("tasks", [["task-00"], ["task-00", "unknown"]])
def test_too_few_tasks_or_a_task_without_models_is_refused(tasks: list[str]) -> None:
    with pytest.raises(StoreError):
        put_together(tasks)
