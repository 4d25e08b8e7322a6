from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tans_core.errors import WeightsError
from tans_core.finetuning.finetune import finetune
from tans_core.finetuning.run import tuned_card, write_run
from tans_core.licences import lacking, satisfied
from tans_core.recipe import Recipe
from tans_core.zoo.admission import read_newcomer
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model
from tests.factories.embeddings import card
from tests.factories.networks import tiny_network

SETTINGS: dict[str, Any] = {"steps": 6, "batch_size": 16, "seed": 3}
RECIPE = Recipe(lr=0.01)


@pytest.fixture
def written(tmp_path: Path, make_task: Any, make_network: Any) -> Any:
    """Return the run's folder, its network as trained, the task, and the home model's card."""
    task, network = make_task(), make_network()
    home = card("home.1", "elsewhere", "other", architecture=network.architecture.model_dump(mode="json"), newer="kept")
    folder = tmp_path / "runs" / "2026-run"
    folder.mkdir(parents=True)
    (folder / "scan.json").write_text("{}")
    result = finetune(network, task, home.preprocess, RECIPE, **SETTINGS, eval_points=3)
    write_run(folder, result=result, task=task, card=home, settings=SETTINGS, release="r1")
    return folder, network, task, result


def test_weights_and_card_alone_give_the_network_back(written: Any) -> None:
    folder, network, task, result = written
    made = ModelCard.from_dict(json.loads((folder / "card.json").read_text()))
    loaded = load_model(made, folder / made.weights)
    images = made.preprocess.chosen(task, task.where("test").tolist())
    with torch.no_grad():
        assert torch.equal(loaded(images), network.eval()(images))
    assert made.class_names == task.info.class_names
    assert (made.preprocess.mean, made.preprocess.std) == (task.info.mean, task.info.std)
    assert (made.home_task, made.val_accuracy) == ("shades", result.best_val_accuracy)


@pytest.mark.parametrize(
    ("name", "letters"),
    [("photos (1)", 4), ("Fotos, Sommer & Meer", 4), ("n" * 80, 4), ("shades", 210), ("日本の花" * 20, 80)],
    ids=["bracket", "comma", "long", "long-classes", "not-latin"],
)
def test_what_a_run_leaves_is_admitted_whatever_the_folders_were_called(
    written: Any, name: str, letters: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, _, task, result = written
    classes = tuple(f"{index}".rjust(letters, "c") for index in range(task.info.num_classes))
    named = replace(task, info=replace(task.info, name=name, class_names=classes))
    home = card("home.1", "elsewhere", "other", architecture=tiny_network().architecture.model_dump(mode="json"))
    folder = tmp_path / "runs/run"
    write_run(folder, result=result, task=named, card=home, settings=SETTINGS)
    assert read_newcomer(folder, tmp_path / "staging").card.home_task == name
    assert not caplog.records


def test_a_run_that_no_zoo_will_admit_says_so_at_once(
    written: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, _, task, result = written
    classes = tuple(f"{index}".rjust(300, "c") for index in range(task.info.num_classes))
    named = replace(task, info=replace(task.info, class_names=classes))
    home = card("home.1", "elsewhere", "other", architecture=tiny_network().architecture.model_dump(mode="json"))
    write_run(tmp_path / "runs/run", result=result, task=named, card=home, settings=SETTINGS)
    assert "the zoo will refuse this model" in caplog.text and "class_names" in caplog.text
    with pytest.raises(WeightsError, match="class_names"):
        read_newcomer(tmp_path / "runs/run", tmp_path / "staging")


def test_tuned_network_descends_from_all_that_its_start_does_and_from_the_task(written: Any) -> None:
    made = ModelCard.from_dict(json.loads((written[0] / "card.json").read_text()))
    assert [(one.kind, one.name, one.licence) for one in made.lineage] == [
        ("task", "elsewhere", "MIT"),
        ("task", "shades", "CC0-1.0"),
    ]
    every = {"Apache-2.0", "CC0-1.0", "MIT"}
    assert satisfied(made.licence, every)
    assert not any(satisfied(made.licence, every - {one}) for one in every)


def test_terms_of_the_start_hold_for_what_was_tuned_from_it(written: Any) -> None:
    _, _, task, result = written
    licences = {"code": "Apache-2.0", "weights": "MIT", "data": "CC-BY-NC-4.0"}
    home = card("home.2", "elsewhere", licences=licences)
    made = tuned_card("tuned", result, task, home)
    assert lacking(made.licence, ["Apache-2.0", "MIT", "CC0-1.0"]) == ("CC-BY-NC-4.0",)


def test_field_of_a_newer_version_is_kept_through_a_run(written: Any) -> None:
    assert json.loads((written[0] / "card.json").read_text())["newer"] == "kept"


def test_weights_carry_their_class_names_in_order(written: Any) -> None:
    folder, _, task, _ = written
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        assert tuple(json.loads(file.metadata()["class_names"])) == task.info.class_names
        assert file.metadata()["home_model"] == "home.1"


def test_folder_says_what_was_asked_and_with_what(written: Any) -> None:
    folder, _, _, result = written
    assert json.loads((folder / "params.json").read_text()) == SETTINGS
    provenance = json.loads((folder / "provenance.json").read_text())
    assert (provenance["release"], provenance["model"], provenance["seed"]) == ("r1", "home.1", 3)
    assert provenance["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    with (folder / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_accuracy"]) for row in rows] == [point["val_accuracy"] for point in result.curve]
    with Image.open(folder / "curve.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_what_the_folder_held_before_stays_and_no_temporary_is_left(written: Any) -> None:
    folder = written[0]
    assert (folder / "scan.json").is_file()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
