"""Recipes: settings of training in params.yaml and cards, and the optimizer that they give."""

import itertools
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tans_core.params import FinetuneParams, ZooParams
from tans_core.recipe import Recipe, for_family

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "lr": 0.01,
    "momentum": 0.9,
    "families": {"wide": {"optimizer": "adamw", "lr": 0.001, "batch_size": 4}},
}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def optimizer_of(recipe: Recipe, steps: int = 10) -> tuple[torch.optim.Optimizer, Any]:
    made = network()
    made_of = recipe.optimizers(made[:2].parameters(), made[2].parameters(), steps)
    return made_of["optimizer"], made_of["lr_scheduler"]["scheduler"]


def test_a_family_has_its_own_settings_before_those_of_all() -> None:
    assert for_family(SETTINGS, "wide")["batch_size"] == 4
    assert for_family(SETTINGS, "wide")["epochs"] == 3
    assert for_family(SETTINGS, "other") == {name: value for name, value in SETTINGS.items() if name != "families"}
    assert Recipe.of(SETTINGS, "wide") == Recipe(optimizer="adamw", lr=0.001)
    assert Recipe.of(SETTINGS, "other") == Recipe(lr=0.01)


def test_settings_of_a_release_from_before_recipes_are_read() -> None:
    old = {"epochs": 10, "batch_size": 32, "lr": 0.01, "momentum": 0.8, "weight_decay": 4e-5}
    assert Recipe.of(old, "elastic-residual") == Recipe(lr=0.01, momentum=0.8, weight_decay=4e-5)
    assert FinetuneParams.model_validate(old).of_family("any").lr == 0.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wide": {"epoch": 3}}, "families.wide: got epoch, want some of"),
        ({"wide": {"epochs": 3}}, "got epochs"),
        ({"wide": {"lr": -1}}, "families.wide: .*lr"),
        ({"wide": {"optimizer": "lion"}}, "families.wide: .*optimizer"),
    ],
)
def test_wrong_settings_of_a_family_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FinetuneParams.model_validate({**SETTINGS, "families": changes})


def test_families_may_differ_in_what_their_section_says() -> None:
    said = {"steps": 9, "batch_size": 8, "lr": 0.1, "subnets": 8, "calibration_images": 5}
    zoo = ZooParams.model_validate({**said, "families": {"wide": {"subnets": 4, "steps": 2}}})
    assert (zoo.of_family("wide").subnets, zoo.of_family("wide").steps, zoo.of_family("other").subnets) == (4, 2, 8)
    with pytest.raises(ValidationError, match="calibration_images"):
        ZooParams.model_validate({**said, "families": {"wide": {"calibration_images": 4}}})


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_classifier_has_its_own_rate_and_vectors_are_not_decayed(kind: Any) -> None:
    optimizer, _ = optimizer_of(Recipe(optimizer=kind, lr=0.1, head_factor=5, weight_decay=0.2))
    assert isinstance(optimizer, torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)
    for group in optimizer.param_groups:
        matrices = {value.ndim > 1 for value in group["params"]}
        assert len(matrices) == 1
        assert group["weight_decay"] == (0.2 if matrices == {True} else 0.0)
    rates = {tuple(value.shape): group["initial_lr"] for group in optimizer.param_groups for value in group["params"]}
    assert rates == {(4, 3): 0.1, (4,): 0.1, (2, 4): 0.5, (2,): 0.5}


def test_rate_rises_in_the_warm_up_and_falls_to_zero() -> None:
    recipe = Recipe(lr=1.0, warmup=0.2)
    factors = [recipe.factor(step, 20) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(factors[4:]))
    assert factors[-1] < 0.01
    optimizer, schedule = optimizer_of(recipe, 20)
    for wanted in factors:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(wanted)
        optimizer.step()
        schedule.step()


def test_a_recipe_of_a_newer_version_keeps_what_it_does_not_know() -> None:
    read = Recipe.model_validate({"lr": 0.1, "layer_decay": 0.7})
    assert Recipe.model_validate(read.model_dump()) == read
    assert read.model_dump()["layer_decay"] == 0.7


@pytest.mark.parametrize(
    "wrong", [{"lr": 0}, {"lr": float("inf")}, {"lr": 0.1, "warmup": 1}, {"lr": 0.1, "momentum": 1}]
)
def test_impossible_recipes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(wrong)


def test_what_features_know_already_wants_smaller_steps_to_a_floor() -> None:
    recipe = Recipe(lr=0.4, head="fitted", lr_floor=0.5)
    assert [recipe.scaled_by_fit(fit).lr for fit in (-0.2, 0.0, 0.25, 0.9)] == pytest.approx([0.4, 0.4, 0.3, 0.2])
    assert Recipe(lr=0.4).scaled_by_fit(0.9).lr == 0.4
