"""Small files in the format that the TANS authors published, and their variants.

Axes: D data sets, N networks of each, E functional width, F feature width.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Content = dict[str, Any]

WIDTH, FEATURES = 24, 16
SOURCES = ("leaf-shapes_ann", "street_signs", "cells2", "old-coins")


def zoo_and_queries(datasets: int = 12, nets: int = 10, seed: int = 0) -> tuple[Content, Content]:
    """D x N networks row by row, and D data sets; embeddings, queries and accuracies share a latent of the data set."""
    rng = np.random.default_rng(seed)
    names = [f"{SOURCES[number % len(SOURCES)]}_{number}_{number + 5}" for number in range(datasets)]
    to_functional, to_features = rng.normal(size=(4, WIDTH)), rng.normal(size=(4, FEATURES))
    zoo: Content = {key: [] for key in ("dataset", "topol", "acc", "f_emb", "n_params")}
    queries: Content = {}
    for name in names:
        latent = rng.normal(size=4)
        for _ in range(nets):
            topology = topology_row(rng)
            zoo["dataset"].append(name)
            zoo["topol"].append(topology)
            zoo["acc"].append(float(1 / (1 + np.exp(-latent[0] - 0.3 * sum(topology[40:]) + 4 + 0.1 * rng.normal()))))
            zoo["f_emb"].append(torch.tensor(latent @ to_functional + rng.normal(size=WIDTH), dtype=torch.float32))
            zoo["n_params"].append(3.0 + 0.1 * sum(topology[40:]))
        queries[name] = {"task": name, "clss": list("abcde"), "nclss": 5}
        for split, count in (("train", 8), ("test", 6)):
            rows = latent @ to_features + rng.normal(size=(count, FEATURES))
            queries[name][f"x_query_{split}"] = [torch.tensor(row, dtype=torch.float32) for row in rows]
    return zoo, queries


def topology_row(rng: np.random.Generator) -> list[int]:
    kernels, ratios, depths = (
        rng.choice(kinds, size) for kinds, size in (((3, 5, 7), 20), ((3, 4, 6), 20), ((2, 3, 4), 5))
    )
    return [*kernels.tolist(), *ratios.tolist(), *depths.tolist()]


def unseen_set(seed: int = 9, images: int = 2, image_size_px: int = 8) -> Content:
    """A `meta_test_<name>.pt`: queries, and images that must not be read."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.zeros(images, 3, image_size_px, image_size_px)
    return {
        "query": list(torch.randn(7, FEATURES, generator=generator).unbind()),
        "nclss": 2,
        **{f"x_{split}": pictures for split in ("train", "test")},
        **{f"y_{split}": torch.zeros(images, dtype=torch.int64) for split in ("train", "test")},
    }


def save(folder: Path, zoo: Any, queries: Any) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "p_mod_zoo.pt", folder / "p_m_train.pt"
    for content, path in zip((zoo, queries), paths, strict=True):
        torch.save(content, path)
    return paths


def rows(zoo: Content, order: list[int]) -> Content:
    return {key: [values[row] for row in order] for key, values in zoo.items()}


def _ragged(zoo: Content, queries: Content) -> None:
    """Other counts of networks, mixed up; other counts of images."""
    rng = np.random.default_rng(1)
    kept = [row for row in range(len(zoo["acc"])) if row % 10 == 0 or rng.random() < 0.5]
    zoo.update(rows(zoo, rng.permutation(kept).tolist()))
    for number, entry in enumerate(queries.values()):
        del entry["x_query_train"][1 + number % 5 :]


def _tensors(zoo: Content, queries: Content) -> None:
    zoo["topol"] = torch.tensor(zoo["topol"])
    zoo["f_emb"] = torch.stack(zoo["f_emb"])
    zoo["acc"] = torch.tensor(zoo["acc"], dtype=torch.float64)
    for entry in queries.values():
        for key in ("x_query_train", "x_query_test"):
            entry[key] = torch.stack(entry[key])


def _as(kind: Callable[[float], Any]) -> Callable[[Content, Content], None]:
    def change(zoo: Content, queries: Content) -> None:
        for key in ("acc", "n_params"):
            zoo[key] = [kind(value) for value in zoo[key]]

    return change


def _rows_of_one(zoo: Content, queries: Content) -> None:
    zoo["f_emb"] = [row[None] for row in zoo["f_emb"]]
    for entry in queries.values():
        entry["x_query_train"] = [row[None, :] for row in entry["x_query_train"]]


def _plain_lists(zoo: Content, queries: Content) -> None:
    zoo["f_emb"] = [row.tolist() for row in zoo["f_emb"]]
    zoo["topol"] = [tuple(map(torch.tensor, row)) for row in zoo["topol"]]
    for entry in queries.values():
        entry["x_query_test"] = tuple(row.tolist() for row in entry["x_query_test"])


def _extra(zoo: Content, queries: Content) -> None:
    zoo["flops"] = [1.0] * len(zoo["acc"])
    zoo["about"] = {"nested": [None, ("text", 1)]}
    for entry in queries.values():
        del entry["task"], entry["clss"], entry["nclss"]
        entry["x_query_val"] = torch.zeros(3, 1)


def _skipped(zoo: Content, queries: Content) -> None:
    """The values in the slots of blocks that do not exist must not matter."""
    for row in zoo["topol"]:
        row[40:] = [2] * 5
        row[2], row[23] = 0, 99


# Each leaves what is imported as it was, except those that say so.
VARIANTS: dict[str, Callable[[Content, Content], None]] = {
    "as published": lambda zoo, queries: None,
    "0-d tensors": _as(torch.tensor),
    "NumPy float64": _as(np.float64),
    "NumPy float32": _as(np.float32),
    "NumPy big-endian": _as(lambda value: np.array([value], ">f8")[0]),
    "half of them tensors": _as(lambda value: value if value > 0.5 else torch.tensor([value])),
    "matrices": _tensors,
    "rows of one": _rows_of_one,
    "plain lists": _plain_lists,
    "extra keys": _extra,
    "percent": lambda zoo, queries: zoo.update(acc=[100 * value for value in zoo["acc"]]),
    "counts": lambda zoo, queries: zoo.update(n_params=[round(1e6 * value) for value in zoo["n_params"]]),
    "percent and counts as NumPy ints": lambda zoo, queries: zoo.update(
        acc=[np.float64(100 * value) for value in zoo["acc"]],
        n_params=[np.int64(round(1e6 * value)) for value in zoo["n_params"]],
    ),
    "ragged": _ragged,  # other rows
    "skipped slots": _skipped,  # other topologies
}


class Payload:
    """Unpickling it would make a file."""

    def __init__(self, target: Path, means: str = "system") -> None:
        self.target, self.means = target, means

    def __reduce__(self) -> tuple[Any, ...]:
        if self.means == "system":
            return os.system, (f"touch '{self.target}'",)
        return (
            (open, (str(self.target), "w")) if self.means == "open" else (exec, (f"open({str(self.target)!r}, 'w')",))
        )
