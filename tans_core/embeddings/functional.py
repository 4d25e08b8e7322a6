"""The functional embedding: what a network answers to fixed images, as a vector of fixed size.

TANS feeds one noise image and keeps the answer itself, which needs every network to have the same width. Here the images are
anchors, a few of each meta-train task.

Axes: P images, S their side in pixels, D feature width, E = `functional_dim(P, dim)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tans_core.embeddings.probe import probe_features
from tans_core.errors import StoreError, TooFewImagesError
from tans_core.networks.preprocess import normalise
from tans_core.runtime import derive_seed, device
from tans_core.tasks.task import Task
from tans_core.zoo.weights import load_tensors, save_tensors

FILE = "anchors.safetensors"


class Anchors:
    """Embeds networks by their penultimate answers (P, D) to the same images, all in one batch.

    Two forms, concatenated. Both have a fixed size whatever D is:

    - projected: all P x D answers through a random matrix of a stored seed (it keeps distances); networks of one width are
      compared channel by channel;
    - Gram: the upper triangle of the P x P matrix of cosines between centred answers, through another such matrix where it is
      longer than `dim`; it compares networks of any width and does not change when channels are permuted or rotated.

    BatchNorm takes its statistics from the images, as it will take them from those of a new task.

    Attributes:
        images: (P, 3, S, S) float32, normalised.
        dim: width of a form.
        seed: of the random matrices.
    """

    def __init__(self, images: Tensor, dim: int, seed: int) -> None:
        self.images, self.dim, self.seed = images, dim, seed
        self._matrices: dict[str, Tensor] = {}

    @classmethod
    def of_tasks(cls, tasks: Iterable[Task], images_per_task: int, dim: int, seed: int) -> Anchors:
        """Take training images of each task: those of the smallest hashes, so that neither order nor names of files matter.

        Raises:
            TooFewImagesError: a task has fewer.
        """
        chosen = []
        for task in tasks:
            images, _ = task.split("train")
            if len(images) < images_per_task:
                raise TooFewImagesError(
                    f"task {task.info.name!r}: got {len(images)} training images, want {images_per_task} as anchors. "
                    "Lower embed.anchors_per_task, or add images."
                )
            first = sorted(range(len(images)), key=lambda i, x=images: hashlib.sha256(x[i].tobytes()).digest())  # type: ignore[misc]
            pixels = torch.from_numpy(images[first[:images_per_task]])
            chosen.append(normalise(pixels, task.info.mean, task.info.std))
        return cls(torch.cat(chosen), dim, seed)

    @classmethod
    def of_noise(cls, count: int, dim: int, seed: int, image_size_px: int) -> Anchors:
        """Draw Gaussian noise, which TANS asks networks about; there, BatchNorm keeps its stored statistics."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
        return cls(torch.randn(count, 3, image_size_px, image_size_px, generator=generator), dim, seed)

    @classmethod
    def load(cls, folder: Path) -> Anchors:
        """Read what `save` wrote.

        Raises:
            StoreError: it is missing, or not what `save` writes.
            WeightsError: it is damaged.
        """
        path = folder / FILE
        found = load_tensors(path) if path.is_file() else {}
        if found.keys() != {"images", "dim", "seed"}:
            what = f"got {sorted(found)}, want images, dim, seed" if found else "no such file"
            raise StoreError(f"{path}: {what}. Run `dvc repro`, then `tans publish`.")
        return cls(found["images"], int(found["dim"]), int(found["seed"]))

    def save(self, folder: Path) -> None:
        """Write the images and how they are used: embeddings by others cannot be compared with these."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"dim": torch.tensor(self.dim), "seed": torch.tensor(self.seed)}
        save_tensors({"images": self.images, **settings}, folder / FILE)

    @torch.no_grad()
    def embed(self, network: nn.Module) -> npt.NDArray[np.float32]:
        """Return the (E,) float32 embedding of a network, from the best device; the network stays where and as it was.

        Raises:
            WeightsError: the network answers with NaN or infinity.
        """
        place = next(network.parameters()).device
        # Without TF32, the default of convolutions on a GPU: what is compared may have been embedded on another machine.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            features = probe_features(network.to(device()), self.images, batch_size=len(self.images))
        network.to(place)
        answers = torch.from_numpy(features).float()
        projected = self._through(answers.flatten(), "projection")
        centred = torch.nn.functional.normalize(answers - answers.mean(dim=0), dim=1)  # (P, D)
        rows, columns = torch.triu_indices(len(answers), len(answers), offset=1)
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
    """E, the size of a functional embedding."""
    return dim + min(dim, images * (images - 1) // 2)
