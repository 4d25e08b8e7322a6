from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tans_core.finetuning.cost import measure_cost
from tans_core.finetuning.finetune import finetune
from tans_core.finetuning.run import write_run
from tans_core.networks.preprocess import normalise
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model

SETTINGS: dict[str, Any] = {"steps": 6, "batch_size": 16, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0, "seed": 3}


@pytest.fixture
def written(tmp_path: Path, make_task: Any, make_network: Any) -> Any:
    """Return the run's folder, its network as trained, the task, and the home model's card."""
    task, network = make_task(), make_network()
    home = ModelCard(
        id="home.1", space=network.space.name, architecture=network.architecture.to_dict(), home_task="elsewhere",
        source="other", licence="MIT", class_names=("a", "b"), image_size_px=16, mean=(0.5,) * 3, std=(0.2,) * 3,
        params_m=1.0, macs_m=1.0, val_accuracy=0.5, test_accuracy=0.5, weights="zoo/elsewhere/supernet.safetensors",
    )  # fmt: skip
    folder = tmp_path / "runs" / "2026-run"
    folder.mkdir(parents=True)
    (folder / "scan.json").write_text("{}")
    result = finetune(network, task, **SETTINGS, eval_points=3)
    write_run(folder, result=result, task=task, card=home, settings=SETTINGS, release="r1")
    return folder, network, task, result


def test_weights_and_card_alone_give_the_network_back(written: Any) -> None:
    folder, network, task, result = written
    card = ModelCard.from_dict(json.loads((folder / "card.json").read_text()))
    loaded = load_model(card, folder / card.weights, network.space)
    images = normalise(torch.from_numpy(task.split("test")[0]), card.mean, card.std)
    with torch.no_grad():
        assert torch.equal(loaded(images), network.eval()(images))
    assert card.class_names == task.info.class_names
    assert (card.home_task, card.licence, card.val_accuracy) == ("shades", "MIT AND CC0-1.0", result.best_val_accuracy)


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


def test_cost_is_that_of_the_search_space_and_leaves_the_network_alone(make_network: Any) -> None:
    network = make_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    params_m, macs_m = measure_cost(network, 16)
    expected = network.space.cost(network.architecture, 16, 3)
    assert (params_m, macs_m) == pytest.approx((expected.params_m, expected.macs_m))
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
