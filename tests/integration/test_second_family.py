"""A family that no module of the project names goes through the whole pipeline beside the first one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import tans_core as tans
from tans_core.embeddings.functional import Anchors
from tans_core.embeddings.store import ModelRows
from tans_core.errors import ParamsError
from tans_core.index.releases import open_production
from tans_core.networks.registry import get_family
from tans_core.retrieval.placement import place_models
from tans_core.retrieval.retriever import Retriever
from tans_core.stages import base, evaluate
from tans_core.tasks.task import read_task
from tans_core.zoo.admission import read_newcomer
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model
from tests.factories.processes import one_core
from tests.factories.project import PARAMS, TASKS, UNSEEN, build_project

pytestmark = pytest.mark.slow

SIDE_PX = 24
NETWORKS = {**PARAMS["networks"], "width": {"image_size_px": SIDE_PX, "widths": [4, 8]}}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose zoo has two families. The second is found as if a package provided it."""
    site = tmp_path_factory.mktemp("site")
    described = site / "width_family-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: width-family\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[tans.families]\nwidth = tests.factories.second_family:FAMILY\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        get_family.cache_clear()
        data = {**PARAMS["data"], "stored_size_px": SIDE_PX}
        evaluated = {**PARAMS["evaluate"], "steps": 2}
        yield build_project(tmp_path_factory.mktemp("mixed"), networks=NETWORKS, data=data, evaluate=evaluated)
    get_family.cache_clear()


def cards_of(root: Path, family: str) -> list[ModelCard]:
    return [card for card in tans.list_models(root) if card.family == family]


def test_zoo_holds_models_of_both_each_at_its_own_size(mixed: Path) -> None:
    counts = {family: len(cards_of(mixed, family)) for family in NETWORKS}
    assert counts == {"elastic-residual": 4 * len(TASKS), "width": 2 * len(TASKS)}
    assert {card.preprocess.image_size_px for card in cards_of(mixed, "width")} == {SIDE_PX}
    assert {card.preprocess.image_size_px for card in cards_of(mixed, "elastic-residual")} == {16}
    for card in cards_of(mixed, "width"):
        network = load_model(card, mixed / "data" / card.weights)
        assert card.params_m == pytest.approx(sum(value.numel() for value in network.parameters()) / 1e6)


def test_embeddings_of_both_have_one_width_and_leave_networks_as_they_were(mixed: Path) -> None:
    rows = ModelRows.read(mixed / "data/store")
    assert len({card.family for card in rows.cards}) == 2
    assert np.isfinite(rows.topology).all() and np.isfinite(rows.functional).all()
    card = cards_of(mixed, "width")[0]
    network = load_model(card, mixed / "data" / card.weights)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    anchors = Anchors.load(mixed / "data/space")
    # With active dropout, outputs would differ each time.
    np.testing.assert_array_equal(anchors.embed(network, card.preprocess), anchors.embed(network, card.preprocess))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())


def test_models_of_both_are_retrieved_and_probed(mixed: Path) -> None:
    found = tans.retrieve(UNSEEN, top_k=100, refine=100, root=mixed)
    assert len(found) == 6 * len(TASKS)
    assert all(one.probe is not None for one in found)
    families = {card.id: card.family for card in tans.list_models(mixed)}
    assert {families[one.model] for one in found} == set(NETWORKS)


def test_model_of_the_second_is_tuned_kept_and_taken_in_again(mixed: Path, tmp_path: Path) -> None:
    start = cards_of(mixed, "width")[1]
    run = tans.finetune(UNSEEN, start.id, epochs=2, root=mixed)
    made = ModelCard.from_dict(json.loads((run.folder / "card.json").read_text()))
    assert (made.family, made.architecture, made.preprocess.image_size_px) == ("width", start.architecture, SIDE_PX)
    task = read_task(mixed / "data/tasks" / UNSEEN)
    network = load_model(made, run.folder / made.weights)
    with torch.no_grad():
        named = network(made.preprocess.chosen(task, task.where("test").tolist())).argmax(dim=1).numpy()
    assert (named == task.labels[task.where("test")]).mean() == pytest.approx(run.test_accuracy)
    inbox = tmp_path / "inbox" / "tuned"
    inbox.mkdir(parents=True)
    for name in ("card.json", "weights.safetensors"):
        shutil.copy(run.folder / name, inbox)
    newcomer = read_newcomer(inbox, tmp_path / "staging")
    placed = place_models(open_production(mixed / "serving"), [newcomer.folder])
    assert placed["family"].to_pylist() == ["width"]


def test_base_and_fresh_weights_of_the_second_are_there_to_compare_with(mixed: Path) -> None:
    retriever = Retriever.open(open_production(mixed / "serving"))
    model = cards_of(mixed, "width")[0].id
    starts = [make(model, 3, 0) for make in (retriever.load_model, retriever.base_subnet, retriever.from_scratch)]
    weights = [network.state_dict()["first.weight"] for network in starts]
    assert weights[0].shape == weights[1].shape == weights[2].shape
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    # Equal heads, so that only the layers below are compared.
    assert torch.equal(starts[0].classifier.weight, starts[2].classifier.weight)


@one_core()
def test_evaluation_runs_over_both(mixed: Path) -> None:
    evaluate.main(mixed)
    accuracy = json.loads((mixed / "metrics/evaluate.json").read_text())["accuracy"]
    assert {"picked", "base", "scratch"} <= accuracy.keys()


def test_settings_of_every_family_are_checked_before_anything_runs(mixed: Path, tmp_path: Path) -> None:
    params = yaml.safe_load((mixed / "params.yaml").read_text())
    params["networks"] = {"width": {"widths": [4]}, "elastic-residual": {**NETWORKS["elastic-residual"], "kernel": 3}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsError) as caught:
        base.main(tmp_path)
    assert re.search(r"networks\.width: .*image_size_px", str(caught.value))
    assert re.search(
        r"networks\.elastic-residual: .*kernel: unknown key \(did you mean 'kernels'\?\)", str(caught.value)
    )
