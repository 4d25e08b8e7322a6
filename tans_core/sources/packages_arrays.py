"""Sources whose images are arrays inside Debian packages: Fashion-MNIST, and patches of a brain scan.

Axes: N images; X, Y, Z = voxels of a volume: to the right, to the front, up.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tans_core.errors import DataError
from tans_core.runtime import derive_seed
from tans_core.sources.base import Sample, check_choice, check_options, missing_file
from tans_core.sources.fetch import Package, fetch, missing_package

FASHION = Package(
    manager="debian",
    name="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    size_mb=31,
    licence="MIT",
)
MRICRON = Package(
    manager="debian",
    name="mricron-data",
    version="1.2.20211006+dfsg-4",
    sha256="d40aa0ed66cf89bf6cafa049ad3884703c9d975c2ee2737525b7196528df9d6f",
    size_mb=16,
    licence="BSD-3-Clause",
)
_FASHION_FILES = ("usr/share/datasets/fashion-mnist/*",)
_BRAIN_FILES = tuple(f"usr/share/mricron/templates/{name}" for name in ("ch2.nii.gz", "aal.nii.gz", "aal.nii.txt"))

GARMENTS = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

REGIONS = (
    "Calcarine", "Caudate", "Cerebelum_6", "Cerebelum_Crus1", "Cingulum_Ant", "Cuneus", "Frontal_Mid", "Fusiform",
    "Hippocampus", "Insula", "Lingual", "Occipital_Mid", "Parietal_Sup", "Postcentral", "Precentral", "Precuneus",
    "Putamen", "Temporal_Inf", "Temporal_Sup", "Thalamus",
)  # fmt: skip
"""The atlas's paired regions that are large enough and lie apart."""

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
_SLAB = 6


class FashionMnist:
    """Garments of 28x28, split as published.

    Options: classes (empty for all ten), images (about how many, at most 70,000).
    """

    name = "fashion-mnist"
    package = "dataset-fashion-mnist"
    licence = "MIT"
    defaults: Mapping[str, Any] = {"classes": [], "images": 6000}

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_package(FASHION, _FASHION_FILES)

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        for label in chosen["classes"]:
            check_choice(self.name, "classes", label, GARMENTS)
        wanted = sorted(set(chosen["classes"] or GARMENTS))
        folder = fetch(FASHION, _FASHION_FILES) / "usr/share/datasets/fashion-mnist"
        for split, stem, share in (("train", "train", 6 / 7), ("test", "t10k", 1 / 7)):
            images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz")
            labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz")
            for label in wanted:
                rng = np.random.default_rng(derive_seed(seed, split, label))
                members = rng.permutation(np.flatnonzero(labels == GARMENTS.index(label)))
                for index in members[: round(chosen["images"] / len(wanted) * share)]:
                    yield Sample(images[index], label, "", f"{stem}/{index:05d}.png", split)


class BrainRegions:
    """Square patches of one T1 scan; class = region of the atlas at the centre. Options: plane, patch_mm, images.

    Train and val are the left half of the brain, test is the right half, mirrored.
    """

    name = "colin27-mri"
    package = "mricron-data"
    licence = "BSD-3-Clause"
    defaults: Mapping[str, Any] = {"plane": "axial", "patch_mm": 32, "images": 2000}

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("nibabel", install="nibabel") or missing_package(MRICRON, _BRAIN_FILES)

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "plane", chosen["plane"], PLANES)
        axis, reach = PLANES[chosen["plane"]], chosen["patch_mm"] // 2
        folder = fetch(MRICRON, _BRAIN_FILES) / "usr/share/mricron/templates"
        scan, atlas = _read_volume(folder / "ch2.nii.gz"), _read_volume(folder / "aal.nii.gz")
        codes = _read_codes(folder / "aal.nii.txt")
        # Fat around the skull is far brighter than the brain. Unclipped, it would leave the brain a third of the greys.
        brightest = float(np.percentile(scan[atlas > 0], 99.5))
        padded = np.pad(np.minimum(scan * (255 / brightest), 255).round().astype(np.uint8), reach)
        for region in REGIONS:
            for side, split, share in (("L", "train", 0.7), ("R", "test", 0.3)):
                rng = np.random.default_rng(derive_seed(seed, region, side))
                voxels = np.argwhere(atlas == codes[f"{region}_{side}"])
                count = round(chosen["images"] / len(REGIONS) * share)
                for voxel in voxels[rng.permutation(len(voxels))[:count]]:
                    patch = _cut(padded, voxel, axis, reach)
                    # In the sagittal plane both halves look alike; in the others the right one is mirrored.
                    if side == "R" and axis != 0:
                        patch = patch[:, ::-1]
                    name = f"{region}_{side}/{','.join(str(value) for value in voxel)}.png"
                    yield Sample(patch, region, f"{side}, slab {voxel[axis] // _SLAB}", name, split)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes.

    Raises:
        DataError: its length is not that of its header, or it contains something else.
    """
    data = gzip.decompress(path.read_bytes())
    dimensions = data[3] if len(data) >= 4 else 0
    shape = tuple(
        int.from_bytes(data[at : at + 4], "big") for at in range(4, min(4 + 4 * dimensions, len(data) - 3), 4)
    )
    start = 4 + 4 * dimensions
    if data[:3] != b"\0\0\x08" or len(shape) != dimensions or math.prod(shape) != len(data) - start:
        raise DataError(
            f"{path.name}: no IDX file of bytes: got {len(data)} bytes, header {data[:4].hex()}, shape {shape}."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _read_volume(path: Path) -> npt.NDArray[np.uint8]:
    """Return the (X, Y, Z) bytes of a NIfTI file."""
    import nibabel

    return np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj, dtype=np.uint8)


def _read_codes(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[1]: int(words[0]) for words in lines if len(words) >= 2}


def _cut(padded: npt.NDArray[np.uint8], voxel: npt.NDArray[np.int64], axis: int, reach: int) -> npt.NDArray[np.uint8]:
    """Cut the square around a voxel of the unpadded volume. Up stays up; the front is up or left."""
    window = [slice(int(value), int(value) + 2 * reach) for value in voxel]
    window[axis] = slice(int(voxel[axis]) + reach, int(voxel[axis]) + reach + 1)
    return np.ascontiguousarray(padded[tuple(window)].squeeze(axis).T[::-1])
