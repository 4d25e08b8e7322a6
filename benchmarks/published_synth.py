"""Synthetic files in the format that the TANS authors published, of any size, with structure that can be learned.

Each data set has a latent vector. Image features are that vector, shifted by class, plus noise. A network's functional
embedding is its home's latent vector, shifted by the architecture, plus noise. Accuracy follows from the home, the
architecture, and how well the two match.

    python benchmarks/published_synth.py FOLDER [--tasks 140] [--networks 100] [--seed 0]

Axes: D data sets, M = D x networks, K latent width, C code width, n images of a data set.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

LATENT = 32
FUNCTIONAL, FEATURES = 1536, 512
IMAGES_A_CLASS = 10
STAGES, BLOCKS = 5, 4
KERNELS, EXPANDS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
CHANNELS = (24, 32, 48, 96, 136, 192)
FUNCTIONAL_NORM = 20.0

Array = npt.NDArray[np.float64]


def make_published(tasks: int = 140, networks: int = 100, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of `p_mod_zoo.pt` and `p_m_train.pt`."""
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(tasks, LATENT))
    classes = rng.integers(2, 21, tasks)
    names = [f"made-up-{number:03d}_0_{count}" for number, count in enumerate(classes)]
    home = np.repeat(np.arange(tasks), networks)
    zoo = _zoo(rng, latents, home)
    queries = dict(zip(names, _queries(rng, latents, classes), strict=True))
    return {"dataset": [names[task] for task in home], **zoo}, queries


def write_published(folder: Path, tasks: int = 140, networks: int = 100, seed: int = 0) -> tuple[Path, Path]:
    """Write both files; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "p_mod_zoo.pt", folder / "p_m_train.pt"
    for content, path in zip(make_published(tasks, networks, seed), paths, strict=True):
        torch.save(content, path)
    return paths


def _zoo(rng: np.random.Generator, latents: Array, home: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    count = len(home)
    kernels = rng.choice(KERNELS, (count, STAGES * BLOCKS))
    expands = rng.choice(EXPANDS, (count, STAGES * BLOCKS))
    depths = rng.choice(DEPTHS, (count, STAGES))
    active = (np.arange(BLOCKS) < depths[:, :, None]).reshape(count, -1)  # (M, 20)
    one_hot = [(values == choice) & active for values, of in ((kernels, KERNELS), (expands, EXPANDS)) for choice in of]
    code = np.concatenate([*one_hot, depths - 3], axis=1).astype(np.float64)  # (M, C)
    centred = code - code.mean(axis=0)
    width = code.shape[1]

    shown = latents @ rng.normal(size=(LATENT, FUNCTIONAL)) / LATENT**0.5  # (D, E), unit deviation
    moved = centred @ rng.normal(size=(width, FUNCTIONAL)) / np.sqrt((centred**2).sum(axis=1).mean())
    functional = 2 * rng.normal(size=FUNCTIONAL) + shown[home] + moved + 8 * rng.normal(size=moved.shape)
    functional *= FUNCTIONAL_NORM / np.linalg.norm(functional, axis=1).mean()

    difficulty = 1.5 + rng.normal(size=len(latents))
    suits = ((latents @ rng.normal(size=(LATENT, width)) / LATENT**0.5)[home] * code).sum(axis=1) / 24
    logit = difficulty[home] + centred @ rng.normal(size=width) / 4 + suits + 0.2 * rng.normal(size=count)
    rows = torch.from_numpy(functional.astype(np.float32))
    return {
        "topol": np.concatenate([kernels, expands, depths], axis=1).tolist(),
        "acc": (1 / (1 + np.exp(-logit))).clip(0.02, 0.999).tolist(),
        "f_emb": [row.clone() for row in rows],
        "n_params": _params_m(kernels, expands, active).tolist(),
    }


def _params_m(kernels: npt.NDArray[np.int64], expands: npt.NDArray[np.int64], active: npt.NDArray[np.bool_]) -> Array:
    """Return millions of parameters, about those of a MobileNetV3: expansion, depthwise, projection of each block."""
    out = np.repeat(CHANNELS[1:], BLOCKS)
    into = np.where(np.arange(STAGES * BLOCKS) % BLOCKS == 0, np.repeat(CHANNELS[:-1], BLOCKS), out)
    blocks = into * expands * (into + kernels**2 + out) * active
    total: Array = 2.4 + blocks.sum(axis=1) / 1e6
    return total


def _queries(rng: np.random.Generator, latents: Array, classes: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    centres = np.abs(rng.normal(size=FEATURES)) + latents @ rng.normal(size=(LATENT, FEATURES)) / LATENT**0.5
    queries = []
    for centre, count in zip(centres, classes.tolist(), strict=True):
        of_class = (centre + 0.7 * rng.normal(size=(count, FEATURES))).repeat(IMAGES_A_CLASS, axis=0)  # (n, F)
        splits = {}
        for split in ("train", "test"):
            images = of_class + 6 * rng.normal(size=of_class.shape)
            rows = torch.from_numpy(images.astype(np.float32))
            splits[f"x_query_{split}"] = [row.clone() for row in rows]
        queries.append({"nclss": count, "clss": [str(number) for number in range(count)], **splits})
    return queries


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description="Synthetic files in the format that the TANS authors published.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, default=140)
    parser.add_argument("--networks", type=int, default=100, help="networks of each data set")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    for path in write_published(chosen.folder, chosen.tasks, chosen.networks, chosen.seed):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
