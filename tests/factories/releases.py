"""A project whose data/ is as after `dvc repro`, made in milliseconds, and models from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from safetensors.numpy import save_file

from tans_core.embeddings.store import read_table, write_table
from tans_core.index.release import Release
from tans_core.index.schema import index_table
from tans_core.index.settings import SECTIONS
from tans_core.io import sha256_bytes
from tans_core.networks.preprocess import Preprocess
from tans_core.space.encoders import Places
from tans_core.zoo.card import Ancestor, Licences, ModelCard

DIM = 4


def make_card(name: str, weights: str = "zoo/leaves/supernet.safetensors") -> ModelCard:
    return ModelCard(
        id=name,
        family="elastic-residual",
        architecture={"stages": []},
        home_task="leaves",
        source="made",
        licences=Licences(code="Apache-2.0", weights="CC0-1.0", data="CC0-1.0"),
        lineage=(Ancestor(kind="task", name="leaves", source="made", licence="CC0-1.0"),),
        class_names=("ash", "oak"),
        preprocess=Preprocess(image_size_px=16, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), statistics="task"),
        params_m=0.1,
        macs_m=1.0,
        val_accuracy=0.8,
        test_accuracy=0.7,
        weights=weights,
    )


def rows_of(cards: list[ModelCard], space: str = "space-1") -> pa.Table:
    vectors = np.eye(DIM, dtype=np.float32)[np.arange(len(cards)) % DIM]
    numbers = np.zeros(len(cards), dtype=np.float32)
    return index_table(cards, Places(vectors, numbers, numbers), sha256_bytes(space.encode()))


def build(root: Path, models: int = 3, space: str = "space-1", extra: tuple[ModelCard, ...] = ()) -> Path:
    """Make or replace the output of `dvc repro`: `models` models m0, m1, … and some more."""
    zoo = root / "data/zoo/leaves"
    for folder in (zoo, root / "data/space", root / "data/base"):
        folder.mkdir(parents=True, exist_ok=True)
    save_file({"stem": np.arange(6, dtype=np.float32)}, zoo / "supernet.safetensors")
    save_file({"m0/mean": np.zeros(2, np.float32)}, zoo / "calibration.safetensors")
    save_file({"base": np.ones(3, np.float32)}, root / "data/base/base.safetensors")
    (root / "data/space/space.safetensors").write_text(space)
    (root / "data/space/space.json").write_text("{}")
    (root / "params.yaml").write_text(yaml.safe_dump({name: {"from": name} for name in SECTIONS}))
    cards = [make_card(f"m{index}") for index in range(models)]
    write_table(root / "data/store", "index", rows_of([*cards, *extra], space))
    return root


def arrival(folder: Path, name: str = "newcomer") -> tuple[ModelCard, dict[str, Path]]:
    """Return the card and the files of a model from outside."""
    path = f"arrivals/{name}/weights.safetensors"
    source = folder / path
    source.parent.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.full(3, len(name), np.float32)}, source)
    return make_card(name, path), {path: source}


def ids(release: Release) -> list[str]:
    return list(read_table(release.store_dir, "index")["id"].to_pylist())
