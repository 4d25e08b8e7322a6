"""Small networks of timm and torchvision, and newcomers made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tans_core.networks.packaged import FAMILY
from tests.factories.newcomers import CLASSES, PREPROCESS, card_fields

SIDE_PX = 32
NAMES = (
    ("timm", "resnet10t"),
    ("timm", "mobilenetv3_small_050"),
    ("timm", "lcnet_050"),
    ("timm", "convnext_atto"),
    ("timm", "vit_tiny_patch16_224"),
    ("timm", "regnetx_002"),
    ("torchvision", "resnet18"),
    ("torchvision", "mobilenet_v3_small"),
    ("torchvision", "shufflenet_v2_x0_5"),
    ("torchvision", "mnasnet0_5"),
    ("torchvision", "efficientnet_b0"),
    ("torchvision", "mobilenet_v2"),
)


def described(package: str, name: str) -> dict[str, Any]:
    """Return a card's architecture; transformers are built for their input."""
    sized = {"image_size_px": SIDE_PX} if name.startswith("vit") else {}
    return {"package": package, "name": name, **sized}


def drop(inbox: Path, package: str, name: str) -> Path:
    """Put a network with random weights into an inbox."""
    architecture = described(package, name)
    torch.manual_seed(0)
    network = FAMILY.build(architecture, len(CLASSES))
    cost = FAMILY.cost(architecture, SIDE_PX, len(CLASSES))
    folder = inbox / f"{package}-{name}"
    folder.mkdir(parents=True)
    fields = card_fields(
        id=folder.name,
        family="library",
        architecture=architecture,
        preprocess={**PREPROCESS, "image_size_px": SIDE_PX, "statistics": "own"},
        recipe={"optimizer": "adamw", "lr": 0.001, "warmup": 0.1},
        params_m=cost.params_m,
        macs_m=cost.macs_m,
    )
    (folder / "card.json").write_text(json.dumps(fields))
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "weights.safetensors")
    return folder
