"""`tans space show` and `tans space drift` on the small project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tans_core.embeddings.store import read_table
from tans_core.index.releases import add_models, open_production
from tans_core.io import write_json
from tans_core.retrieval.placement import place_models
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model, save_tensors
from tests.factories.project import TASKS, UNSEEN
from tests.unit.cli.conftest import Tans


@pytest.fixture
def root(project: Path, tmp_path: Path) -> Path:
    """A copy of the small project."""
    shutil.copytree(project, tmp_path / "project")
    return tmp_path / "project"


def admit(root: Path, name: str, home_task: str, noise: float) -> None:
    """Serve a copy of a zoo's network as a newcomer, with noise on its weights in their deviations."""
    release = open_production(root / "serving")
    twin = ModelCard.from_json(read_table(release.store_dir, "index")["card"].to_pylist()[0])
    state = load_model(twin, release.resolve(twin.weights)).state_dict()
    generator = torch.Generator().manual_seed(1)
    for key, value in state.items():
        if value.is_floating_point() and value.ndim > 1:
            state[key] = value + noise * value.std() * torch.randn(value.shape, generator=generator)
    folder = root / "data/arrivals" / name
    folder.mkdir(parents=True)
    save_tensors(state, folder / "weights.safetensors")
    card = twin.model_copy(
        update={"id": name, "home_task": home_task, "weights": f"arrivals/{name}/weights.safetensors"}
    )
    write_json(card.to_dict(), folder / "card.json")
    rows = place_models(release, [folder])
    add_models(root / "serving", rows, {card.weights: folder / "weights.safetensors"})


def test_map_of_what_is_built_holds_every_task_and_network(tans: Tans, root: Path, tmp_path: Path) -> None:
    done = tans("space", "show", "--json", "--out", tmp_path / "map", "--root", root)
    assert (done.code, done.err) == (0, "")
    value = json.loads(done.out)
    kinds = [place["kind"] for place in value["places"]]
    assert kinds.count("model") == 4 * len(TASKS)
    assert {place["name"]: place["source"] for place in value["places"] if place["kind"] == "task"} == TASKS
    assert value["files"] == [str(tmp_path / "map/map.png"), str(tmp_path / "map/map.html")]
    with Image.open(tmp_path / "map/map.png") as picture:
        assert picture.size == (2000, 1472)
    assert all(name in (tmp_path / "map/map.html").read_text(encoding="utf-8") for name in TASKS)
    again = tans("space", "show", "--json", "--out", tmp_path / "again", "--root", root)
    assert json.loads(again.out)["places"] == value["places"]
    for name in ("map.png", "map.html"):
        assert (tmp_path / "map" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_queries_stand_on_the_map_and_their_nearest_tasks_are_said(tans: Tans, root: Path, photos: Path) -> None:
    done = tans("space", "show", "--method", "pca", "--query", photos, "--query", UNSEEN, "--root", root)
    assert done.code == 0, done.err
    assert "photos: the nearest tasks" in done.out
    assert f"{UNSEEN}: the nearest tasks" in done.out
    assert str(root / "plots/space/map.html") in done.out
    page = (root / "plots/space/map.html").read_text(encoding="utf-8")
    assert "<h2>photos</h2>" in page


def test_unknown_query_ends_with_4(tans: Tans, root: Path) -> None:
    done = tans("space", "show", "--query", "patchs", "--root", root)
    assert done.code == 4
    assert "did you mean 'patches'?" in done.err


def test_newcomers_of_the_release_in_production_are_shown_as_such(tans: Tans, root: Path) -> None:
    admit(root, "arrival-one", "my leaves", noise=0)
    value = json.loads(tans("space", "show", "--production", "--json", "--root", root).out)
    assert [place["name"] for place in value["places"] if place["kind"] == "newcomer"] == ["arrival-one"]
    built = json.loads(tans("space", "show", "--json", "--root", root).out)
    assert "newcomer" not in {place["kind"] for place in built["places"]}


def test_features_of_another_build_than_the_space_are_refused(tans: Tans, root: Path) -> None:
    (root / "data/store/task_features.digest").write_text("of another build\n")
    done = tans("space", "show", "--production", "--root", root)
    assert done.code == 6
    assert "without --production" in done.err


def test_nothing_built_ends_with_6(tans: Tans, fresh: Path) -> None:
    for command in (("show",), ("show", "--production"), ("drift",)):
        done = tans("space", *command, "--root", fresh)
        assert done.code == 6, command
        assert "Run" in done.err
        assert "Traceback" not in done.err


def test_drift_without_newcomers_says_so(tans: Tans, root: Path) -> None:
    done = tans("space", "drift", "--root", root)
    assert (done.code, done.err) == (0, "")
    assert "No newcomers" in done.out
    value = json.loads(tans("space", "drift", "--json", "--root", root).out)
    assert value["newcomers"] == []
    assert not value["verdict"]["due"]


def test_drift_tells_copies_from_strangers(tans: Tans, root: Path) -> None:
    admit(root, "copy", "my leaves", noise=0)
    for number in range(2):
        admit(root, f"strange-{number}", f"other-{number}", noise=20 + 10 * number)
    done = tans("space", "drift", "--json", "--root", root)
    assert (done.code, done.err) == (0, "")
    value = json.loads(done.out)
    assert value["release"] == open_production(root / "serving").id
    far = {one["id"]: one["far"] for one in value["newcomers"]}
    assert far == {"copy": False, "strange-0": True, "strange-1": True}
    assert value["verdict"]["due"]
    assert [one["quantile"] for one in value["newcomers"]] == sorted(
        (o["quantile"] for o in value["newcomers"]), reverse=True
    )
    assert all(np.isfinite(one["distance"]) for one in value["newcomers"])
    shown = tans("space", "drift", "--root", root)
    assert shown.code == 0
    for words in ("strange-0", "other-1 (new)", "2 of 3 newcomers are far", "Retraining is due", "tans tasks add"):
        assert words in shown.out


def test_release_older_than_drift_names_the_next_command(tans: Tans, root: Path) -> None:
    for path in (root / "serving/releases").glob("*/space/drift.json"):
        path.unlink()
    done = tans("space", "drift", "--root", root)
    assert done.code == 6
    assert "tans build" in done.err
