"""MedMNIST's files are read, and nothing in them is trusted."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tans_core.errors import DataError, ParamsError, SourceUnavailableError
from tans_core.sources import medmnist
from tans_core.sources.base import Sample, licence_of
from tans_core.sources.build import build_task
from tans_core.sources.medmnist import MedMnist

COUNTS = {"train": 60, "val": 20, "test": 30}


def write(path: Path, colour: bool = True, **changes: Any) -> Path:
    """Write a file as MedMNIST publishes them: a compressed .npz of six arrays."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 3) if colour else (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 3)[:, None]
    np.savez_compressed(path, **{**arrays, **changes})
    return path


def load(path: Path, **options: object) -> list[Sample]:
    return list(MedMnist().load({"path": str(path), **options}, seed=0))


@pytest.mark.parametrize("colour", [True, False])
def test_its_own_splits_and_labels_are_kept(tmp_path: Path, colour: bool) -> None:
    path = write(tmp_path / "madeup.npz", colour)
    samples = load(path)
    assert Counter(sample.split for sample in samples) == COUNTS
    assert Counter(sample.label for sample in samples) == {"0": 37, "1": 37, "2": 36}
    with np.load(path) as stored:
        np.testing.assert_array_equal(samples[0].image, stored["train_images"][0])
        np.testing.assert_array_equal(samples[-1].image, stored["test_images"][-1])


def test_a_named_data_set_is_found_where_the_package_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path))
    options = {"dataset": "bloodmnist", "size_px": 64}
    assert str(tmp_path) in (MedMnist().missing(options) or "")
    with pytest.raises(SourceUnavailableError, match=r"put bloodmnist_64\.npz into"):
        list(MedMnist().load(options, seed=0))
    write(tmp_path / "bloodmnist_64.npz")
    assert MedMnist().missing(options) is None
    task = build_task(
        "blood",
        "medmnist",
        options,
        "meta-test",
        stored_size_px=16,
        max_train=50,
        max_val=9,
        max_test=9,
        min_images_per_class=2,
        seed=0,
    )
    assert task.info.counts == {"train": 50, "val": 9, "test": 9} and task.info.licence == "CC-BY-4.0"


def test_a_random_part_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    parts = [load(path, images=55) for _ in range(2)]
    assert [sample.path for sample in parts[0]] == [sample.path for sample in parts[1]]
    assert Counter(sample.split for sample in parts[0]) == {"train": 30, "val": 10, "test": 15}


def test_licences_differ() -> None:
    assert licence_of(MedMnist(), {"dataset": "dermamnist"}) == "CC-BY-NC-4.0"
    assert licence_of(MedMnist(), {"path": "x/dermamnist_64.npz"}) == "CC-BY-NC-4.0"
    assert licence_of(MedMnist(), {"dataset": "pathmnist"}) == "CC-BY-4.0"


@pytest.mark.parametrize(
    ("dataset", "words"),
    [("organmnist3d", "contains volumes"), ("bloodmnst", "did you mean 'bloodmnist'"), ("", "want one of")],
)
def test_wrong_names_are_answered(dataset: str, words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        list(MedMnist().load({"dataset": dataset}, seed=0))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        raise AssertionError("was pickled or unpickled")


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "several labels per image": ({"train_labels": np.zeros((60, 14), np.uint8)}, "14 labels per image"),
    "volumes": ({"train_images": np.zeros((60, 28, 28, 28), np.uint8)}, "volumes"),
    "floats": ({"train_images": np.zeros((60, 28, 28), np.float32)}, "want uint8"),
    "fewer labels than images": ({"val_labels": np.zeros((7, 1), np.uint8)}, r"want uint8 \(7"),
    "huge sides": ({"test_images": np.zeros((30, 1, 5000), np.uint8)}, "at most 1024"),
    "labels that are words": ({"test_labels": np.array(["a"] * 30)}, "want whole numbers"),
    "objects": ({"train_labels": np.array([None] * 60, dtype=object)}, "object"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_medmnist_is_refused(tmp_path: Path, name: str) -> None:
    changes, words = HOSTILE[name]
    with pytest.raises(DataError, match=words):
        load(write(tmp_path / "x.npz", **changes))


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.npz")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="damaged"):
        load(path)
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(DataError, match=r"not an \.npz file of MedMNIST"):
        load(tmp_path / "y.npz")


def append(path: Path, name: str, shape: tuple[int, ...], data: bytes) -> None:
    """Add an array to an .npz with any header."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.write(data)


def test_a_bomb_is_read_image_by_image(tmp_path: Path) -> None:
    # Zeros pack a thousand to one; only one image of them is ever in memory.
    path = write(tmp_path / "bomb.npz")
    append(path, "more_images", (40_000, 28, 28), bytes(40_000 * 784))
    with zipfile.ZipFile(path) as archive:
        tracemalloc.start()
        count = sum(1 for _ in medmnist._images(archive, path, "more", 40_000))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == 40_000
    assert peak < 2_000_000


@pytest.mark.parametrize("shape", [(-1,), (-1, -1), (10**9, 1)])
def test_a_header_that_lies_reads_nothing(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "lies.npz"
    append(path, "train_labels", shape, bytes(30_000_000))
    tracemalloc.start()
    with pytest.raises(DataError):
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
