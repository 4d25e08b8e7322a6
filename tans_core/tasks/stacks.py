"""Images brought to their stored size, small ones of one size together: alone, they take half as long again.

Axes: n images of one size; in pixels: H, W = their sides, s = the side that they get; 3 channels (RGB).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from tans_core.tasks.decode import extremes, fit, kept_box
from tans_core.tasks.pixels import Pixels

SMALL_PIXELS = 2**16
"""Images up to this size are stacked; a larger one is alone in memory."""

_STACK_BYTES = 2**20
# Spread of values: sensor noise stays below it; a star in a dark picture does not.
_STANDS_OUT = 32
# From this ratio of the sides on, Pillow takes means of squares first.
_REDUCES = 4


def fit_each(images: Iterable[Image.Image | Pixels], size_px: int) -> Iterator[tuple[Pixels, npt.NDArray[np.bool_]]]:
    """Bring RGB images of Pillow, or small ones as (H, W, 3), to their stored size as `decode.fit` does.

    Yields:
        (n, s, s, 3) uint8 and (n,): some of the images, in order, and whether anything stands out in them.
    """
    stack: list[Pixels] = []
    for image in images:
        full = len(stack) * (stack[0].size if stack else 0) >= _STACK_BYTES
        if stack and (full or isinstance(image, Image.Image) or image.shape != stack[0].shape):
            yield _fit_stack(np.stack(stack), size_px)
            stack = []
        if isinstance(image, Image.Image):
            square = fit(image, size_px)
            yield np.asarray(square)[None], np.array([_stands_out(square) or _stands_out(image)])
        else:
            stack.append(image)
        # Free the memory before the next image is decoded.
        del image
    if stack:
        yield _fit_stack(np.stack(stack), size_px)


def resized(
    images: Pixels, size_px: int, kernel: Image.Resampling, box: tuple[float, float, float, float] | None = None
) -> Pixels:
    """Resize (n, H, W, 3) to (n, s, s, 3) as Pillow does: across, then down, both rounded to whole values."""
    count, height, width, _ = images.shape
    left, top, right, bottom = box or (0, 0, width, height)
    # One above the other, then side by side: no image touches another in the direction that is resized.
    tall = Image.fromarray(images.reshape(count * height, width, 3))
    across = np.asarray(tall.resize((size_px, count * height), kernel, (left, 0, right, count * height)))
    across = across.reshape(count, height, size_px, 3).swapaxes(0, 1)
    wide = Image.fromarray(across.reshape(height, count * size_px, 3))
    down = np.asarray(wide.resize((count * size_px, size_px), kernel, (0, top, count * size_px, bottom)))
    return down.reshape(size_px, count, size_px, 3).swapaxes(0, 1)


def _fit_stack(images: Pixels, size_px: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    # Some of the green values show it for most images.
    shows = np.ptp(images[:, ::8, ::8, 1].reshape(len(images), -1), axis=1) >= _STANDS_OUT
    for number in np.flatnonzero(~shows).tolist():
        shows[number] = _stands_out(Image.fromarray(images[number]))
    height, width = images.shape[1:3]
    left, top, crop_w, crop_h, side = kept_box(width, height, size_px)
    # Pillow resizes some upright pictures down first.
    if crop_w != crop_h or crop_w >= _REDUCES * side or height > width > side:
        return np.stack([np.asarray(fit(Image.fromarray(image), size_px)) for image in images]), shows
    if crop_w % side or not (left.is_integer() and top.is_integer()):
        return resized(images, side, Image.Resampling.HAMMING, (left, top, left + crop_w, top + crop_h)), shows
    cut = images[:, int(top) : int(top) + crop_h, int(left) : int(left) + crop_w]
    if crop_w > side:
        tall = Image.fromarray(cut.reshape(-1, crop_w, 3)).reduce(crop_w // side)
        cut = np.asarray(tall).reshape(-1, side, side, 3)
    return cut, shows


def _stands_out(image: Image.Image) -> bool:
    return any(most - least >= _STANDS_OUT for least, most in extremes(image))
