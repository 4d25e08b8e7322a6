"""Newcomers that must not be admitted: files of other kinds, and cards with false statements."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.factories.newcomers import ARCHITECTURE, LICENCES, PREPROCESS, TASK, card_fields, stages, tensors


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


SPOILED: list[tuple[Callable[[Path], None], str]] = [
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
    (unknown_tensor, "has an unknown tensor 'extra'"),
    (missing_tensor, "lacks the tensor stem.weight"),
    (deep_card, "card.json: not a model card as JSON"),
    (long_card, "want 1 to 262,144"),
    (card_of_bytes, "card.json: not a model card as JSON"),
]
"""What is done to a good newcomer's folder, and words of the reason to refuse it."""

BAD_CARDS: list[tuple[dict[str, Any], str]] = [
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
    *(
        ({"licences": {**LICENCES, part: f"MIT AND LicenseRef-{part}"}}, f"lacks the terms of LicenseRef-{part}")
        for part in ("code", "weights", "data")
    ),
    ({"lineage": [{**TASK, "licence": "LicenseRef-x OR MIT"}]}, "licences.texts: lacks the terms of LicenseRef-x"),
    ({"licences": {**LICENCES, "code": "LicenseRef-x", "texts": {"LicenseRef-x": " "}}}, "the terms of LicenseRef-x"),
    ({"licences": {**LICENCES, "code": "LicenseRef-x", "texts": {"LicenseRef-y": "!"}}}, "the terms of LicenseRef-x"),
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
    ({"params_m": 0.5}, "params_m: got 0.5, want "),
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
]
"""Changes to a good card, likewise."""
