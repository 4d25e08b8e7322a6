import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tans_core.errors import DataError, WeightsError
from tans_core.licences import lacking
from tans_core.networks.elastic import FAMILY, Architecture
from tans_core.networks.family import Supernet
from tans_core.networks.preprocess import Preprocess, calibrate, normalise
from tans_core.recipe import Recipe
from tans_core.runtime import derive_seed
from tans_core.tasks.task import Task
from tans_core.zoo import supernet
from tans_core.zoo.base import BaseRecipe, build_base, save_base
from tans_core.zoo.build import (
    Sampling,
    accuracy_on_normalised,
    build_zoo,
    read_all_cards,
    read_cards,
    sample_members,
    write_zoo,
)
from tans_core.zoo.card import Ancestor, ModelCard
from tans_core.zoo.supernet import SupernetRecipe, TrainingData, train_supernet
from tans_core.zoo.weights import Base, fresh_classifier, load_model
from tests.factories import second_family
from tests.factories.project import PARAMS
from tests.factories.tasks import grating_task

NAME = "elastic-residual"
SETTINGS: dict[str, Any] = PARAMS["networks"][NAME]
SPACE = FAMILY.space(SETTINGS)
OWN = Preprocess(image_size_px=16, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
ARCHITECTURES = {
    "fewer stages": [[{"kernel": 7, "ratio": 1.0}]],
    "larger kernel": [[{"kernel": 7, "ratio": 1.0}]] * 2,
    "wider": [[{"kernel": 3, "ratio": 4.0}]] * 2,
    "deeper": [[{"kernel": 3, "ratio": 1.0}] * 3] * 2,
}
TERMS = {"LicenseRef-acme": "for tests alone"}
BASE_TASKS = [
    replace(grating_task("a").info, licence="MIT"),
    replace(grating_task("b").info, licence="ISC AND LicenseRef-acme", licence_texts=TERMS),
]
LINEAGE = [Ancestor(kind="task", name=one.name, source="gratings", licence=one.licence) for one in BASE_TASKS]
RECIPE = SupernetRecipe(40, 32, Recipe(lr=0.1, weight_decay=1e-4, warmup=0.05), "fp32")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task, list[ModelCard]]:
    """A base of two tasks, and the zoo of one of them, on disk."""
    data = tmp_path_factory.mktemp("data")
    tasks = [grating_task("a", seed=0), grating_task("b", classes=4, seed=1)]
    base, losses = build_base(NAME, SETTINGS, tasks, BaseRecipe(RECIPE, 0, 2), seed=0, resume_folder=None)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    save_base(data / "base", {NAME: base}, {NAME: SETTINGS}, BASE_TASKS, "fp32")
    zoo = build_zoo(tasks[0], Base.open(data / "base"), NAME, RECIPE, Sampling(6, 0, 60), seed=0)
    write_zoo({NAME: zoo}, data / "zoo/a")
    return data, tasks[0], zoo.cards


def test_models_of_the_zoo_have_learnt_their_task(project: tuple[Path, Task, list[ModelCard]]) -> None:
    assert np.mean([card.val_accuracy for card in project[2]]) > 0.6
    assert project[2][1].params_m == max(card.params_m for card in project[2])


def test_selected_models_are_those_that_the_front_asks_for(
    project: tuple[Path, Task, list[ModelCard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The supernet need not be trained again to see which of its members are taken, and that they are measured as ever.
    monkeypatch.setattr("tans_core.zoo.build.train_supernet", lambda *_: [])
    data, task, _ = project
    recipe = replace(RECIPE, steps=1)
    zoo = build_zoo(task, Base.open(data / "base"), NAME, recipe, Sampling(4, 9, 60), seed=0)
    assert [card.id for card in zoo.cards] == [f"elastic.a.00{number}" for number in range(4)]
    assert len({json.dumps(card.architecture) for card in zoo.cards}) == 4
    pool = [SPACE.describe(member) for member in sample_members(SPACE, 9, derive_seed(0, "subnets", "a"))]
    assert all(card.architecture in pool for card in zoo.cards)
    macs = [FAMILY.cost(one, 16, 3).macs_m for one in pool]
    assert [zoo.cards[0].macs_m, zoo.cards[1].macs_m] == [min(macs), max(macs)]


def test_loaded_model_repeats_its_measured_accuracies(project: tuple[Path, Task, list[ModelCard]]) -> None:
    data, task, _ = project
    for card in read_cards(data / "zoo/a"):
        network = load_model(card, data / card.weights)
        for split, measured in (("val", card.val_accuracy), ("test", card.test_accuracy)):
            images, labels = task.pixels(16, split=split), task.labels[task.splits == split]
            pixels = normalise(torch.from_numpy(images), card.preprocess.mean, card.preprocess.std)
            assert accuracy_on_normalised(network, pixels, torch.from_numpy(labels)) == measured


def test_cards_read_back_as_they_were_written(project: tuple[Path, Task, list[ModelCard]]) -> None:
    data, _, cards = project
    read = read_cards(data / "zoo/a")
    assert [json.loads(card.to_json()) for card in read] == [json.loads(card.to_json()) for card in cards]
    assert len({card.id for card in read}) == 6
    assert read_all_cards(data, ["a"]) == read_cards(data / "base") + read  # and no arrivals


def test_terms_of_the_tasks_of_the_base_are_on_every_card(project: tuple[Path, Task, list[ModelCard]]) -> None:
    for card in project[2]:
        assert "LicenseRef-acme" in card.licence
        assert card.licences.texts["LicenseRef-acme"] == TERMS["LicenseRef-acme"]


def test_each_model_is_calibrated_on_the_training_images(project: tuple[Path, Task, list[ModelCard]]) -> None:
    data, task, cards = project
    images = TrainingData.of(task, "train", cards[0].preprocess).normalised()  # all 60 were asked for
    for card in cards:
        network = load_model(card, data / card.weights)
        stored = {name: value.clone() for name, value in network.state_dict().items()}
        calibrate(network, images)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, stored[name], rtol=1e-3, atol=1e-4)


def test_cards_tell_all_that_the_weights_descend_from(project: tuple[Path, Task, list[ModelCard]]) -> None:
    _, task, cards = project
    for card in cards:
        assert [(one.name, one.licence) for one in card.lineage] == [
            ("a", "MIT"),
            ("b", "ISC AND LicenseRef-acme"),
            ("a", "CC0-1.0"),
        ]
        assert card.licences.weights == card.licences.data == "CC0-1.0 AND ISC AND LicenseRef-acme AND MIT"
        assert lacking(card.licence, ["Apache-2.0", task.info.licence]) == ("ISC", "LicenseRef-acme", "MIT")
        assert (card.family, card.preprocess) == (NAME, FAMILY.preprocess(SPACE, task.info.mean, task.info.std))
        cost = FAMILY.cost(card.architecture, 16, 3)
        assert (card.params_m, card.macs_m) == (cost.params_m, cost.macs_m)


def test_base_reads_back_as_it_was_written(project: tuple[Path, Task, list[ModelCard]]) -> None:
    base = Base.open(project[0] / "base")
    assert base.space(NAME) == SPACE
    assert (list(base.lineages[NAME]), base.precision) == (LINEAGE, "fp32")
    first, named = base.load(num_classes=4), base.load(NAME, num_classes=4)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(first.features(images), named.features(images)) and not first.training
    assert first(images).shape == (2, 4)
    seeded = [fresh_classifier(base.load(), 5, seed)(images) for seed in (1, 1, 2)]
    assert torch.equal(seeded[0], seeded[1]) and not torch.equal(seeded[1], seeded[2])


def test_base_that_is_not_there_is_a_weights_error_with_the_next_command(
    project: tuple[Path, Task, list[ModelCard]], tmp_path: Path
) -> None:
    base = Base.open(project[0] / "base")
    with pytest.raises(WeightsError, match=r"no base of family 'mobilenet'; it holds elastic-residual"):
        base.load("mobilenet")
    with pytest.raises(WeightsError, match=r"base\.json: no such file.*tans build`, and for a release `tans publish`"):
        Base.open(tmp_path)
    (tmp_path / "base.json").write_text(json.dumps({"space": SETTINGS, "precision": "fp32"}))
    with pytest.raises(WeightsError, match=r"base\.json: of an earlier version.*tans build"):
        Base.open(tmp_path)
    shutil.copy(project[0] / "base/base.json", tmp_path)
    with pytest.raises(WeightsError, match=r"elastic-residual\.safetensors: not readable"):
        Base.open(tmp_path).load()


@pytest.mark.parametrize("damage", ["truncate", "other", "calibration", "family", *ARCHITECTURES])
def test_damaged_weights_are_a_weights_error(
    project: tuple[Path, Task, list[ModelCard]], tmp_path: Path, damage: str
) -> None:
    data, _, cards = project
    card, files = cards[2], {path.name: path.read_bytes() for path in (data / "zoo/a").glob("*.safetensors")}
    if damage == "truncate":
        files[f"{NAME}.safetensors"] = files[f"{NAME}.safetensors"][:1000]
    elif damage == "other":
        files[f"{NAME}.safetensors"] = files[f"{NAME}.calibration.safetensors"]
    elif damage == "calibration":
        card = card.model_copy(update={"id": "elastic.a.999"})
    elif damage == "family":
        card = card.model_copy(update={"family": "elastic"})
    else:
        card = card.model_copy(update={"architecture": {**card.architecture, "stages": ARCHITECTURES[damage]}})
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError):
        load_model(card, tmp_path / f"{NAME}.safetensors")


class _KilledError(BaseException):
    pass


def test_training_killed_at_a_step_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernet, "CHECKPOINT_EVERY", 4)
    data = [TrainingData.of(grating_task(), "train", OWN)]

    def run(resume: Path | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = SPACE.supernet(3)
        train_supernet(network, [network.classifier], data, replace(RECIPE, steps=10), 7, resume)
        return dict(network.state_dict())

    whole = run(None)
    batch, steps = TrainingData.batch, []

    def dying(self: TrainingData, *arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == 7:
            raise _KilledError
        return batch(self, *arguments)

    monkeypatch.setattr(TrainingData, "batch", dying)
    with pytest.raises(_KilledError):
        run(tmp_path)
    assert (tmp_path / "last.ckpt").is_file()
    resumed = run(tmp_path)
    assert len(steps) == 7 + 6  # from the fourth step on
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_sampled_members_are_distinct_and_hold_both_extremes() -> None:
    chosen = sample_members(SPACE, 20, seed=1)
    assert len(set(chosen)) == 20
    assert {SPACE.smallest(), SPACE.largest()} <= set(chosen)
    assert chosen == sample_members(SPACE, 20, seed=1) != sample_members(SPACE, 20, seed=2)
    tiny = FAMILY.space({**SETTINGS, "widths": [8], "strides": [2], "max_depth": 1, "ratios": [1.0]})
    assert len(sample_members(tiny, 24, seed=0)) == 2


def test_training_data_are_the_images_of_a_split_at_the_size_and_in_the_units_of_the_network() -> None:
    task = grating_task(size=20)
    data = TrainingData.of(task, "val", OWN)
    assert torch.equal(data.images, torch.from_numpy(task.pixels(16, split="val")))
    assert data.labels.tolist() == task.labels[task.splits == "val"].tolist()
    assert torch.equal(data.normalised(), normalise(data.images, OWN.mean, OWN.std))


def test_split_without_images_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"gratings.*val"):
        TrainingData.of(grating_task(val=0), "val", OWN)


def test_architecture_of_a_card_survives_json(project: tuple[Path, Task, list[ModelCard]]) -> None:
    card = ModelCard.from_json(project[2][3].to_json())
    assert Architecture.read(card.architecture) == Architecture.read(project[2][3].architecture)
    assert SPACE.member(card.architecture) == sample_members(SPACE, 6, derive_seed(0, "subnets", "a"))[3]


def test_accuracy_is_the_share_of_right_answers_in_all_batches() -> None:
    network: Supernet = SPACE.supernet(3).eval()
    images = torch.randn(40, 3, 16, 16)
    labels = network(images).argmax(dim=1)
    labels[:12] = (labels[:12] + 1) % 3
    assert accuracy_on_normalised(network, images, labels) == 0.7


def test_base_holds_what_is_a_member_of_its_space_alone(project: tuple[Path, Task, list[ModelCard]]) -> None:
    base, one = Base.open(project[0] / "base"), project[2][0]
    assert base.holds(one)
    wider = one.model_copy(update={"architecture": {**one.architecture, "widths": [16, 32]}})
    assert not base.holds(wider)
    assert not base.holds(one.model_copy(update={"family": "of a library"}))


def test_dropout_of_a_supernet_follows_the_seed_alone() -> None:
    task, states = grating_task(), []
    space = second_family.FAMILY.space({"image_size_px": 16, "widths": [4, 8]})
    data = TrainingData.of(task, "train", second_family.FAMILY.preprocess(space, task.info.mean, task.info.std))
    for outside in (1, 2):
        torch.manual_seed(0)
        network = space.supernet(3)
        torch.manual_seed(outside)
        before = torch.random.get_rng_state()
        train_supernet(network, [network.classifier], [data], replace(RECIPE, steps=5), seed=0)
        assert torch.equal(torch.random.get_rng_state(), before)
        states.append(network.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
