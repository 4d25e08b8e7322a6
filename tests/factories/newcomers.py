"""Newcomers for an inbox: small elastic networks with their cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tans_core.networks.elastic import FAMILY

ARCHITECTURE: dict[str, Any] = {
    "stem_width": 8,
    "widths": [8, 16],
    "strides": [1, 2],
    "stages": [[{"kernel": 5, "ratio": 1.0}, {"kernel": 3, "ratio": 0.5}], [{"kernel": 3, "ratio": 1.0}]],
}
PREPROCESS = {"image_size_px": 16, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "statistics": "task"}
LICENCES = {"code": "Apache-2.0", "weights": "CC0-1.0 AND MIT", "data": "CC0-1.0 AND MIT"}
TASK = {"kind": "task", "name": "my leaves", "source": "folder", "licence": "CC0-1.0 AND MIT"}
CLASSES = ["ash", "elm", "oak"]


def card_fields(**changes: Any) -> dict[str, Any]:
    cost = FAMILY.cost(ARCHITECTURE, 16, len(CLASSES))
    fields = {
        "version": 1,
        "id": "2026-11-25T10-02-finetune-a1b2",
        "family": "elastic-residual",
        "architecture": ARCHITECTURE,
        "home_task": "my leaves",
        "source": "folder",
        "licences": LICENCES,
        "lineage": [TASK],
        "class_names": CLASSES,
        "preprocess": PREPROCESS,
        "params_m": cost.params_m,
        "macs_m": cost.macs_m,
        "val_accuracy": 0.8,
        "test_accuracy": 0.7,
        "weights": "weights.safetensors",
    }
    return {**fields, **changes}


def stages(**changes: Any) -> dict[str, Any]:
    """Return an architecture whose very first block is changed."""
    (first, *others), *later = ARCHITECTURE["stages"]
    return {**ARCHITECTURE, "stages": [[{**first, **changes}, *others], *later]}


def tensors(seed: int = 0, architecture: dict[str, Any] = ARCHITECTURE) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    network = FAMILY.build(architecture, len(CLASSES))
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def drop(inbox: Path, name: str = "newcomer", **changes: Any) -> Path:
    """Put a newcomer into the inbox; `changes` are to its card."""
    folder = inbox / name
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(card_fields(**changes)))
    save_file(tensors(), folder / "weights.safetensors")
    return folder
