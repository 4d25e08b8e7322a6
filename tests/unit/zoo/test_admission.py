"""Newcomers: which are admitted, which wait, and which are quarantined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tans_core.errors import WeightsError
from tans_core.zoo.admission import admit, discard, quarantine, read_newcomer, waiting
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model
from tests.factories.newcomers import (
    drop,
    tensors,
)


def test_good_newcomer_is_copied_under_an_id_of_its_content(inbox: Path, staging: Path) -> None:
    newcomer = read_newcomer(drop(inbox), staging)
    assert newcomer.folder == staging / newcomer.id
    assert newcomer.card.weights == f"arrivals/{newcomer.id}/weights.safetensors"
    written = ModelCard.from_dict(json.loads((newcomer.folder / "card.json").read_text()))
    assert written.id == newcomer.id
    network = load_model(written, newcomer.folder / "weights.safetensors")
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


def test_id_depends_on_content_alone(inbox: Path, staging: Path) -> None:
    first = read_newcomer(drop(inbox, "a"), staging)
    again = read_newcomer(drop(inbox, "b", id="another name", weights="elsewhere"), staging)
    other_card = read_newcomer(drop(inbox, "c", val_accuracy=0.9), staging)
    folder = drop(inbox, "d")
    save_file(tensors(seed=1), folder / "weights.safetensors")
    other_weights = read_newcomer(folder, staging)
    assert first.id == again.id
    assert len({first.id, other_card.id, other_weights.id}) == 3


def test_files_beside_the_two_are_neither_copied_nor_opened(inbox: Path, staging: Path) -> None:
    folder = drop(inbox)
    (folder / "weights.pkl").write_bytes(b"junk")
    newcomer = read_newcomer(folder, staging)
    assert sorted(path.name for path in newcomer.folder.iterdir()) == ["card.json", "weights.safetensors"]


def test_entry_that_is_no_folder_is_refused(inbox: Path, staging: Path) -> None:
    folder = drop(inbox)
    (inbox / "file.pt").write_bytes(b"x")
    (inbox / "link").symlink_to(folder)
    for name in ("file.pt", "link"):
        with pytest.raises(WeightsError, match="not a folder"):
            read_newcomer(inbox / name, staging)


def test_admitted_twice_is_admitted_once(inbox: Path, staging: Path, tmp_path: Path) -> None:
    arrivals = tmp_path / "data/arrivals"
    first = admit(read_newcomer(drop(inbox, "a"), staging), arrivals)
    before = load_file(first / "weights.safetensors")
    assert admit(read_newcomer(drop(inbox, "b"), staging), arrivals) == first
    assert [path.name for path in arrivals.iterdir()] == [first.name]
    assert set(before) == set(load_file(first / "weights.safetensors"))
    assert not list(staging.iterdir())


def test_quarantine_keeps_the_entry_and_says_why(inbox: Path, tmp_path: Path) -> None:
    folder = quarantine(drop(inbox, "bad one"), tmp_path / "quarantine", "its weights are NaN", {"failures": ["a"]})
    assert folder == tmp_path / "quarantine/bad_one"
    reason = json.loads((folder / "reason.json").read_text())
    assert reason["reason"] == "its weights are NaN"
    assert reason["name"] == "bad one"
    assert (folder / "newcomer/card.json").is_file()
    assert not (inbox / "bad one").exists()


def test_quarantine_keeps_all_entries_of_one_name(inbox: Path, tmp_path: Path) -> None:
    folders = [quarantine(drop(inbox), tmp_path / "quarantine", "no") for _ in range(3)]
    assert [folder.name for folder in folders] == ["newcomer", "newcomer-2", "newcomer-3"]


def test_quarantine_moves_a_link_and_not_what_it_points_to(inbox: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    inbox.mkdir()
    (inbox / "link").symlink_to(precious)
    folder = quarantine(inbox / "link", tmp_path / "quarantine", "a link")
    assert precious.is_dir()
    assert (folder / "newcomer").is_symlink()
    assert not (precious / "reason.json").exists()


def test_entries_wait_until_they_are_whole(inbox: Path) -> None:
    assert waiting(inbox) == []
    drop(inbox, "b")
    drop(inbox, "a")
    drop(inbox, ".hidden")
    assert waiting(inbox, settle_s=60) == []
    assert [path.name for path in waiting(inbox, settle_s=0)] == ["a", "b"]
    discard(inbox / "a")
    assert [path.name for path in waiting(inbox, settle_s=0)] == ["b"]
