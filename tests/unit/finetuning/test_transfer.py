from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tans_core.embeddings.scores import ScoreRows
from tans_core.embeddings.store import write_table
from tans_core.errors import ParamsError
from tans_core.finetuning import transfer
from tans_core.finetuning.fits import Budget
from tans_core.finetuning.transfer import TransferBudget, plan_pairs, transfer_scores
from tans_core.recipe import Recipe
from tans_core.tasks.task import read_task, write_task
from tans_core.zoo.base import save_base
from tans_core.zoo.build import Sampling, Zoo, build_zoo, write_zoo
from tans_core.zoo.card import ModelCard
from tans_core.zoo.supernet import SupernetRecipe
from tans_core.zoo.weights import Base
from tests.factories.embeddings import card
from tests.factories.networks import tiny_space
from tests.factories.tasks import grating_task

FAMILY = "elastic-residual"
SPACE = tiny_space(max_depth=2, kernels=(3, 5), ratios=(0.5, 1.0))
TASKS = ("a", "b", "c")
BUDGET = TransferBudget(
    networks_per_task=3,
    probes_per_home=1,
    seeds=(0, 1),
    fit=Budget(steps=6, batch_size=16, eval_points=3),
    recipes={"lr": 0.02},
    probe_images=30,
    probe_images_per_class=10,
)


def many_cards(homes: int = 8, models: int = 5) -> list[ModelCard]:
    return [card(f"m.{home}.{number}", f"task-{home}") for home in range(homes) for number in range(models)]


class Tried(NamedTuple):
    rows: ScoreRows
    done: Path


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ModelCard]]:
    """Three tasks and the zoo of each, on disk."""
    data = tmp_path_factory.mktemp("data")
    torch.manual_seed(0)
    base = Zoo(SPACE.supernet(2), [], {})
    save_base(data / "base", {FAMILY: base}, {FAMILY: SPACE.model_dump(mode="json")}, (), "fp32")
    recipe = SupernetRecipe(15, 16, Recipe(lr=0.05), "fp32")
    cards = []
    for seed, name in enumerate(TASKS):
        task = grating_task(name, seed=seed)
        write_task(task, data / "tasks" / name)
        zoo = build_zoo(task, Base.open(data / "base"), FAMILY, recipe, Sampling(4, 0, 30), seed=0)
        write_zoo({FAMILY: zoo}, data / "zoo" / name)
        cards += zoo.cards
    return data, cards


@pytest.fixture(scope="module")
def tried(zoo: tuple[Path, list[ModelCard]], tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """The scores of all, and the folder of its trials; tests that change it copy it."""
    done = tmp_path_factory.mktemp("done")
    return Tried(transfer_scores(*zoo, TASKS, BUDGET, 0, jobs=1, done=done), done)


def as_dict(rows: ScoreRows) -> dict[tuple[str, str, str, int], float]:
    keys = zip(rows.tasks, rows.models, rows.kinds, rows.seeds, strict=True)
    return dict(zip(((str(t), str(m), str(k), int(s)) for t, m, k, s in keys), rows.values.tolist(), strict=True))


def test_plan_covers_every_task_and_network_and_takes_homes_in_turns() -> None:
    cards, tasks = many_cards(), [f"task-{home}" for home in range(8)]
    plan = plan_pairs(cards, tasks, 7, seed=0)
    assert {c.id for chosen in plan.values() for c in chosen} == {c.id for c in cards}
    for task, chosen in plan.items():
        assert task not in {c.home_task for c in chosen}
        assert len({c.home_task for c in chosen[:7]}) == 7
        assert len({c.id for c in chosen}) == len(chosen)


def test_a_task_or_a_network_that_is_added_changes_no_other_pair() -> None:
    cards, tasks = many_cards(), [f"task-{home}" for home in range(8)]
    before = plan_pairs(cards, tasks, 7, seed=0)
    after = plan_pairs([*cards, card("m.9.0", "task-9")], [*tasks, "task-9"], 7, seed=0)
    for task in tasks:
        kept = {c.id for c in after[task][:7]} - {"m.9.0"}
        assert kept <= {c.id for c in before[task][:7]}
        assert len(kept) >= 6


def test_networks_of_no_task_are_drawn_for_every_task_beside_the_others() -> None:
    cards, tasks = many_cards(), [f"task-{home}" for home in range(8)]
    general = [
        card(f"g.{number}", "base").model_copy(update={"class_names": (), "val_accuracy": None}) for number in range(4)
    ]
    before, after = plan_pairs(cards, tasks, 7, seed=0), plan_pairs([*cards, *general], tasks, 7, 0, True, 2)
    drawn = {task: [c.id for c in chosen if c.general] for task, chosen in after.items()}
    assert {len(ids) for ids in drawn.values()} == {2}
    assert {name for ids in drawn.values() for name in ids} == {one.id for one in general}
    assert {task: [c for c in chosen if not c.general] for task, chosen in after.items()} == before


def test_one_home_alone_cannot_be_tried_on_itself() -> None:
    with pytest.raises(ParamsError, match=r"all networks have the home task 'task-0'.*Add another task"):
        plan_pairs(many_cards(homes=1), ["task-0"], 3, seed=0)


def test_scores_of_the_plan_are_in_the_table_and_do_not_depend_on_jobs(
    zoo: tuple[Path, list[ModelCard]], tried: Tried, tmp_path: Path
) -> None:
    rows = tried.rows
    kinds = Counter((str(t), str(k)) for t, k in zip(rows.tasks, rows.kinds, strict=True))
    assert all(kinds[task, "finetune"] >= 6 and kinds[task, "probe"] >= 3 for task in TASKS)
    tuned, probed = rows.of("finetune").values, rows.of("probe").values
    assert ((tuned >= 0) & (tuned <= 1)).all()
    assert (probed <= 1).all()
    assert len(np.unique(tuned)) > 3
    # One task has one process beside this one.
    beside = as_dict(transfer_scores(*zoo, TASKS[:1], BUDGET, 0, jobs=2, done=tmp_path / "beside"))
    same = as_dict(rows).keys() & beside.keys()
    assert len(same) >= 9
    assert {key: beside[key] for key in same} == {key: as_dict(rows)[key] for key in same}
    write_table(tmp_path / "store", "transfer", rows.to_table(), key=None)
    assert as_dict(ScoreRows.read(tmp_path / "store")) == as_dict(rows)


def test_a_recipe_that_diverges_is_worth_what_chance_is_and_ends_no_build(
    zoo: tuple[Path, list[ModelCard]], tmp_path: Path
) -> None:
    data, cards = zoo
    wild = cards[-1].model_copy(update={"recipe": Recipe(lr=1e30)})
    found = as_dict(transfer_scores(data, [*cards[:-1], wild], TASKS, BUDGET, 0, 1, tmp_path))
    of_it = [value for (_, model, kind, _), value in found.items() if model == wild.id and kind == "finetune"]
    chance = 1 / read_task(data / "tasks" / TASKS[0]).info.num_classes
    assert of_it
    assert of_it == [chance] * len(of_it)


def test_finished_trials_are_read_back_and_a_new_network_costs_its_own_alone(
    zoo: tuple[Path, list[ModelCard]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cards = zoo
    fewer = [c for c in cards if c.id != cards[-1].id]
    before = as_dict(transfer_scores(data, fewer, TASKS, BUDGET, 0, 1, tmp_path))
    tried: list[str] = []
    tune, probed = transfer._tune, transfer.probe
    monkeypatch.setattr(transfer, "_tune", lambda *args: (tried.append("finetune"), tune(*args))[1])
    monkeypatch.setattr(transfer, "probe", lambda *args: (tried.append("probe"), probed(*args))[1])
    assert as_dict(transfer_scores(data, fewer, TASKS, BUDGET, 0, 1, tmp_path)) == before
    assert tried == []
    after = as_dict(transfer_scores(data, cards, TASKS, BUDGET, 0, 1, tmp_path))
    # What it took from others' places was tried before, or is the newcomer's.
    assert len(tried) == len(after.keys() - before.keys())
    assert {key[1] for key in after.keys() - before.keys()} >= {cards[-1].id}


def test_a_line_cut_short_by_a_kill_costs_that_trial_alone(
    zoo: tuple[Path, list[ModelCard]], tried: Tried, tmp_path: Path
) -> None:
    done = Path(shutil.copytree(tried.done, tmp_path / "done"))
    log = sorted(done.glob("a.*.jsonl"))[0]
    text = log.read_text()
    log.write_text(text[:-9])
    assert as_dict(transfer_scores(*zoo, TASKS, BUDGET, 0, 1, done)) == as_dict(tried.rows)
    assert text.splitlines()[-1] in log.read_text().splitlines()


CODE = """
import sys
from pathlib import Path
from tans_core.finetuning.transfer import transfer_scores
from tans_core.zoo.build import read_all_cards
from tests.unit.finetuning.test_transfer import BUDGET, TASKS
data = Path(sys.argv[1])
transfer_scores(data, read_all_cards(data, TASKS), TASKS, BUDGET, 0, 1, Path(sys.argv[2]))
"""


def test_a_killed_run_goes_on_where_it_was(zoo: tuple[Path, list[ModelCard]], tried: Tried, tmp_path: Path) -> None:
    data, cards = zoo
    root = str(Path(__file__).parents[3])
    child = subprocess.Popen(
        [sys.executable, "-c", CODE, str(data), str(tmp_path)], cwd=root, env={**os.environ, "PYTHONPATH": root}
    )
    while child.poll() is None and sum(len(log.read_text().splitlines()) for log in tmp_path.glob("*.jsonl")) < 4:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = [line for log in tmp_path.glob("*.jsonl") for line in log.read_text().splitlines()]
    assert len(kept) >= 4
    assert as_dict(transfer_scores(data, cards, TASKS, BUDGET, 0, 1, tmp_path)) == as_dict(tried.rows)
