from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tans_core.embeddings.store import FeatureRows
from tans_core.evaluation.strategies import REFINED, line_up, nearest_task
from tans_core.index.releases import open_pipeline
from tans_core.retrieval.retriever import Retriever
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.task import Task, read_task
from tans_core.zoo.weights import Base


@pytest.fixture(scope="module")
def retriever(project: Path) -> Retriever:
    return Retriever.open(open_pipeline(project))


@pytest.fixture(scope="module")
def features(project: Path) -> FeatureRows:
    return FeatureRows.read(project / "data/store")


@pytest.fixture(scope="module")
def task(project: Path) -> Task:
    return read_task(project / "data/tasks/patches")


def test_each_strategy_starts_from_what_it_says(retriever: Retriever, features: FeatureRows, task: Task) -> None:
    line = line_up(retriever, features, task, random_draws=3, top_k=4, seed=0)
    chosen = {choice.strategy: choice.models for choice in line.choices}
    assert (
        list(line.contenders)
        == list(chosen)
        == ["picked", "refined", "scratch", "base", "random", "largest", "nearest"]
    )
    assert len(line.candidates) == 4
    assert chosen["picked"] == chosen["scratch"] == chosen["base"] == (retriever.retrieve(task).candidates[0].model,)
    assert chosen["refined"] == (retriever.retrieve(task, top_k=1, refine_first=REFINED).candidates[0].model,)
    assert retriever.card(chosen["largest"][0]).params_m == max(card.params_m for card in retriever.cards.values())
    assert len(set(chosen["random"])) == 3
    home = retriever.card(chosen["nearest"][0]).home_task
    accuracies = [card.val_accuracy for card in retriever.cards.values() if card.home_task == home]
    assert retriever.card(chosen["nearest"][0]).val_accuracy == max(accuracies)


def test_scratch_and_base_have_the_picked_architecture_and_other_weights(
    retriever: Retriever, features: FeatureRows, task: Task
) -> None:
    contenders = line_up(retriever, features, task, random_draws=3, top_k=4, seed=0).contenders
    states = {name: contenders[name][0].factory(3, 1).state_dict() for name in ("picked", "scratch", "base")}
    assert len({contenders[name][0].label for name in states}) == 3
    shapes = [{key: value.shape for key, value in state.items()} for state in states.values()]
    assert shapes[0] == shapes[1] == shapes[2]
    weights = [state["stem.weight"] for state in states.values()]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[1], weights[2])
    # One seed gives all the same fresh classifier: the comparison is of what lies below it.
    assert torch.equal(states["picked"]["classifier.weight"], states["scratch"]["classifier.weight"])


def test_scratch_and_base_are_fed_as_the_picked_one_is(retriever: Retriever, features: FeatureRows, task: Task) -> None:
    contenders = line_up(retriever, features, task, random_draws=3, top_k=4, seed=0).contenders
    picked = contenders["picked"][0]
    assert contenders["scratch"][0].preprocess == contenders["base"][0].preprocess == picked.preprocess
    assert picked.preprocess == retriever.card(picked.label).preprocess


def test_no_strategy_gets_a_treatment_that_the_others_do_not(
    retriever: Retriever, features: FeatureRows, task: Task
) -> None:
    # Their BatchNorm statistics are as they are stored; fine-tuning gives each those of the task.
    contenders = line_up(retriever, features, task, random_draws=3, top_k=4, seed=0).contenders
    label = contenders["picked"][0].label
    base = Base.open(retriever.release.base_dir).load("elastic-residual")
    extracted = base.extract(base.space.member(retriever.card(label).architecture)).state_dict()
    given = contenders["base"][0].factory(3, 1).state_dict()
    assert all(torch.equal(value, extracted[name]) for name, value in given.items() if "running" in name)


def test_random_draws_depend_on_seed_and_task_only(retriever: Retriever, features: FeatureRows, task: Task) -> None:
    draws = [
        line_up(retriever, features, task, random_draws=3, top_k=1, seed=seed).choices[4].models
        for seed in (0, 0, 1, 2)
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


def test_nothing_is_chosen_by_the_test_split(retriever: Retriever, features: FeatureRows, task: Task) -> None:
    train_only = task.splits == "train"
    images = SquareImages.of(
        image if kept else 255 - image for image, kept in zip(task.images, train_only.tolist(), strict=True)
    )
    other = Task(
        task.info, images, np.where(train_only, task.labels, 0), task.splits, task.sha256, task.paths, task.sizes
    )
    lines = [line_up(retriever, features, one, random_draws=3, top_k=4, seed=0) for one in (task, other)]
    assert lines[0].choices == lines[1].choices


def test_nearest_is_by_angle_and_ties_go_by_name() -> None:
    homes = {"far": np.array([0.0, 9.0]), "near": np.array([2.0, 0.2]), "b": np.array([1.0, 0.1])}
    name, cosine = nearest_task(np.array([5.0, 0.5]), homes)
    assert (name, cosine) == ("b", pytest.approx(1.0))
    assert nearest_task(np.array([0.0, 1.0]), homes)[0] == "far"
