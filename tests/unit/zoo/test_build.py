import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tans_core.errors import DataError, WeightsError
from tans_core.networks.elastic import Architecture, ElasticSpace
from tans_core.networks.preprocess import normalise
from tans_core.tasks.task import Task
from tans_core.zoo import supernet
from tans_core.zoo.build import accuracy, build_base, build_zoo, calibrate, read_cards, sample_architectures, write_zoo
from tans_core.zoo.card import ModelCard
from tans_core.zoo.supernet import SupernetRecipe, TrainingData, train_supernet
from tans_core.zoo.weights import load_model, save_base
from tests.factories.tasks import grating_task

SPACE = ElasticSpace(8, (8, 16), (2, 2), 2, (3, 5), (0.5, 1.0))
RECIPE = SupernetRecipe(steps=40, batch_size=32, lr=0.1, momentum=0.9, weight_decay=1e-4, precision="fp32")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task, list[ModelCard]]:
    """A base of two tasks, and the zoo of one of them, on disk."""
    data = tmp_path_factory.mktemp("data")
    tasks = [grating_task("a", seed=0), grating_task("b", classes=4, seed=1)]
    base, losses = build_base(SPACE, tasks, RECIPE, seed=0, resume_folder=None)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    save_base(base, data / "base", {"precision": "fp32"})
    network, cards, calibrations = build_zoo(tasks[0], data / "base", RECIPE, 6, 60, seed=0)
    write_zoo(network, cards, calibrations, data / "zoo/a")
    return data, tasks[0], cards


def test_models_of_the_zoo_have_learnt_their_task(project: tuple[Path, Task, list[ModelCard]]) -> None:
    assert np.mean([card.val_accuracy for card in project[2]]) > 0.6
    assert project[2][1].params_m == max(card.params_m for card in project[2])


def test_loaded_model_repeats_its_measured_accuracies(project: tuple[Path, Task, list[ModelCard]]) -> None:
    data, task, _ = project
    for card in read_cards(data / "zoo/a"):
        network = load_model(card, data / card.weights, SPACE)
        for split, measured in (("val", card.val_accuracy), ("test", card.test_accuracy)):
            images, labels = task.split(split)
            pixels = normalise(torch.from_numpy(images), card.mean, card.std)
            assert accuracy(network, pixels, torch.from_numpy(labels)) == measured


def test_cards_read_back_as_they_were_written(project: tuple[Path, Task, list[ModelCard]]) -> None:
    data, task, cards = project
    read = read_cards(data / "zoo/a")
    assert [json.loads(card.to_json()) for card in read] == [json.loads(card.to_json()) for card in cards]
    assert {card.licence for card in read} == {task.info.licence}
    assert len({card.id for card in read}) == 6


@pytest.mark.parametrize("damage", ["truncate", "other", "calibration", "architecture"])
def test_damaged_weights_are_a_weights_error(
    project: tuple[Path, Task, list[ModelCard]], tmp_path: Path, damage: str
) -> None:
    data, _, cards = project
    card, files = cards[2], {path.name: path.read_bytes() for path in (data / "zoo/a").glob("*.safetensors")}
    if damage == "truncate":
        files["supernet.safetensors"] = files["supernet.safetensors"][:1000]
    elif damage == "other":
        files["supernet.safetensors"] = files["calibration.safetensors"]
    elif damage == "calibration":
        card = replace(card, id="elastic.a.999")
    else:
        card = replace(card, architecture={"stages": [[{"kernel": 7, "ratio": 1.0}]]})
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError):
        load_model(card, tmp_path / "supernet.safetensors", SPACE)


class _KilledError(BaseException):
    pass


def test_training_killed_at_a_step_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernet, "CHECKPOINT_EVERY", 4)
    data = [TrainingData.of(grating_task(), "train")]

    def run(resume: Path | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = SPACE.build(SPACE.largest(), 3)
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


def test_sampled_architectures_are_distinct_and_hold_both_extremes() -> None:
    chosen = sample_architectures(SPACE, 20, seed=1)
    assert len(set(chosen)) == 20
    assert {SPACE.smallest(), SPACE.largest()} <= set(chosen)
    assert chosen == sample_architectures(SPACE, 20, seed=1) != sample_architectures(SPACE, 20, seed=2)
    tiny = ElasticSpace(8, (8,), (2,), 1, (3, 5), (1.0,))
    assert len(sample_architectures(tiny, 24, seed=0)) == 2


def test_calibration_sets_the_statistics_of_all_images_at_once() -> None:
    network = SPACE.build(SPACE.smallest(), 2)
    images = torch.randn(40, 3, 16, 16) * 3 + 1
    calibrate(network, images)
    answers = nn.functional.conv2d(images, network.stem.weight, padding=1)
    torch.testing.assert_close(network.stem.norm.running_mean, answers.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(network.stem.norm.running_var, answers.var(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert not network.training
    assert network.stem.norm.momentum == 0.1


def test_split_without_images_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"gratings.*val"):
        TrainingData.of(grating_task(val=0), "val")


def test_card_with_missing_and_unknown_fields_names_them_all() -> None:
    with pytest.raises(WeightsError, match=r"missing \['architecture'.*unknown \['colour'\]"):
        ModelCard.from_dict({"id": "x", "colour": "red"})


def test_architecture_of_a_card_survives_json(project: tuple[Path, Task, list[ModelCard]]) -> None:
    card = ModelCard.from_json(project[2][3].to_json())
    assert Architecture.from_dict(card.architecture) == Architecture.from_dict(project[2][3].architecture)
