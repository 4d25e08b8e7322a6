"""Source `torchvision`: the classification data sets of `torchvision.datasets`, from files on this machine.

Nothing is downloaded unless the option `download` is true. torchvision is imported by name when a data set is read: of
all modules that read images, only this one needs torch.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tans_core.errors import DataError, ParamsError, SourceUnavailableError
from tans_core.licences import UNSTATED
from tans_core.runtime import derive_seed
from tans_core.sources.base import Sample, check_choice, check_options
from tans_core.tasks.decode import MAX_PIXELS

logger = logging.getLogger(__name__)

ROOT = "data/downloads/torchvision"

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class DatasetEntry:
    """One data set of torchvision.

    Attributes:
        files: the files that must be below the root, in torchvision's layout.
        licence: of the images, not of torchvision; an SPDX expression.
        splits: the constructor's arguments for each split; the key "" is a data set without splits.
        more: arguments for all splits.
        classes: the attribute with the class names; without it, classes have numbers as names.
        turned: rows and columns are swapped.
        pickled: its files are pickles, so their MD5 must be the one that torchvision lists.
    """

    files: tuple[str, ...]
    licence: str
    splits: Mapping[str, Arguments]
    more: Arguments = field(default_factory=dict)
    classes: str = "classes"
    turned: bool = False
    pickled: bool = False


_TRAIN: Mapping[str, Arguments] = {"train": {"train": True}, "test": {"train": False}}
_SPLIT: Mapping[str, Arguments] = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE: Mapping[str, Arguments] = {**_SPLIT, "val": {"split": "val"}}
_NONE: Mapping[str, Arguments] = {"": {}}
_IMAGENET = "LicenseRef-imagenet-terms"


def _idx(folder: str) -> tuple[str, ...]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return tuple(f"{folder}/raw/{name}" for name in names)


KNOWN = {
    "CIFAR10": DatasetEntry(("cifar-10-batches-py",), UNSTATED, _TRAIN, pickled=True),
    "CIFAR100": DatasetEntry(("cifar-100-python",), UNSTATED, _TRAIN, pickled=True),
    "Caltech101": DatasetEntry(("caltech101/101_ObjectCategories",), "CC-BY-4.0", _NONE, classes="categories"),
    "Country211": DatasetEntry(
        ("country211",), "LicenseRef-yfcc100m-creative-commons", {**_SPLIT, "val": {"split": "valid"}}
    ),
    "DTD": DatasetEntry(("dtd/dtd/images", "dtd/dtd/labels"), "LicenseRef-dtd-research-only", _THREE),
    "EMNIST": DatasetEntry(
        tuple(
            f"EMNIST/raw/emnist-balanced-{split}-{kind}-ubyte"
            for split in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        ),
        UNSTATED,
        _TRAIN,
        more={"split": "balanced"},
        turned=True,
    ),
    "EuroSAT": DatasetEntry(("eurosat/2750",), "MIT", _NONE),
    "FGVCAircraft": DatasetEntry(("fgvc-aircraft-2013b/data",), "LicenseRef-fgvc-aircraft-research-only", _THREE),
    "FashionMNIST": DatasetEntry(_idx("FashionMNIST"), "MIT", _TRAIN),
    "Flowers102": DatasetEntry(
        ("flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"), UNSTATED, _THREE
    ),
    "Food101": DatasetEntry(("food-101/images", "food-101/meta"), "LicenseRef-food-101-fair-use", _SPLIT),
    "GTSRB": DatasetEntry(("gtsrb/GTSRB", "gtsrb/GT-final_test.csv"), UNSTATED, _SPLIT),
    "Imagenette": DatasetEntry(
        ("imagenette2-160",),
        f"Apache-2.0 AND {_IMAGENET}",
        {"train": {"split": "train"}, "val": {"split": "val"}},
        more={"size": "160px"},
    ),
    "KMNIST": DatasetEntry(_idx("KMNIST"), "CC-BY-SA-4.0", _TRAIN),
    "MNIST": DatasetEntry(_idx("MNIST"), "CC-BY-SA-3.0", _TRAIN),
    "OxfordIIITPet": DatasetEntry(
        ("oxford-iiit-pet/images", "oxford-iiit-pet/annotations"),
        "CC-BY-SA-4.0",
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
    ),
    "PCAM": DatasetEntry(
        tuple(
            f"pcam/camelyonpatch_level_2_split_{split}_{kind}.h5"
            for split in ("train", "valid", "test")
            for kind in ("x", "y")
        ),
        "CC0-1.0",
        _THREE,
    ),
    "QMNIST": DatasetEntry(
        tuple(
            f"QMNIST/raw/qmnist-{split}-{kind}"
            for split in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx2-int")
        ),
        "BSD-3-Clause",
        {"train": {"what": "train"}, "test": {"what": "test"}},
    ),
    "RenderedSST2": DatasetEntry(("rendered-sst2",), UNSTATED, _THREE),
    "SEMEION": DatasetEntry(("semeion.data",), "CC-BY-4.0", _NONE),
    "STL10": DatasetEntry(("stl10_binary",), f"{_IMAGENET} AND {UNSTATED}", _SPLIT),
    "SVHN": DatasetEntry(("train_32x32.mat", "test_32x32.mat"), "LicenseRef-svhn-non-commercial", _SPLIT),
    "StanfordCars": DatasetEntry(
        ("stanford_cars/devkit", "stanford_cars/cars_train", "stanford_cars/cars_test"),
        f"{_IMAGENET} AND {UNSTATED}",
        _SPLIT,
    ),
    "USPS": DatasetEntry(("usps.bz2", "usps.t.bz2"), UNSTATED, _TRAIN),
}


class TorchvisionDatasets:
    """Options: dataset (a key of KNOWN), root (folder), download, images (about how many at random; 0 for all)."""

    name = "torchvision"
    package = ""
    licence = "LicenseRef-torchvision-by-data-set"
    defaults: Mapping[str, Any] = {"dataset": "", "root": ROOT, "download": False, "images": 10_000}

    def licence_of(self, options: Mapping[str, Any]) -> str:
        known = KNOWN.get(str(options.get("dataset")))
        return known.licence if known else self.licence

    def missing(self, options: Mapping[str, Any]) -> str | None:
        if importlib.util.find_spec("torchvision") is None:
            return "`pip install torchvision`"
        dataset, root = str(options.get("dataset", "")), Path(str(options.get("root", ROOT)))
        if dataset not in KNOWN:
            return "set options.dataset to one of its data sets"
        absent = [file for file in KNOWN[dataset].files if not (root / file).exists()]
        if not absent:
            return None
        if options.get("download") is True:
            return f"downloaded by torchvision at first use, into {root}"
        return f"put {', '.join(absent)} into {root}, or set options.download to true"

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "dataset", chosen["dataset"], KNOWN)
        if chosen["images"] < 0:
            raise ParamsError(f"source {self.name!r}: options.images: got {chosen['images']}, want 0 (all) or more")
        known = KNOWN[chosen["dataset"]]
        parts = {split: self._open(chosen, arguments) for split, arguments in known.splits.items()}
        total = sum(len(part) for part in parts.values())
        share = min(1.0, chosen["images"] / max(total, 1)) if chosen["images"] else 1.0
        for split, part in parts.items():
            names = _class_names(getattr(part, known.classes, ()))
            rng = np.random.default_rng(derive_seed(seed, split))
            picked = rng.choice(len(part), size=round(share * len(part)), replace=False)
            for index in np.sort(picked).tolist():
                path = f"{chosen['dataset']}/{split or 'all'}/{index:06d}"
                item = _read(part, index)
                if isinstance(item, str):
                    logger.warning("%s: left out: %s", path, item)
                    continue
                pixels, label = item
                pixels = np.ascontiguousarray(pixels.swapaxes(0, 1)) if known.turned else pixels
                yield Sample(pixels, names.get(label, str(label)), "", path, split or None)

    def _open(self, chosen: Mapping[str, Any], arguments: Arguments) -> Any:
        """Open the torchvision data set of one split."""
        name, root = chosen["dataset"], Path(chosen["root"])
        known = KNOWN[name]
        missing = self.missing(chosen)
        if missing and not chosen["download"]:
            raise SourceUnavailableError(f"torchvision: {name} is not in {root}: {missing}.")
        kind = getattr(importlib.import_module("torchvision.datasets"), name)
        try:
            _check_hashes(kind, root)
            with warnings.catch_warnings():
                # Newer releases of numpy warn about old files.
                warnings.simplefilter("ignore")
                download = {"download": True} if chosen["download"] else {}
                dataset = kind(str(root), **arguments, **known.more, **download)
        # Its readers raise any class of error for a damaged file.
        except Exception as error:
            files = ", ".join(known.files)
            problem = " ".join(str(error).split())[:300]
            raise SourceUnavailableError(
                f"torchvision: {name} in {root} cannot be read ({type(error).__name__}: {problem}). "
                f"Want {files} in {root} as its authors published them"
                + ("." if chosen["download"] else ", or set options.download to true.")
            ) from error
        _check_paths(dataset, root)
        # torchvision checks the hashes before it unpickles. This would detect a release that does not.
        if known.pickled and not dataset._check_integrity():
            raise DataError(f"torchvision: {name} in {root}: its pickles do not have the MD5 that torchvision lists.")
        return dataset


def _check_hashes(kind: Any, root: Path) -> None:
    """Raise RuntimeError if a packed file has another MD5 than torchvision lists: USPS's reader does not check it."""
    check = importlib.import_module("torchvision.datasets.utils").check_integrity
    for _, file, md5 in getattr(kind, "split_list", {}).values():
        if (root / file).exists() and not check(str(root / file), md5):
            raise RuntimeError(f"MD5 of {file}: want {md5}")


def _check_paths(dataset: Any, root: Path) -> None:
    """Raise DataError if the data set's list of files contains a path outside the root."""
    folder = os.path.abspath(root) + os.sep  # noqa: PTH100
    for attribute in ("_image_files", "_images", "_samples", "samples"):
        for entry in getattr(dataset, attribute, ()):
            path = entry[0] if isinstance(entry, tuple) else entry
            if not os.path.abspath(path).startswith(folder):  # noqa: PTH100
                raise DataError(
                    f"torchvision: {type(dataset).__name__}: its list of images names {path}, outside {root}."
                )


def _class_names(names: Sequence[Any]) -> dict[int, str]:
    # Imagenette's classes are tuples of synonyms.
    return {index: str(name[0] if isinstance(name, tuple) else name) for index, name in enumerate(names)}


def _read(part: Any, index: int) -> tuple[npt.NDArray[np.uint8], int] | str:
    """Return one image, (H, W, 3) uint8, and its label, or the reason why it cannot be read."""
    try:
        with _pixel_cap():
            image, label = part[index]
            return np.asarray(image.convert("RGB")), int(label)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]


@contextlib.contextmanager
def _pixel_cap() -> Iterator[None]:
    """Let Pillow refuse images above `MAX_PIXELS`: torchvision opens the files of some data sets itself."""
    before = Image.MAX_IMAGE_PIXELS
    # Pillow warns above this number of pixels, and refuses above twice as many.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
