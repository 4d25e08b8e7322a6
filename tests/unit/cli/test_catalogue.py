import json
from pathlib import Path

import numpy as np
from PIL import Image

import tans_core
from tans_core.evaluation.front import draw_front
from tans_core.zoo.select import pareto_front
from tests.unit.cli.conftest import Tans


def test_models_are_listed_by_home_task_and_size(tans: Tans, project: Path) -> None:
    cards = tans_core.list_models(project)
    shown = tans("models", "list", "--root", project).out
    assert all(card.id in shown for card in cards)
    assert f"{len(cards)} of {len(cards)} networks" in shown
    of_bars = json.loads(tans("models", "list", "--task", "bars", "--json", "--root", project).out)
    assert [one["id"] for one in of_bars] == [card.id for card in cards if card.home_task == "bars"]
    limit = sorted(card.params_m for card in cards)[5]
    small = json.loads(tans("models", "list", "--max-params-m", limit, "--json", "--root", project).out)
    assert {one["id"] for one in small} == {card.id for card in cards if card.params_m <= limit}


def test_networks_are_drawn_with_the_front_of_each_home(tans: Tans, project: Path, tmp_path: Path) -> None:
    cards = [card for card in tans_core.list_models(project) if card.home_task == "bars"]
    out = tmp_path / "front.png"
    assert "networks" in tans("models", "list", "--task", "bars", "--plot", out, "--root", project).out
    with Image.open(out) as picture:
        assert picture.width > 500
    axes = draw_front(cards).axes[0]
    dots = np.concatenate([one.get_offsets() for one in axes.collections])
    assert sorted(map(tuple, dots.tolist())) == sorted((card.macs_m, card.val_accuracy) for card in cards)
    accuracies = [card.val_accuracy or 0.0 for card in cards]
    front = [cards[index] for index in pareto_front([card.macs_m for card in cards], accuracies)]
    assert axes.lines[0].get_xdata() == [card.macs_m for card in front]
    for card in cards:
        better = [one for one in front if one.macs_m <= card.macs_m and one.val_accuracy >= card.val_accuracy]  # type: ignore[operator]
        assert better


def test_unknown_home_task_is_answered_with_the_nearest(tans: Tans, project: Path) -> None:
    done = tans("models", "list", "--task", "bar", "--root", project)
    assert done.code == 4
    assert "did you mean 'bars'?" in done.err


def test_one_model_is_shown_whole(tans: Tans, project: Path) -> None:
    card = tans_core.list_models(project)[0]
    assert json.loads(tans("models", "show", card.id, "--json", "--root", project).out) == json.loads(card.to_json())
    shown = tans("models", "show", card.id, "--root", project).out
    assert card.home_task in shown
    assert card.weights in shown


def test_table_is_not_cut_in_a_pipe(tans: Tans, project: Path) -> None:
    assert "…" not in tans("models", "list", "--root", project).out
