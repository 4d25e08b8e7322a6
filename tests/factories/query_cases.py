"""For each threshold of `gates.query`, images that pass with one value and not with another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.factories.images import encoded, noise, write_class_folders


@dataclass(frozen=True)
class QueryCase:
    """One threshold.

    Attributes:
        make: writes the images into a new folder.
        lets_pass, objects: values of the threshold.
        words: in the gate's message with the second value, and not with the first.
        stops: whether the gate refuses the images, or only warns.
    """

    make: Callable[[Path], Path]
    lets_pass: float
    objects: float
    words: str
    stops: bool = False


def change_params(root: Path, **sections: dict[str, Any]) -> None:
    """Change values of some sections of a project's params.yaml; `gates__query` is the section `query` of `gates`."""
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, values in sections.items():
        section = params
        for part in name.split("__"):
            section = section.setdefault(part, {})
        section.update(values)
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def copy_release(project: Path, root: Path) -> Path:
    """Copy the parts of a project that requests need: its params.yaml and its releases."""
    root.mkdir()
    shutil.copy(project / "params.yaml", root)
    shutil.copytree(project / "serving", root / "serving")
    return root


def _two_classes(root: Path, each: int = 12, side: int = 24) -> Path:
    return write_class_folders(root, {"ash": each, "oak": each}, side=side)


def _small(root: Path) -> Path:
    return _two_classes(root, side=12)


def _leaking(root: Path) -> Path:
    for seed, (split, count) in enumerate((("train", 12), ("test", 6))):
        write_class_folders(root / split, {"ash": count, "oak": count}, seed=seed)
    for number in range(3):
        shutil.copy(root / f"test/oak/{number}.png", root / f"train/oak/leak{number}.png")
    return root


def _contradictory(root: Path) -> Path:
    _two_classes(root)
    for number in range(2):
        shutil.copy(root / f"ash/{number}.png", root / f"oak/lie{number}.png")
    return root


def _copied(root: Path) -> Path:
    _two_classes(root)
    for number in range(3):
        shutil.copy(root / f"ash/{number}.png", root / f"ash/again{number}.png")
    return root


def _long(root: Path) -> Path:
    _two_classes(root)
    for number in range(3):
        (root / f"ash/long{number}.png").write_bytes(encoded(noise(80, 20, seed=700 + number)))
    return root


def _blank(root: Path) -> Path:
    _two_classes(root)
    for number in range(3):
        (root / f"ash/blank{number}.png").write_bytes(encoded(np.full((24, 24, 3), 60 * number, np.uint8)))
    return root


def _uneven(root: Path) -> Path:
    return write_class_folders(root, {"ash": 24, "oak": 8})


QUERY_CASES = {
    "min_median_side_px": QueryCase(_small, 12, 13, "median image is 12 pixels on its shorter side, want", stops=True),
    "max_leak_share": QueryCase(_leaking, 0.5, 0.05, "seen in another (8%, allowed: 5%)", stops=True),
    "max_contradiction_share": QueryCase(_contradictory, 0.5, 0.1, "two labels (15% of the files", stops=True),
    "max_blank_share": QueryCase(_blank, 0.5, 0.1, "allowed: 10%)", stops=True),
    "max_copy_share": QueryCase(_copied, 0.5, 0.1, "3 of 27 files are copies of others"),
    "max_elongated_share": QueryCase(_long, 0.5, 0.1, "3 of 27 images have sides in a ratio above 3 to 1"),
    "max_imbalance": QueryCase(_uneven, 4, 2, "largest class has 3 times the images of the smallest"),
}
