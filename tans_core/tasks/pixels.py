"""Square RGB images, each kept at its own size, and returned at any size.

Axes: N images; in pixels: s = an image's own side, S = the requested side; 3 channels (RGB).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
INTERPOLATIONS = {name: Image.Resampling[name.upper()] for name in _FILTERS}
"""Pillow's filters by name; all but `nearest` average when an image is reduced."""


class SquareImages(Sequence[Pixels]):
    """N images of different sides, in one array. An item is (3, s, s) uint8."""

    def __init__(self, data: Pixels, sides: npt.NDArray[np.int32]) -> None:
        """Hold images.

        Args:
            data: (sum of 3 s^2,) uint8, one image after the other.
            sides: (N,) int32.
        """
        if 3 * int((sides.astype(np.int64) ** 2).sum()) != len(data):
            raise ValueError(f"{len(data)} bytes of pixels do not make {len(sides)} images of these sides")
        self.data, self.sides = data, sides
        self._starts = np.concatenate([[0], np.cumsum(3 * sides.astype(np.int64) ** 2)])

    @classmethod
    def of(cls, images: Iterable[Pixels]) -> SquareImages:
        """Hold images (3, s, s) uint8; an array (N, 3, S, S) is taken as it is, without a copy."""
        if isinstance(images, np.ndarray):
            whole = np.ascontiguousarray(images)
            return cls(whole.reshape(-1), np.full(len(whole), whole.shape[-1], dtype=np.int32))
        each = [np.ascontiguousarray(image) for image in images]
        for image in each:
            if image.shape != (3, image.shape[-1], image.shape[-1]):
                raise ValueError(f"image of {image.shape}: want (3, s, s)")
        data = np.concatenate([image.reshape(-1) for image in each]) if each else np.empty(0, dtype=np.uint8)
        return cls(data, np.array([image.shape[-1] for image in each], dtype=np.int32))

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: int) -> Pixels:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        number = index % len(self)
        side = int(self.sides[number])
        return self.data[self._starts[number] : self._starts[number + 1]].reshape(3, side, side)

    def take(self, indices: Iterable[int]) -> SquareImages:
        """Return some of the images, in the order of `indices`."""
        return SquareImages.of([self[int(index)] for index in indices])

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """A hash of each image's pixels; it does not depend on order, name or file format."""
        return tuple(hashlib.sha256(self[index].tobytes()).digest() for index in range(len(self)))

    def knowing(self, digests: Iterable[bytes]) -> SquareImages:
        """Take over the images' digests from whoever computed them, and return these images."""
        self.__dict__["digests"] = tuple(digests)
        return self

    def at(
        self,
        size_px: int,
        interpolation: str = "bicubic",
        crop: float = 1.0,
        indices: npt.NDArray[np.int64] | Sequence[int] | None = None,
    ) -> Pixels:
        """Return images at another size.

        Args:
            size_px: S.
            interpolation: a key of `INTERPOLATIONS`.
            crop: share of the side, above 0 and at most 1, that is kept around the centre before scaling.
            indices: which images, in this order; None for all.

        Returns:
            (n, 3, S, S) uint8. If all images have this size and are requested whole, it shares their memory.
        """
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        if indices is None and crop == 1.0 and bool((self.sides == size_px).all()):
            return self.data.reshape(len(self), 3, size_px, size_px)
        images = np.empty((len(chosen), 3, size_px, size_px), dtype=np.uint8)
        for position, index in enumerate(chosen.tolist()):
            images[position] = _scaled(self[index], size_px, INTERPOLATIONS[interpolation], crop)
        return images

    def __reduce__(self) -> tuple[Callable[..., SquareImages], tuple[Pixels, npt.NDArray[np.int32]]]:
        # `digests` is left out: the receiving process computes it again.
        return SquareImages, (self.data, self.sides)


def _scaled(image: Pixels, size_px: int, resampling: Image.Resampling, crop: float) -> Pixels:
    side = image.shape[-1]
    if side == size_px and crop == 1.0:
        return image
    margin = side * (1 - crop) / 2
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    scaled = picture.resize((size_px, size_px), resampling, box=(margin, margin, side - margin, side - margin))
    return np.asarray(scaled).transpose(2, 0, 1)
