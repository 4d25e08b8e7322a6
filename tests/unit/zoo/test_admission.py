"""Newcomers: what is taken, and what hostile ones are refused for."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tans_core.errors import WeightsError
from tans_core.networks.elastic import ElasticSpace
from tans_core.zoo.admission import admit, discard, quarantine, read_newcomer, waiting
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model

SPACE = ElasticSpace(stem_width=8, widths=(8, 16), strides=(1, 2), max_depth=2, kernels=(3, 5), ratios=(0.5, 1.0))
CLASSES = ["ash", "elm", "oak"]


def card_fields(**changes: Any) -> dict[str, Any]:
    architecture = SPACE.sample(np.random.default_rng(0))
    cost = SPACE.cost(architecture, 16, len(CLASSES))
    card = ModelCard(
        id="2026-11-25T10-02-finetune-a1b2",
        space=SPACE.name,
        architecture=architecture.to_dict(),
        home_task="my leaves",
        source="folder",
        licence="CC0-1.0 AND MIT",
        class_names=tuple(CLASSES),
        image_size_px=16,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        params_m=cost.params_m,
        macs_m=cost.macs_m,
        val_accuracy=0.8,
        test_accuracy=0.7,
        weights="weights.safetensors",
    )
    return {**card.to_dict(), **changes}


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    network = SPACE.build(SPACE.sample(np.random.default_rng(0)), len(CLASSES))
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def drop(inbox: Path, name: str = "newcomer", **changes: Any) -> Path:
    """Put a newcomer into the inbox; `changes` are to its card."""
    folder = inbox / name
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(card_fields(**changes)))
    save_file(tensors(), folder / "weights.safetensors")
    return folder


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    return tmp_path / "staging"


def test_good_newcomer_is_copied_under_an_id_of_its_content(inbox: Path, staging: Path) -> None:
    newcomer = read_newcomer(drop(inbox), staging, SPACE)
    assert newcomer.folder == staging / newcomer.id
    assert newcomer.card.weights == f"arrivals/{newcomer.id}/weights.safetensors"
    written = ModelCard.from_dict(json.loads((newcomer.folder / "card.json").read_text()))
    assert written.id == newcomer.id
    network = load_model(written, newcomer.folder / "weights.safetensors", SPACE)
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


def test_id_depends_on_content_alone(inbox: Path, staging: Path) -> None:
    first = read_newcomer(drop(inbox, "a"), staging, SPACE)
    again = read_newcomer(drop(inbox, "b", id="another name", weights="elsewhere"), staging, SPACE)
    other_card = read_newcomer(drop(inbox, "c", val_accuracy=0.9), staging, SPACE)
    folder = drop(inbox, "d")
    save_file(tensors(seed=1), folder / "weights.safetensors")
    other_weights = read_newcomer(folder, staging, SPACE)
    assert first.id == again.id
    assert len({first.id, other_card.id, other_weights.id}) == 3


def test_files_beside_the_two_are_neither_copied_nor_opened(inbox: Path, staging: Path) -> None:
    folder = drop(inbox)
    (folder / "weights.pkl").write_bytes(b"junk")
    newcomer = read_newcomer(folder, staging, SPACE)
    assert sorted(path.name for path in newcomer.folder.iterdir()) == ["card.json", "weights.safetensors"]


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploded",)


def as_pickle(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Bomb()))


def as_torch_file(folder: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, folder / "weights.safetensors")


def only_pickle(folder: Path) -> None:
    (folder / "weights.safetensors").rename(folder / "weights.pt")


def without_card(folder: Path) -> None:
    (folder / "card.json").unlink()


def huge_header(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def long_header(folder: Path) -> None:
    header = json.dumps(
        {f"t{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(30_000)}
    )
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())


def overlapping_offsets(folder: Path) -> None:
    header = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in ("a", "b")})
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8))


def cut_short(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def empty_weights(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"")


def card_as_link(folder: Path) -> None:
    secret = folder.parent.parent / "secret.json"
    secret.write_text(json.dumps(card_fields()))
    (folder / "card.json").unlink()
    (folder / "card.json").symlink_to(secret)


def weights_as_pipe(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    os.mkfifo(folder / "weights.safetensors")


def weights_as_folder(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").mkdir()


def wrong_shape(folder: Path) -> None:
    save_file({**tensors(), "classifier.bias": torch.zeros(7)}, folder / "weights.safetensors")


def wrong_dtype(folder: Path) -> None:
    save_file({**tensors(), "classifier.bias": torch.zeros(3, dtype=torch.float64)}, folder / "weights.safetensors")


def unknown_tensor(folder: Path) -> None:
    save_file({**tensors(), "extra": torch.zeros(7)}, folder / "weights.safetensors")


def missing_tensor(folder: Path) -> None:
    kept = tensors()
    del kept["stem.weight"]
    save_file(kept, folder / "weights.safetensors")


def deep_card(folder: Path) -> None:
    (folder / "card.json").write_text("[" * 100_000)


def long_card(folder: Path) -> None:
    (folder / "card.json").write_text(json.dumps(card_fields()) + " " * 300_000)


def card_of_bytes(folder: Path) -> None:
    (folder / "card.json").write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (as_pickle, "weights.safetensors: not safetensors"),
        (as_torch_file, "weights.safetensors: not safetensors"),
        (only_pickle, "lacks weights.safetensors; it holds card.json, weights.pt"),
        (without_card, "lacks card.json"),
        (huge_header, "a header of 4,611,686,018,427,387,904 bytes"),
        (long_header, "bytes, want 1 to 1,048,576"),
        (overlapping_offsets, "not readable as safetensors"),
        (cut_short, "not readable as safetensors"),
        (empty_weights, "got 0 bytes"),
        (card_as_link, "card.json: not a regular file"),
        (weights_as_pipe, "weights.safetensors: not a regular file"),
        (weights_as_folder, "weights.safetensors: not a regular file"),
        (wrong_shape, "classifier.bias: got F32 [7], want F32 [3]"),
        (wrong_dtype, "classifier.bias: got F64 [3], want F32 [3]"),
        (unknown_tensor, "has an unknown 'extra'"),
        (missing_tensor, "lacks stem.weight"),
        (deep_card, "card.json: not a model card as JSON"),
        (long_card, "want 1 to 262,144"),
        (card_of_bytes, "card.json: not a model card as JSON"),
    ],
)
def test_hostile_files_are_refused(inbox: Path, staging: Path, spoil: Callable[[Path], None], words: str) -> None:
    folder = drop(inbox)
    spoil(folder)
    with pytest.raises(WeightsError) as caught:
        read_newcomer(folder, staging, SPACE)
    assert words in str(caught.value)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_accuracy": "0.8"}, "val_accuracy"),
        ({"val_accuracy": float("nan")}, "not a model card as JSON"),
        ({"space": "mobilenet"}, "space: got 'mobilenet', want 'elastic-residual'"),
        ({"home_task": "../../etc/passwd"}, "home_task"),
        ({"home_task": "a\nb"}, "home_task"),
        ({"licence": ""}, "licence"),
        ({"source": "x" * 300}, "source"),
        ({"class_names": ["one"]}, "class_names"),
        ({"class_names": ["ash", "ash", "oak"]}, "class_names"),
        ({"image_size_px": 4096}, "image_size_px: got 4096"),
        ({"mean": [0.5]}, "mean"),
        ({"params_m": 0.5}, "params_m: the card says 0.5, the architecture has"),
        ({"architecture": {"stages": []}}, "architecture: got 0 stages, want 2"),
        ({"architecture": {"stages": [[{"kernel": 9, "ratio": 1.0}]] * 2}}, "got kernel 9"),
        ({"architecture": {"stages": [[{"kernel": 3, "ratio": 1.0}] * 50] * 2}}, "got 50 blocks, want 1 to 2"),
        ({"architecture": []}, "architecture"),
        ({"run": "me"}, "unknown ['run']"),
    ],
)
def test_card_that_cannot_be_meant_is_refused(inbox: Path, staging: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        read_newcomer(drop(inbox, **changes), staging, SPACE)
    assert words in str(caught.value)


def test_infinite_kernel_is_refused(inbox: Path, staging: Path) -> None:
    folder = drop(inbox)
    text = json.dumps(card_fields()).replace('"kernel": 3', '"kernel": 1e999').replace('"kernel": 5', '"kernel": 1e999')
    (folder / "card.json").write_text(text)
    with pytest.raises(WeightsError):
        read_newcomer(folder, staging, SPACE)


def test_several_problems_of_a_card_come_together(inbox: Path, staging: Path) -> None:
    with pytest.raises(WeightsError, match=r"licence.*class_names.*image_size_px"):
        read_newcomer(drop(inbox, licence="", class_names=["one"], image_size_px=1), staging, SPACE)


def test_entry_that_is_no_folder_is_refused(inbox: Path, staging: Path) -> None:
    folder = drop(inbox)
    (inbox / "file.pt").write_bytes(b"x")
    (inbox / "link").symlink_to(folder)
    for name in ("file.pt", "link"):
        with pytest.raises(WeightsError, match="not a folder"):
            read_newcomer(inbox / name, staging, SPACE)


def test_admitted_twice_is_admitted_once(inbox: Path, staging: Path, tmp_path: Path) -> None:
    arrivals = tmp_path / "data/arrivals"
    first = admit(read_newcomer(drop(inbox, "a"), staging, SPACE), arrivals)
    before = load_file(first / "weights.safetensors")
    assert admit(read_newcomer(drop(inbox, "b"), staging, SPACE), arrivals) == first
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
