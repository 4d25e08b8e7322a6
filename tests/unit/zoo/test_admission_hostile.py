"""Newcomers that are refused: hostile files, and cards that do not say what is so."""

from __future__ import annotations

import json
import os
import pickle
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tans_core.errors import WeightsError
from tans_core.networks.elastic import FAMILY
from tans_core.zoo.admission import read_newcomer
from tests.factories.newcomers import (
    ARCHITECTURE,
    CLASSES,
    LICENCES,
    PREPROCESS,
    TASK,
    card_fields,
    drop,
    stages,
    tensors,
)


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
        (as_pickle, "weights.safetensors: not safetensors: begins like a Python pickle"),
        (as_torch_file, "weights.safetensors: not safetensors: begins like a zip, as `torch.save` writes it"),
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
        read_newcomer(folder, staging)
    assert words in str(caught.value)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_accuracy": "0.8"}, "val_accuracy"),
        ({"val_accuracy": float("nan")}, "not a model card as JSON"),
        ({"val_accuracy": True}, "val_accuracy"),
        ({"val_accuracy": 10**400}, "val_accuracy"),
        ({"family": "elastic-residul"}, "family 'elastic-residul': no such family (did you mean 'elastic-residual'?)"),
        ({"family": "../../etc/passwd"}, "no such family"),
        ({"home_task": "../../etc/passwd"}, "home_task"),
        ({"home_task": "a\nb"}, "home_task"),
        ({"licences": {**LICENCES, "data": ""}}, "licence '': not an SPDX expression"),
        ({"licences": {**LICENCES, "code": "free"}}, "licence 'free': not an SPDX expression"),
        ({"lineage": [{**TASK, "licence": "MIT AND"}]}, "licence 'MIT AND': not an SPDX expression"),
        ({"lineage": []}, "lineage: lacks the home task"),
        ({"lineage": [{**TASK, "name": "another"}]}, "lineage: lacks the home task"),
        ({"lineage": [{**TASK, "kind": "gossip"}]}, "lineage.0.kind"),
        ({"source": "x" * 300}, "source"),
        ({"class_names": ["one"]}, "class_names"),
        ({"class_names": ["ash", "ash", "oak"]}, "class_names"),
        ({"preprocess": {**PREPROCESS, "image_size_px": 4096}}, "preprocess.image_size_px"),
        ({"preprocess": {**PREPROCESS, "mean": [0.5]}}, "preprocess.mean"),
        ({"preprocess": {**PREPROCESS, "crop": 0}}, "preprocess.crop"),
        ({"preprocess": {**PREPROCESS, "interpolation": "best"}}, "preprocess.interpolation"),
        ({"recipe": {"lr": 1e30}}, "recipe.lr: got 1e+30, want at most 1"),
        ({"recipe": {"lr": 0.1, "head_factor": 1e9}}, "recipe.head_factor"),
        ({"recipe": {"lr": 0.0}}, "recipe.lr"),
        ({"recipe": {"lr": "0.1"}}, "recipe.lr"),
        ({"recipe": {"optimizer": "sgd"}}, "recipe.lr"),
        ({"params_m": 0.5}, "params_m: the card says 0.5, the architecture has"),
        ({"architecture": {"stages": []}}, "want as many stages as widths and strides"),
        ({"architecture": stages(kernel=9)}, "got kernel 9"),
        ({"architecture": stages(kernel=3.0)}, "stages.0.0.kernel: got 3.0"),
        ({"architecture": stages(kernel=True)}, "stages.0.0.kernel: got True"),
        ({"architecture": stages(ratio="0.5")}, "stages.0.0.ratio: got '0.5'"),
        ({"architecture": stages(run="me")}, "stages.0.0.run: unknown key"),
        ({"architecture": {**ARCHITECTURE, "widths": [8, 16.0]}}, "widths.1: got 16.0"),
        ({"architecture": {**ARCHITECTURE, "strides": [True, 2]}}, "strides.0: got True"),
        ({"architecture": {"stages": [[{"kernel": 3, "ratio": 1.0}] * 50] * 3}}, "stages.0: "),
        ({"architecture": {**ARCHITECTURE, "run": "me"}}, "run: unknown key"),
        ({"architecture": []}, "architecture"),
    ],
)
def test_bad_card_is_refused_by_what_is_wrong_with_it(
    inbox: Path, staging: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        read_newcomer(drop(inbox, **changes), staging)
    assert words in str(caught.value)


def test_infinite_kernel_is_refused(inbox: Path, staging: Path) -> None:
    folder = drop(inbox)
    (folder / "card.json").write_text(json.dumps(card_fields()).replace('"kernel": 3', '"kernel": 1e999'))
    with pytest.raises(WeightsError, match=r"card\.json: .*Out of range float"):
        read_newcomer(folder, staging)


@pytest.mark.parametrize(
    ("place", "twice", "words"),
    [
        ('{"version": 1', '{"params_m": 1e-9, "version": 1', "given twice: 'params_m'"),
        ('"weights": "CC0-1.0 AND MIT"', '"weights": "MIT", "weights": "CC0-1.0 AND MIT"', "given twice: 'weights'"),
        ('"kernel": 5', '"kernel": 5, "k\\u0065rnel": 5', "given twice: 'kernel'"),
    ],
)
def test_key_given_twice_is_refused_by_name(inbox: Path, staging: Path, place: str, twice: str, words: str) -> None:
    folder = drop(inbox)
    text = json.dumps(card_fields())
    assert text.count(place) == 1
    (folder / "card.json").write_text(text.replace(place, twice))
    with pytest.raises(WeightsError) as caught:
        read_newcomer(folder, staging)
    assert words in str(caught.value)


def test_card_of_very_many_keys_is_refused_in_no_time(inbox: Path, staging: Path) -> None:
    folder = drop(inbox)
    (folder / "card.json").write_text("{" + ",".join(f'"{number}":0' for number in range(25_000)) + "}")
    begun = time.process_time()
    with pytest.raises(WeightsError, match=r"missing \["):
        read_newcomer(folder, staging)
    assert time.process_time() - begun < 2


def test_card_of_a_huge_network_costs_no_memory(inbox: Path, staging: Path) -> None:
    """At 4 bytes a weight this one would take 10 TB."""
    block = {"kernel": 7, "ratio": 8.0}
    huge = {"stem_width": 4096, "widths": [4096] * 6, "strides": [1] * 6, "stages": [[block] * 8] * 6}
    cost = FAMILY.cost(huge, 512, len(CLASSES))
    assert cost.params_m > 300_000
    preprocess = {**PREPROCESS, "image_size_px": 512}
    folder = drop(inbox, architecture=huge, preprocess=preprocess, params_m=cost.params_m, macs_m=cost.macs_m)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match="largest layer gives"):
        read_newcomer(folder, staging)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 100_000


def test_network_that_would_take_all_memory_to_ask_is_refused(inbox: Path, staging: Path) -> None:
    wide = {"stem_width": 64, "widths": [8], "strides": [2], "stages": [[{"kernel": 3, "ratio": 1.0}]]}
    cost = FAMILY.cost(wide, 512, len(CLASSES))
    preprocess = {**PREPROCESS, "image_size_px": 512}
    folder = drop(inbox, architecture=wide, preprocess=preprocess, params_m=cost.params_m, macs_m=cost.macs_m)
    with pytest.raises(WeightsError, match=r"largest layer gives 16\.8 M values an image, want at most 4 M"):
        read_newcomer(folder, staging)


def test_several_problems_of_a_card_come_together(inbox: Path, staging: Path) -> None:
    with pytest.raises(WeightsError, match=r"home_task.*class_names.*lineage.*licence 'x y'"):
        changes = {"licences": {**LICENCES, "data": "x y"}, "class_names": ["one"], "lineage": [], "home_task": "/"}
        read_newcomer(drop(inbox, **changes), staging)
