"""Newcomers of other versions of the card, and of families from packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tans_core.errors import WeightsError
from tans_core.licences import TEXTS, USERS_OWN
from tans_core.networks.elastic import FAMILY
from tans_core.networks.registry import get_family
from tans_core.zoo.admission import admit, card_problems, read_newcomer
from tans_core.zoo.build import read_all_cards
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model
from tests.factories.families import TINY, installed_family
from tests.factories.newcomers import (
    CLASSES,
    LICENCES,
    PREPROCESS,
    TASK,
    card_fields,
    drop,
    tensors,
)


def version_0(**changes: Any) -> dict[str, Any]:
    """Return a card as it was before cards had a version."""
    stages = [[{"kernel": 3, "ratio": 0.5}], [{"kernel": 5, "ratio": 1.0}], [{"kernel": 3, "ratio": 0.25}]]
    cost = FAMILY.cost({"stages": stages}, 16, len(CLASSES))
    same = card_fields()
    fields = {
        **{name: same[name] for name in ("id", "home_task", "source", "class_names", "weights")},
        **{name: same[name] for name in ("val_accuracy", "test_accuracy")},
        **{name: PREPROCESS[name] for name in ("image_size_px", "mean", "std")},
        "space": "elastic-residual",
        "architecture": {"stages": stages},
        "licence": "the user's own",
        "params_m": cost.params_m,
        "macs_m": cost.macs_m,
    }
    return {**fields, **changes}


def drop_version_0(inbox: Path, **changes: Any) -> Path:
    folder, raw = inbox / "old", version_0(**changes)
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(raw))
    save_file(tensors(architecture=version_0()["architecture"]), folder / "weights.safetensors")
    return folder


def test_newcomer_of_version_0_is_admitted(inbox: Path, staging: Path, tmp_path: Path) -> None:
    folder = admit(read_newcomer(drop_version_0(inbox), staging), tmp_path / "arrivals")
    written = ModelCard.from_json((folder / "card.json").read_text())
    assert written.version == 1
    assert written.licence == "Apache-2.0 AND LicenseRef-unknown-lineage AND LicenseRef-users-own"
    assert written.licences.texts == {name: TEXTS[name] for name in (USERS_OWN, "LicenseRef-unknown-lineage")}
    network = load_model(written, folder / "weights.safetensors")
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size_px": "16"}, "preprocess.image_size_px"),
        ({"colour": "red"}, "unknown ['colour']"),
        ({"licence": None}, "licences.weights"),
        ({"space": "mobilenet"}, "family 'mobilenet': no such family"),
    ],
)
def test_card_of_version_0_is_read_as_strictly(inbox: Path, staging: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        read_newcomer(drop_version_0(inbox, **changes), staging)
    assert words in str(caught.value)


def test_terms_of_custom_licences_are_on_every_admitted_card(inbox: Path, staging: Path) -> None:
    own = {**LICENCES, "code": "LicenseRef-ours", "texts": {"licenseref-OURS": "Ask us."}}
    lineage = [{**TASK, "licence": f"LicenseRef-ours AND {USERS_OWN}"}]
    kept = read_newcomer(drop(inbox, licences=own, lineage=lineage), staging).card
    assert kept.terms == {"LicenseRef-ours": "Ask us.", USERS_OWN: TEXTS[USERS_OWN]}
    assert kept.terms.items() <= kept.licences.texts.items()


def test_card_without_terms_is_no_newcomer_but_can_be_read() -> None:
    raw = card_fields(licences={**LICENCES, "data": "LicenseRef-x"})
    assert card_problems(ModelCard.from_dict(raw, strict=True)) == ["licences.texts: lacks the terms of LicenseRef-x"]


def test_fields_of_a_newer_version_reach_the_arrivals(inbox: Path, staging: Path, tmp_path: Path) -> None:
    newer = {"version": 2, "teacher": {"id": "t"}, "preprocess": {**PREPROCESS, "padding": 3}}
    folder = admit(read_newcomer(drop(inbox, **newer), staging), tmp_path / "data/arrivals")
    written = json.loads((folder / "card.json").read_text())
    assert (written["version"], written["teacher"], written["preprocess"]["padding"]) == (2, {"id": "t"}, 3)
    (read,) = read_all_cards(tmp_path / "data", [])
    assert read.to_dict() == written


@pytest.mark.parametrize("architecture", [{"width": "x"}, {"width": -1}, {"width": [8]}])
def test_family_from_outside_that_fails_on_a_card_stops_nobody_else(
    inbox: Path, staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: dict[str, Any]
) -> None:
    told = pytest.raises(WeightsError, match=r"card\.json: architecture: family 'tiny' fails \(")
    with installed_family(tmp_path / "packages", monkeypatch, TINY), told:
        read_newcomer(drop(inbox, family="tiny", architecture=architecture), staging)


def test_newcomer_of_a_family_from_outside_is_admitted(
    inbox: Path, staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed_family(tmp_path / "packages", monkeypatch, TINY):
        cost = get_family("tiny").cost({"width": 8}, 16, len(CLASSES))
        fields = {"family": "tiny", "architecture": {"width": 8}, "params_m": cost.params_m, "macs_m": cost.macs_m}
        folder = drop(inbox, **fields)
        network = get_family("tiny").build({"width": 8}, len(CLASSES)).eval()
        save_file(network.state_dict(), folder / "weights.safetensors")
        newcomer = read_newcomer(folder, staging)
        loaded = load_model(newcomer.card, newcomer.folder / "weights.safetensors")
        images = torch.randn(2, 3, 16, 16)
        assert torch.equal(loaded(images), network(images))
