from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from tans_core.embeddings.store import ModelRows
from tans_core.errors import StoreError
from tans_core.space.drift import Drift, DriftReference, judge_drift
from tests.factories.embeddings import linked_tables

TASKS = [f"task-{number:02d}" for number in range(20)]


@pytest.fixture(scope="module")
def models() -> ModelRows:
    """Thirty tasks of sixteen networks; a space is made from the first twenty."""
    return linked_tables(tasks=30, models=16)[0]


@pytest.fixture(scope="module")
def reference(models: ModelRows) -> DriftReference:
    known = of_tasks(models, range(20))
    cards = tuple(models.cards[row] for row in known)
    return DriftReference.of(ModelRows(cards, models.topology[known], models.functional[known]), TASKS)


def measure(
    reference: DriftReference, models: ModelRows, rows: list[int], home: str | None = None
) -> tuple[Drift, ...]:
    homes = [home or models.cards[row].home_task for row in rows]
    ids = [models.cards[row].id for row in rows]
    return reference.measure(ids, homes, models.topology[rows], models.functional[rows])


def of_tasks(models: ModelRows, numbers: range) -> list[int]:
    wanted = {f"task-{number:02d}" for number in numbers}
    return [row for row, card in enumerate(models.cards) if card.home_task in wanted]


def test_distances_and_quantiles_are_those_of_a_slow_reference(models: ModelRows, reference: DriftReference) -> None:
    known, newcomer = of_tasks(models, range(20)), of_tasks(models, range(20, 21))[0]
    functional = models.functional.astype(np.float64)
    scaled = (functional - functional[known].mean(axis=0)) / functional[known].std(axis=0)
    homes = [card.home_task for card in models.cards]

    def distance(row: int, others: list[int]) -> float:
        found = sorted(float(np.sqrt(((scaled[row] - scaled[other]) ** 2).mean())) for other in others)
        return sum(found[:5]) / 5

    with_siblings = [distance(row, [other for other in known if other != row]) for row in known]
    without = [distance(row, [other for other in known if homes[other] != homes[row]]) for row in known]
    np.testing.assert_allclose(reference.with_siblings, with_siblings, rtol=1e-4)
    np.testing.assert_allclose(reference.without_siblings, without, rtol=1e-4)
    own = distance(newcomer, known)
    for home, others in (("task-00", with_siblings), ("elsewhere", without)):
        (drift,) = measure(reference, models, [newcomer], home)
        assert drift.home_known == (home == "task-00")
        assert drift.quantile == pytest.approx(np.mean([other <= own for other in others]), abs=0.004)
        assert drift.distance == pytest.approx(own / np.quantile(others, 0.95), rel=1e-4)


def test_networks_of_unseen_tasks_of_the_same_kind_are_seldom_far(models: ModelRows, reference: DriftReference) -> None:
    unseen = of_tasks(models, range(20, 30))
    drifts = measure(reference, models, unseen)
    assert np.mean([one.far for one in drifts]) < 0.2
    assert not judge_drift(drifts).due
    # Held against networks with siblings, as if of a known task, they would all be.
    assert np.mean([one.far for one in measure(reference, models, unseen, "task-00")]) > 0.9


def test_newcomers_of_a_known_task_are_as_near_as_its_own_networks(models: ModelRows) -> None:
    newcomers = list(range(0, 20 * 16, 16))
    kept = [row for row in range(len(models.cards)) if row not in newcomers]
    fewer = ModelRows(tuple(models.cards[row] for row in kept), models.topology[kept], models.functional[kept])
    drifts = measure(DriftReference.of(fewer, TASKS), models, newcomers)
    assert np.mean([one.far for one in drifts]) < 0.2


def test_networks_that_answer_otherwise_are_far_and_make_retraining_due(
    models: ModelRows, reference: DriftReference
) -> None:
    strange = replace(models, functional=3 * models.functional[::-1].copy())
    drifts = measure(reference, strange, of_tasks(models, range(20, 30)))
    assert np.mean([one.far for one in drifts]) > 0.9
    assert min(one.distance for one in drifts if one.far) > 1
    verdict = judge_drift(drifts)
    assert verdict.due
    assert verdict.foreign == verdict.far


def test_slots_that_training_never_saw_are_counted(models: ModelRows, reference: DriftReference) -> None:
    topology = models.topology.copy()
    topology[0, :2] = 7
    (drift,) = measure(reference, replace(models, topology=topology), [0])
    assert drift.new_slots == 2
    assert measure(reference, models, [0])[0].new_slots == 0


def test_what_never_varied_tells_nothing(models: ModelRows) -> None:
    functional = models.functional.copy()
    functional[:, 0] = 0.25
    flat = DriftReference.of(replace(models, functional=functional), TASKS)
    before = measure(flat, replace(models, functional=functional), [400])
    functional[:, 0] = 1e6
    assert measure(flat, replace(models, functional=functional), [400]) == before


def test_reference_is_read_as_it_was_written_and_the_same_gives_the_same_bytes(
    tmp_path: Path, models: ModelRows, reference: DriftReference
) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        reference.save(folder)
    for name in ("drift.json", "drift.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = of_tasks(models, range(18, 22))
    assert measure(DriftReference.load(tmp_path / "a"), models, rows) == measure(reference, models, rows)


def test_space_without_a_reference_names_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"older than drift.*tans build"):
        DriftReference.load(tmp_path)


def test_one_home_task_and_other_widths_are_refused(models: ModelRows, reference: DriftReference) -> None:
    with pytest.raises(StoreError, match="at least 2 home tasks, got 1"):
        DriftReference.of(models, ["task-03"])
    with pytest.raises(StoreError, match=r"\(6, 29\).*\(6, 30\)"):
        reference.measure(["one"], ["task-00"], models.topology[:1], models.functional[:1, :29])


def newcomers(*homes: tuple[int, int]) -> list[Drift]:
    """For each home task, how many of its newcomers are near, and how many far."""
    return [
        Drift(f"{home}-{far}-{number}", f"home-{home}", False, 1.0, 0.99 if far else 0.5, 0)
        for home, counts in enumerate(homes)
        for far, count in enumerate(counts)
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("homes", "due"),
    [
        ([], False),
        ([(0, 1)], False),  # one stranger in twenty is far by chance
        ([(0, 24)], True),  # a whole family
        ([(3, 2)], False),
        ([(0, 1), (0, 1)], True),
        ([(4, 1)] * 6, False),
        ([(24, 0), (24, 0), (0, 24)], False),  # one home task of three
        ([(1, 0)] * 16 + [(0, 1)] * 4, False),  # p = 0.016
        ([(1, 0)] * 16 + [(0, 1)] * 5, True),
    ],
)
def test_verdict_weighs_home_tasks_and_shares(homes: list[tuple[int, int]], due: bool) -> None:
    verdict = judge_drift(newcomers(*homes))
    assert verdict.due == due
    assert verdict.newcomers == sum(map(sum, homes))
    assert verdict.far == sum(far for _, far in homes)
    if homes:
        assert verdict.p_value == pytest.approx(1 - binom.cdf(verdict.far_homes - 1, len(homes), 0.05))


def test_share_that_makes_retraining_due_can_be_set() -> None:
    some = newcomers((3, 2))
    assert judge_drift(some, max_share=0.3).due
    assert not judge_drift(some, max_share=0.4).due
