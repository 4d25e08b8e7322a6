from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tans_core.evaluation.compare import Budget, Contender, FitRow, compare
from tans_core.networks.family import Network
from tans_core.recipe import Recipe
from tests.factories.networks import PREPROCESS, tiny_network
from tests.factories.tasks import grating_task

BUDGET = Budget(steps=6, batch_size=16, eval_points=2)
RECIPE = Recipe(lr=0.02)


def contender(label: str, built: list[tuple[str, int]] | None = None) -> Contender:
    """Return a network whose weights follow from its label and the seed."""

    def factory(num_classes: int, seed: int) -> Network:
        if built is not None:
            built.append((label, seed))
        return tiny_network(num_classes, seed + len(label))

    return Contender(label, factory, PREPROCESS, RECIPE)


def plain(rows: list[FitRow]) -> list[dict[str, object]]:
    """Return the rows without what a clock says."""
    found = [asdict(row) for row in rows]
    for row in found:
        row["fit"].pop("seconds")
        for point in row["fit"]["curve"]:
            point.pop("seconds")
    return found


def test_a_network_that_two_strategies_name_is_trained_once_a_seed() -> None:
    built: list[tuple[str, int]] = []
    strategies = {"picked": [contender("one", built)], "random": [contender("three", built), contender("one", built)]}
    rows = compare(grating_task(), strategies, seeds=[0, 1], budget=BUDGET)
    assert len(built) == len(set(built)) == 3
    by_slot = {(row.strategy, row.draw, row.seed): row for row in rows}
    # The draws of a strategy take turns at the seeds.
    assert list(by_slot) == [("picked", 0, 0), ("picked", 0, 1), ("random", 0, 0), ("random", 1, 1)]
    assert by_slot["picked", 0, 1].fit is by_slot["random", 1, 1].fit
    assert by_slot["picked", 0, 0].fit is not by_slot["picked", 0, 1].fit


@pytest.mark.parametrize(("draws", "seeds"), [(1, 3), (2, 3), (3, 3), (5, 3), (3, 1)])
def test_each_draw_and_each_seed_gets_its_turn(draws: int, seeds: int) -> None:
    strategies = {"random": [contender("x" * (1 + draw)) for draw in range(draws)]}
    budget = Budget(steps=1, batch_size=8, eval_points=1)
    rows = compare(grating_task(), strategies, seeds=list(range(seeds)), budget=budget)
    assert {row.draw for row in rows} == set(range(draws)) and {row.seed for row in rows} == set(range(seeds))
    assert len(rows) == max(draws, seeds)


def test_all_get_the_same_budget_and_validations() -> None:
    rows = compare(grating_task(), {"a": [contender("a")], "b": [contender("bb")]}, seeds=[0], budget=BUDGET)
    assert [[point["step"] for point in row.fit.curve] for row in rows] == [[3, 6], [3, 6]]
    assert rows[0].fit.params_m == pytest.approx(sum(value.numel() for value in tiny_network().parameters()) / 1e6)


def test_two_runs_give_the_same_rows() -> None:
    strategies = {"a": [contender("a")], "b": [contender("bb")]}
    once, again = (plain(compare(grating_task(), strategies, seeds=[0, 1], budget=BUDGET)) for _ in range(2))
    assert once == again


def test_finished_fits_are_read_back_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategies = {"a": [contender("a")]}
    first = compare(grating_task(), strategies, seeds=[0], budget=BUDGET, resume=tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("tans_core.finetuning.fits.finetune", refuse)
    assert compare(grating_task(), strategies, seeds=[0], budget=BUDGET, resume=tmp_path) == first
    changed = {
        "seed": {"seeds": [1]},
        "budget": {"budget": Budget(**{**asdict(BUDGET), "steps": 7})},
    }
    for change in changed.values():
        with pytest.raises(AssertionError, match="trained again"):
            compare(grating_task(), strategies, **{"seeds": [0], "budget": BUDGET, "resume": tmp_path, **change})
    with pytest.raises(AssertionError, match="trained again"):
        compare(grating_task(noise=31.0), strategies, seeds=[0], budget=BUDGET, resume=tmp_path)
    with pytest.raises(AssertionError, match="trained again"):
        large = PREPROCESS.model_copy(update={"image_size_px": 24})
        resized = {"a": [contender("a")._replace(preprocess=large)]}
        compare(grating_task(), resized, seeds=[0], budget=BUDGET, resume=tmp_path)
    with pytest.raises(AssertionError, match="trained again"):
        other = {"a": [Contender("a", contender("other").factory, PREPROCESS, RECIPE)]}
        compare(grating_task(), other, seeds=[0], budget=BUDGET, resume=tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tans_core.evaluation.compare import compare, Contender
from tests.unit.evaluation.test_compare import BUDGET, RECIPE, contender
from tans_core.recipe import Recipe
from tests.factories.networks import PREPROCESS
from tests.factories.tasks import grating_task

def deadly(num_classes, seed):
    os.kill(os.getpid(), signal.SIGKILL)

strategies = {{"a": [contender("a")], "b": [Contender("bb", deadly, PREPROCESS, RECIPE)]}}
compare(grating_task(), strategies, seeds=[0, 1], budget=BUDGET, resume=Path({folder!r}))
"""


def test_a_killed_run_goes_on_where_it_was_and_gives_the_same_rows(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    code = KILLED.format(root=root, folder=str(tmp_path / "cut"))
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=False)
    assert ended.returncode == -signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.json")}
    assert len(kept) == 2
    strategies = {"a": [contender("a")], "b": [contender("bb")]}
    resumed = compare(grating_task(), strategies, seeds=[0, 1], budget=BUDGET, resume=tmp_path / "cut")
    whole = compare(grating_task(), strategies, seeds=[0, 1], budget=BUDGET, resume=tmp_path / "whole")
    assert plain(resumed) == plain(whole)
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.json")}
    assert len(now) == 4
    assert kept.items() <= now.items()


def test_of_ways_that_count_as_one_the_best_by_validation_is_taken() -> None:
    task = grating_task()
    ways = [contender(label) for label in ("a", "bb", "ccc")]
    one = ways[0]._replace(or_else=tuple(ways[1:]))
    rows = compare(task, {"x": [one]}, seeds=[0, 1], budget=BUDGET)
    assert [row.seed for row in rows] == [0, 1]
    for row in rows:
        found = {
            way.label: compare(task, {"x": [way]}, seeds=[row.seed], budget=BUDGET)[0].fit.best_val_accuracy
            for way in ways
        }
        assert row.fit.best_val_accuracy == max(found.values())
        assert found[row.label] == max(found.values())
