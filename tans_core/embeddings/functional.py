"""The functional embedding: a network's features on fixed images, as a vector of fixed size.

TANS uses one noise image and the features themselves, so all its networks need the same feature width. Here the images
are anchors, a few from each meta-train task, and networks may have any width.

Axes: P images, S their side in pixels, D feature width, E = `functional_dim(P, dim)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tans_core.errors import StoreError, TooFewImagesError
from tans_core.networks.family import Network
from tans_core.networks.head import features_of
from tans_core.networks.preprocess import Preprocess, normalise
from tans_core.runtime import derive_seed, device
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.task import Task
from tans_core.zoo.weights import load_tensors, save_tensors

FILE = "anchors.safetensors"


class FixedImages(Protocol):
    """Fixed images that all networks are run on."""

    def __len__(self) -> int: ...

    def images(self, preprocess: Preprocess) -> Tensor:
        """Return the P images, preprocessed for a network: (P, 3, S, S) float32."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that determines the images, for a file or a digest."""
        ...


class Pictures:
    """Images of tasks, each with the statistics of its task."""

    def __init__(self, pixels: SquareImages, mean: Tensor, std: Tensor) -> None:
        """Store P images, and the (P, 3) float32 means and deviations of their tasks."""
        self._pixels, self._mean, self._std = pixels, mean, std
        self._scaled: dict[tuple[int, str, float], Tensor] = {}

    def __len__(self) -> int:
        return len(self._pixels)

    def images(self, preprocess: Preprocess) -> Tensor:
        if preprocess.form not in self._scaled:
            self._scaled[preprocess.form] = torch.from_numpy(self._pixels.at(*preprocess.form))
        pixels = self._scaled[preprocess.form]
        if preprocess.statistics == "own":
            return normalise(pixels, preprocess.mean, preprocess.std)
        pairs = zip(pixels.split(1), self._mean.tolist(), self._std.tolist(), strict=True)
        return torch.cat([normalise(pixel, mean, std) for pixel, mean, std in pairs])

    def tensors(self) -> dict[str, Tensor]:
        sides = torch.from_numpy(self._pixels.sides)
        return {"pixels": torch.from_numpy(self._pixels.data), "sides": sides, "mean": self._mean, "std": self._std}


class Noise:
    """Gaussian noise, as in TANS."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed

    def __len__(self) -> int:
        return self._count

    def images(self, preprocess: Preprocess) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "noise"))
        return torch.randn(self._count, 3, preprocess.image_size_px, preprocess.image_size_px, generator=generator)

    def tensors(self) -> dict[str, Tensor]:
        return {"noise": torch.tensor([self._count, self._seed])}


class Anchors:
    """Embeds networks by their penultimate features (P, D) of the same images, at each network's own input size.

    Two parts are concatenated. Both have a fixed size for any D:

    - projected: all P x D features through a random matrix with a stored seed, which preserves distances; networks of
      one width are compared channel by channel;
    - Gram: the upper triangle of the P x P matrix of cosines between centred features, through another such matrix if
      it is longer than `dim`; it compares networks of any width, and is invariant to permuting or rotating channels.

    BatchNorm takes its statistics from the images, as it will on a new task.

    Attributes:
        inputs: the P images.
        dim: width of each part.
        seed: of the random matrices.
    """

    def __init__(self, inputs: FixedImages, dim: int, seed: int) -> None:
        self.inputs, self.dim, self.seed = inputs, dim, seed
        self._matrices: dict[str, Tensor] = {}

    @classmethod
    def of_tasks(cls, tasks: Iterable[Task], images_per_task: int, dim: int, seed: int) -> Anchors:
        """Take the training images with the smallest hashes from each task, independent of file order and names.

        Raises:
            TooFewImagesError: a task has too few training images.
        """
        pixels: list[npt.NDArray[np.uint8]] = []
        means, stds = [], []
        for task in tasks:
            members, digests = task.where("train").tolist(), task.images.digests
            if len(members) < images_per_task:
                raise TooFewImagesError(
                    f"task {task.info.name!r}: got {len(members)} training images, want {images_per_task} as anchors. "
                    "Lower embed.anchors_per_task, or add images."
                )
            first = sorted(members, key=digests.__getitem__)[:images_per_task]
            pixels += [task.images[index] for index in first]
            means += [task.info.mean] * images_per_task
            stds += [task.info.std] * images_per_task
        return cls(Pictures(SquareImages.of(pixels), torch.tensor(means), torch.tensor(stds)), dim, seed)

    @classmethod
    def of_noise(cls, count: int, dim: int, seed: int) -> Anchors:
        """Use Gaussian noise."""
        return cls(Noise(count, seed), dim, seed)

    @classmethod
    def load(cls, folder: Path) -> Anchors:
        """Read anchors that are images of tasks, from `save`.

        Raises:
            StoreError: the file is missing, or has other contents.
            WeightsError: the file is damaged.
        """
        path = folder / FILE
        tensors = load_tensors(path) if path.is_file() else {}
        wanted = {"pixels", "sides", "mean", "std", "dim", "seed"}
        if tensors.keys() != wanted:
            fault = f"got {sorted(tensors)}, want {', '.join(sorted(wanted))}" if tensors else "no such file"
            raise StoreError(f"{path}: {fault}. Run `tans build`, then `tans publish`.")
        pixels = SquareImages(tensors["pixels"].numpy(), tensors["sides"].numpy())
        return cls(Pictures(pixels, tensors["mean"], tensors["std"]), int(tensors["dim"]), int(tensors["seed"]))

    def save(self, folder: Path) -> None:
        """Write the images and settings. Embeddings by other anchors are not comparable with these."""
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(self._tensors(), folder / FILE)

    def digest(self) -> str:
        """Return a SHA-256 of everything that determines the result of `embed`."""
        parts = [name.encode() + value.numpy().tobytes() for name, value in sorted(self._tensors().items())]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        settings = {"dim": torch.tensor(self.dim), "seed": torch.tensor(self.seed)}
        return {**self.inputs.tensors(), **settings}

    @torch.no_grad()
    def embed(self, network: Network, preprocess: Preprocess) -> npt.NDArray[np.float32]:
        """Return the (E,) float32 embedding of a network, computed on the best device; the network does not change.

        Args:
            network: of any family.
            preprocess: of its card.

        Raises:
            WeightsError: a feature is NaN or infinite.
        """
        original_device = next(network.parameters()).device
        # No TF32, the default for convolutions on a GPU: embeddings from different machines are compared.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            try:
                features = features_of(network.to(device()), self.inputs.images(preprocess))
            finally:
                network.to(original_device)
        outputs = torch.from_numpy(features).float()
        projected = self._through(outputs.flatten(), "projection")
        centred = torch.nn.functional.normalize(outputs - outputs.mean(dim=0), dim=1)  # (P, D)
        rows, columns = torch.triu_indices(len(outputs), len(outputs), offset=1)
        gram = (centred @ centred.T)[rows, columns]  # (P (P - 1) / 2,)
        if len(gram) > self.dim:
            gram = self._through(gram, "gram")
        return torch.cat([projected, gram]).numpy()

    def _through(self, values: Tensor, name: str) -> Tensor:
        """Return (dim,) from values of any length."""
        key = f"{name} {len(values)}"
        if key not in self._matrices:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, name, len(values)))
            self._matrices[key] = torch.randn(len(values), self.dim, generator=generator) / self.dim**0.5
        return values @ self._matrices[key]


def functional_dim(images: int, dim: int) -> int:
    """Return E, the size of a functional embedding."""
    return dim + min(dim, images * (images - 1) // 2)
