"""A zoo of several families: small networks, networks that begin with ImageNet, and those of timm and torchvision.

Each is trained by its own recipe.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tans_core as tans
from flows.zoo_refresh import refresh
from tans_core.evaluation import compare as comparing
from tans_core.finetuning.fits import Budget, Contender, Fit
from tans_core.networks.registry import get_family
from tans_core.stages import evaluate
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import Base
from tests.factories.packaged import NAMES, drop
from tests.factories.project import PARAMS, TASKS, UNSEEN, build_project

pytestmark = pytest.mark.slow

FAMILY = "elastic-mbconv"
RECIPE = {"optimizer": "adamw", "lr": 0.001, "head_factor": 5.0, "warmup": 0.1}
NETWORK = {
    "image_size_px": 32,
    "used_at_px": [32, 40],
    "weights": "efficientnet-lite0",
    "kernels": [3],
    "expansions": [3, 6],
    "min_depth": 1,
}
PUBLISHED = ["efficientnet-lite0.32", "efficientnet-lite0.40"]


def with_family(section: str, **own: Any) -> dict[str, Any]:
    return {**PARAMS[section], "families": {FAMILY: own}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build_project(
        tmp_path_factory.mktemp("families"),
        networks={**PARAMS["networks"], FAMILY: NETWORK},
        data={**PARAMS["data"], "stored_size_px": 40},
        base=with_family("base", **RECIPE, steps=3, start_share=0.5, subnets=3),
        zoo=with_family("zoo", **RECIPE, steps=3, subnets=4),
        finetune=with_family("finetune", **RECIPE),
        evaluate={**PARAMS["evaluate"], "steps": 2, "longer": 3},
    )
    before = {card.id: card for card in tans.list_models(root)}
    for names in NAMES:
        drop(root / "inbox", *names)
    outcome = refresh(root, lambda *_: None, settle_s=0)
    assert outcome.refused == {}
    after = {card.id: card for card in tans.list_models(root)}
    assert before.items() <= after.items()
    return root


def cards_of(root: Path, family: str) -> list[ModelCard]:
    return [card for card in tans.list_models(root) if card.family == family]


def test_its_networks_descend_from_imagenet_and_say_so(project: Path) -> None:
    cards = cards_of(project, FAMILY)
    homes = Counter(card.home_task for card in cards)
    assert homes == {**dict.fromkeys(TASKS, 4), "ImageNet-1k": 2, "base": 3}
    for card in cards:
        weights, images = card.lineage[:2]
        assert (weights.kind, weights.name, weights.licence) == ("weights", "efficientnet-lite0", "Apache-2.0")
        assert (images.kind, images.name, images.licence) == ("task", "ImageNet-1k", "LicenseRef-imagenet-terms")
        assert "LicenseRef-imagenet-terms" in card.licence
        assert card.preprocess.statistics == "own"
    others = cards_of(project, "elastic-residual")
    assert not any("imagenet" in card.licence for card in others)


def test_each_is_fine_tuned_by_the_recipe_of_its_family(project: Path) -> None:
    for family, optimizer in ((FAMILY, "adamw"), ("elastic-residual", "sgd")):
        run = tans.finetune(UNSEEN, cards_of(project, family)[0].id, epochs=1, root=project)
        said = json.loads((run.folder / "params.json").read_text())["recipe"]
        card = ModelCard.from_dict(json.loads((run.folder / "card.json").read_text()))
        assert said["optimizer"] == optimizer
        assert card.recipe is not None
        assert card.recipe.model_dump() == said


def test_evaluation_compares_with_the_imagenet_network_at_the_best_of_its_sizes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: dict[str, float] = {}
    fit_once = comparing.fit_once

    def watched(contender: Contender, task: Any, seed: int, budget: Budget, resume: Any) -> Fit:
        found = fit_once(contender, task, seed, budget, resume)
        tried[f"{contender.label} {seed}"] = found.best_val_accuracy
        return found

    monkeypatch.setattr(comparing, "fit_once", watched)
    monkeypatch.setattr(evaluate, "cores", lambda: 1)
    evaluate.main(project)
    labels = {label.rpartition(" ")[0] for label in tried}
    assert set(PUBLISHED) <= labels
    metrics = json.loads((project / "metrics/evaluate.json").read_text())
    assert metrics["accuracy"].keys() > {"picked", "base", "imagenet"}
    # It takes three times the steps, as the curve shows, so it is not compared with the others.
    curves = pd.read_csv(project / "plots/evaluate.csv")
    steps = curves.groupby("strategy")["step"].max()
    assert steps["imagenet-long"] == 3 * steps["imagenet"] == 3 * steps["picked"]
    assert metrics["rank"].keys() == metrics["accuracy"].keys() - {"imagenet-long"}
    # The whole network, ImageNet's classifier replaced.
    base = Base.open(project / "data/base")
    space = base.space(FAMILY)
    whole = get_family(FAMILY).cost(space.describe(space.largest()), 32, 3)
    assert metrics["cost"]["imagenet"]["params_m"] == pytest.approx(whole.params_m)
    page = (project / "reports/evaluate.html").read_text()
    assert f"{' or '.join(PUBLISHED)}, as published" in page


def test_networks_of_libraries_are_served(project: Path) -> None:
    found = {
        (card.architecture["package"], card.architecture["name"])
        for card in tans.list_models(project)
        if card.family == "library"
    }
    assert found == set(NAMES)


def test_networks_of_libraries_are_retrieved_and_probed_among_the_others(project: Path) -> None:
    everything = len(tans.list_models(project))
    plain = tans.retrieve(UNSEEN, top_k=everything, root=project)
    refined = tans.retrieve(UNSEEN, top_k=everything, refine=everything, root=project)
    assert {one.model for one in plain} == {one.model for one in refined}
    assert len(plain) == everything


@pytest.mark.parametrize("names", [("timm", "vit_tiny_patch16_224"), ("torchvision", "mnasnet0_5")], ids="-".join)
def test_networks_of_libraries_are_fine_tuned_by_the_recipe_of_their_cards(
    project: Path, names: tuple[str, str]
) -> None:
    (card,) = [
        card
        for card in tans.list_models(project)
        if (card.architecture.get("package"), card.architecture.get("name")) == names
    ]
    run = tans.finetune(UNSEEN, card.id, epochs=1, root=project)
    said = json.loads((run.folder / "params.json").read_text())["recipe"]
    assert (said["optimizer"], said["lr"], said["warmup"]) == ("adamw", 0.001, 0.1)
    assert 0 <= run.test_accuracy <= 1
