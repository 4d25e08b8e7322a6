from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tans_core.errors import ParamsError
from tans_core.networks.mbconv import FAMILY as MBCONV
from tans_core.params import RESERVED_TASK, parse_params
from tans_core.recipe import Recipe
from tans_core.tasks.task import Task
from tans_core.zoo.base import HOME, BaseRecipe, base_lineage, build_base, save_base
from tans_core.zoo.build import Zoo, read_all_cards, read_cards
from tans_core.zoo.card import ModelCard
from tans_core.zoo.supernet import SupernetRecipe
from tans_core.zoo.weights import Base, load_model
from tests.factories.project import PARAMS
from tests.factories.tasks import grating_task

NAME = "elastic-mbconv"
WEIGHTS = "efficientnet-lite0"
SETTINGS: dict[str, Any] = {
    "image_size_px": 32,
    "used_at_px": [32, 40],
    "weights": WEIGHTS,
    "kernels": [3],
    "expansions": [3],
    "min_depth": 1,
}
TRAINING = SupernetRecipe(2, 8, Recipe(optimizer="adamw", lr=0.01), "fp32")


def build(start_share: float, subnets: int = 0) -> Zoo:
    recipe = BaseRecipe(TRAINING, start_share, subnets)
    return build_base(NAME, SETTINGS, two_tasks(), recipe, seed=0, resume_folder=None)[0]


def two_tasks() -> list[Task]:
    return [grating_task("a", seed=0), grating_task("b", classes=4, seed=1)]


def weights_of(zoo: Zoo) -> dict[str, torch.Tensor]:
    return {
        name: value
        for name, value in zoo.supernet.state_dict().items()
        if name.endswith("weight") and not name.startswith("classifier.")
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    infos = [task.info for task in two_tasks()]
    save_base(data / "base", {NAME: build(0.5, subnets=3)}, {NAME: SETTINGS}, infos, "fp32")
    return data


def published() -> dict[str, torch.Tensor]:
    space = MBCONV.space(SETTINGS)
    network = space.supernet(2)
    MBCONV.start(space, network)
    return dict(network.state_dict())


def test_a_share_of_the_start_is_kept_in_every_weight() -> None:
    trained, half, start = weights_of(build(0.0)), weights_of(build(0.5)), published()
    assert any(not torch.equal(value, start[name]) for name, value in trained.items())
    for name, value in half.items():
        torch.testing.assert_close(value, (trained[name] + start[name]) / 2, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, start[name]) for name, value in weights_of(build(1.0)).items())


def test_random_weights_are_no_start_to_keep() -> None:
    family = "elastic-residual"
    with pytest.raises(ParamsError, match=r"start_share: got 0\.5 for elastic-residual, want 0.*random weights"):
        build_base(family, PARAMS["networks"][family], two_tasks(), BaseRecipe(TRAINING, 0.5, 0), 0, None)


def test_published_network_is_in_the_zoo_as_it_is_at_every_size(written: Path) -> None:
    cards = [card for card in read_cards(written / "base") if card.home_task == "ImageNet-1k"]
    assert [(card.id, card.preprocess.image_size_px) for card in cards] == [
        (f"{WEIGHTS}.32", 32),
        (f"{WEIGHTS}.40", 40),
    ]
    start = published()
    for card in cards:
        assert card.general and card.val_accuracy is None and card.test_accuracy is None
        assert [one.name for one in card.lineage] == [WEIGHTS, "ImageNet-1k"]
        assert card.licence == "Apache-2.0 AND LicenseRef-imagenet-terms"
        own = load_model(card, written / card.weights).state_dict()
        assert all(torch.equal(value, start[name]) for name, value in own.items() if not name.startswith("classifier."))
    assert cards[0].params_m == cards[1].params_m and cards[0].macs_m < cards[1].macs_m


def test_members_of_the_base_are_in_the_zoo_largest_first(written: Path) -> None:
    cards = [card for card in read_cards(written / "base") if card.home_task == "base"]
    space = MBCONV.space(SETTINGS)
    assert [card.id for card in cards] == [f"mbconv.base.{number:03d}" for number in range(3)]
    assert [card.preprocess.image_size_px for card in cards] == [40, 32, 40]
    assert [space.member(card.architecture) == space.largest() for card in cards] == [True, True, False]
    for card in cards:
        assert card.lineage == base_lineage(NAME, SETTINGS, [task.info for task in two_tasks()])
        assert {one.name for one in card.lineage} == {WEIGHTS, "ImageNet-1k", "a", "b"}
        network = load_model(card, written / card.weights)
        size = card.preprocess.image_size_px
        assert torch.isfinite(network(torch.randn(2, 3, size, size))).all()
    calibrated = load_file(written / "base" / f"{NAME}.calibration.safetensors")
    # The same weights under the statistics of images of another size.
    first, second = (calibrated[f"{card.id}/stem.norm.running_var"] for card in cards[:2])
    assert not torch.equal(first, second)


def test_networks_of_no_task_are_read_before_those_of_the_tasks(written: Path) -> None:
    cards = read_all_cards(written, ())
    assert len(cards) == 5 and all(card.general for card in cards)
    assert [ModelCard.from_json(card.to_json()) for card in cards] == cards


def test_published_weights_are_read_back_by_their_name(written: Path) -> None:
    found = Base.open(written / "base").published(WEIGHTS)
    assert found is not None
    network, preprocess, path = found
    assert (preprocess.image_size_px, preprocess.statistics, path.name) == (32, "own", f"{WEIGHTS}.safetensors")
    start = published()
    own = network.state_dict()
    assert all(torch.equal(own[name], start[name]) for name in own if not name.startswith("classifier."))
    assert Base.open(written / "base").published("efficientnet-lite9") is None


def test_a_base_made_again_is_the_same_in_every_byte() -> None:
    first, second = build(0.5, subnets=2), build(0.5, subnets=2)
    assert [card.to_json() for card in first.cards] == [card.to_json() for card in second.cards]
    assert all(torch.equal(value, second.calibrations[name]) for name, value in first.calibrations.items())


def test_no_task_may_take_the_name_of_the_bases_home(tmp_path: Path) -> None:
    assert HOME == RESERVED_TASK
    text = (Path(__file__).parents[3] / "params.yaml").read_text()
    taken = text.replace("  meta_test:\n", "  meta_test:\n    base: {source: animal-mnist}\n")
    with pytest.raises(ParamsError, match=r"tasks: base: the name is reserved for the base's own networks"):
        parse_params(taken, tmp_path / "params.yaml")
