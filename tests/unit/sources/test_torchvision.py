"""torchvision's own readers, on local files; nothing is downloaded."""

from __future__ import annotations

import bz2
import pickle
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tans_core.errors import DataError, ParamsError, SourceUnavailableError
from tans_core.sources.base import Sample, licence_of
from tans_core.sources.build import build_task
from tans_core.sources.torchvision import KNOWN, TorchvisionDatasets
from tests.factories.images import noise, write_class_folders


def load(root: Path, dataset: str, **options: object) -> list[Sample]:
    return list(TorchvisionDatasets().load({"dataset": dataset, "root": str(root), **options}, seed=0))


def write_idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(head + array.tobytes())


def write_mnist_like(root: Path, name: str, prefixes: tuple[str, str] = ("train", "t10k")) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    images = {}
    for prefix, count in zip(prefixes, (80, 40), strict=True):
        images[prefix] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        write_idx(root / name / f"raw/{prefix}-images-idx3-ubyte", images[prefix])
        write_idx(root / name / f"raw/{prefix}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return images


def test_idx_files_are_read_with_torchvisions_class_names(tmp_path: Path) -> None:
    images = write_mnist_like(tmp_path, "FashionMNIST")
    samples = load(tmp_path, "FashionMNIST")
    assert Counter(sample.split for sample in samples) == {"train": 80, "test": 40}
    assert {samples[0].label, samples[1].label} == {"T-shirt/top", "Trouser"}
    np.testing.assert_array_equal(samples[3].image[:, :, 0], images["train"][3])


def test_emnist_is_turned_upright(tmp_path: Path) -> None:
    images = write_mnist_like(tmp_path, "EMNIST", ("emnist-balanced-train", "emnist-balanced-test"))
    samples = load(tmp_path, "EMNIST")
    np.testing.assert_array_equal(samples[0].image[:, :, 0], images["emnist-balanced-train"][0].T)


def test_a_data_set_without_splits_is_split_like_any_other(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "eurosat/2750", {"Forest": 30, "River": 30})
    (tmp_path / "eurosat/2750/River/0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    task = build_task(
        "land",
        "torchvision",
        {"dataset": "EuroSAT", "root": str(tmp_path)},
        "meta-train",
        stored_size_px=16,
        max_train=30,
        max_val=10,
        max_test=10,
        min_images_per_class=2,
        seed=0,
    )
    assert task.info.class_names == ("Forest", "River") and task.info.licence == "MIT"
    assert sum(task.info.counts.values()) == 50


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(20, 16, seed)).save(path)


def lay_out(root: Path, dataset: str) -> None:
    """Write four pictures a class and split, two classes, laid out as the data set's authors do."""
    lists: dict[str, list[str]] = {}
    for number in range(24):
        split, label = ("train", "val", "test")[number % 3], number // 3 % 2
        name = ("ant", "bee")[label]
        if dataset == "Country211":
            picture(root / f"country211/{split.replace('val', 'valid')}/{name}/{number}.jpg", number)
        elif dataset == "RenderedSST2":
            folder = ("negative", "positive")[label]
            picture(root / f"rendered-sst2/{split.replace('val', 'valid')}/{folder}/{number}.png", number)
        elif dataset == "Imagenette":
            folder = ("n01440764", "n02102040")[label]
            picture(root / f"imagenette2-160/{'val' if split == 'test' else split}/{folder}/{number}.JPEG", number)
        elif dataset == "Caltech101":
            (root / "caltech101/101_ObjectCategories/BACKGROUND_Google").mkdir(parents=True, exist_ok=True)
            picture(root / f"caltech101/101_ObjectCategories/{name}/image_{number // 6 * 3 + number % 3 + 1:04d}.jpg")
        elif dataset == "DTD":
            picture(root / f"dtd/dtd/images/{name}/{number}.jpg", number)
            lists.setdefault(f"dtd/dtd/labels/{split}1.txt", []).append(f"{name}/{number}.jpg")
        elif dataset == "FGVCAircraft":
            picture(root / f"fgvc-aircraft-2013b/data/images/{number}.jpg", number)
            lists["fgvc-aircraft-2013b/data/variants.txt"] = ["ant", "bee"]
            lists.setdefault(f"fgvc-aircraft-2013b/data/images_variant_{split}.txt", []).append(f"{number} {name}")
        elif dataset == "OxfordIIITPet":
            picture(root / f"oxford-iiit-pet/images/{name}_{number}.jpg", number)
            part = "test" if split == "test" else "trainval"
            lists.setdefault(f"oxford-iiit-pet/annotations/{part}.txt", []).append(f"{name}_{number} {label + 1} 1 1")
        elif dataset == "GTSRB":
            train = split != "test"
            folder = f"Training/{label:05d}" if train else "Final_Test/Images"
            picture(root / f"gtsrb/GTSRB/{folder}/{number}.ppm", number)
            if not train:
                rows = lists.setdefault("gtsrb/GT-final_test.csv", ["Filename;ClassId"])
                rows.append(f"{number}.ppm;{label}")
    for file, rows in lists.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("\n".join(rows) + "\n")


LAYOUTS = {
    "Caltech101": {"ant", "bee"},
    "Country211": {"ant", "bee"},
    "DTD": {"ant", "bee"},
    "FGVCAircraft": {"ant", "bee"},
    "GTSRB": {"0", "1"},
    "Imagenette": {"tench", "English springer"},
    "OxfordIIITPet": {"Ant", "Bee"},
    "RenderedSST2": {"negative", "positive"},
}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_files_laid_out_as_published_are_read_whole(tmp_path: Path, dataset: str) -> None:
    lay_out(tmp_path, dataset)
    assert TorchvisionDatasets().missing({"dataset": dataset, "root": str(tmp_path)}) is None
    samples = load(tmp_path, dataset)
    assert len(samples) == 24 and {sample.label for sample in samples} == LAYOUTS[dataset]
    splits = {split or None for split in KNOWN[dataset].splits}
    assert {sample.split for sample in samples} == splits


def test_a_list_of_images_that_leads_outside_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "secret.jpg")
    lay_out(tmp_path / "other", "OxfordIIITPet")
    listed = tmp_path / "other/oxford-iiit-pet/annotations/test.txt"
    listed.write_text(listed.read_text() + "../../../secret 1 1 1\n")
    with pytest.raises(DataError, match="outside"):
        load(tmp_path / "other", "OxfordIIITPet")


def test_a_packed_file_that_torchvision_does_not_know_is_not_unpacked(tmp_path: Path) -> None:
    for name in KNOWN["USPS"].files:
        (tmp_path / name).write_bytes(bz2.compress(bytes(10_000)))
    with pytest.raises(SourceUnavailableError, match=r"MD5 of usps.*bz2"):
        load(tmp_path, "USPS")


def test_a_random_part_keeps_the_shares_of_the_splits(tmp_path: Path) -> None:
    write_mnist_like(tmp_path, "FashionMNIST")
    one, two = (load(tmp_path, "FashionMNIST", images=30) for _ in range(2))
    assert Counter(sample.split for sample in one) == {"train": 20, "test": 10}
    assert [sample.path for sample in one] == [sample.path for sample in two]


@pytest.mark.parametrize("dataset", KNOWN)
def test_what_is_absent_is_named_with_its_folder_and_the_way_to_download(dataset: str, tmp_path: Path) -> None:
    source = TorchvisionDatasets()
    options = {"dataset": dataset, "root": str(tmp_path)}
    with pytest.raises(SourceUnavailableError) as caught:
        load(tmp_path, dataset)
    for words in (*KNOWN[dataset].files, str(tmp_path), "options.download"):
        assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert source.missing(options) and licence_of(source, options) == KNOWN[dataset].licence
    assert "at first use" in (source.missing({**options, "download": True}) or "")


def test_every_data_set_of_the_table_exists() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    assert len(KNOWN) >= 20 and all(hasattr(datasets, name) for name in KNOWN)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled",))


def test_pickles_that_torchvision_does_not_know_are_never_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(SourceUnavailableError, match="not found or corrupted"):
        load(tmp_path, "CIFAR10")
    assert "unpickled" not in capfd.readouterr().out


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03" + bytes(20), b"no idx file at all"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    write_mnist_like(tmp_path, "FashionMNIST")
    (tmp_path / "FashionMNIST/raw/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(SourceUnavailableError, match=r"FashionMNIST in .* cannot be read"):
        load(tmp_path, "FashionMNIST")


def test_unknown_data_sets_are_answered_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match="did you mean 'CIFAR10'"):
        load(Path("x"), "CIFAR11")


def test_the_list_of_sources_needs_no_torch() -> None:
    code = (
        "import sys; from tans_core.sources import SOURCES; "
        "[source.missing({}) for source in SOURCES.values()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
