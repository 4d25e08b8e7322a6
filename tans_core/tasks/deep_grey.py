"""Grey images of more than 8 bits, or signed, as 8 bits: scaled by their range; Pillow's `convert` clips or wraps.

Axes: H, W = height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from tans_core.tasks.strips import strips

_BITS_TAG, _PHOTOMETRIC_TAG, _KIND_TAG = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2
_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
# Share of the range: values less far below zero are taken for overshoot of a filter.
_SLIGHT = 0.05
_MOST_MISSING = 0.5


class NoPixelValueError(ValueError):
    """Most pixels have no finite value."""


def is_deep_grey(image: Image.Image, original: Image.Image) -> bool:
    """Return whether an image needs `from_deep_grey`; `original` is the file that it came from."""
    return image.mode in _MODES or (image.mode == "L" and _type(original) == (8, _SIGNED))


def from_deep_grey(image: Image.Image, original: Image.Image) -> tuple[Image.Image, str | None]:
    """Return 8-bit RGB, and a note if pixels have no value.

    Raises:
        NoPixelValueError: most values are not finite.
    """
    bits, kind = _type(original)
    if image.mode.startswith("I;16") or (original.format == "PPM" and image.mode != "F"):
        # A TIFF may use 12 of 16 bits; other formats are read at their full range.
        least, low, high = 0.0, 0.0, 2.0 ** (bits or 16) - 1
    else:
        least, low, high = _range(image, original, 2.0 ** (bits - 1) - 1 if kind == _SIGNED and bits < 32 else None)
    # Pillow itself inverts images of 8 bits.
    inverted = bits > 8 and getattr(original, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO
    # The one value that a PNG marks as transparent.
    key = image.info.get("transparency")
    whole, missing = Image.new("RGB", image.size), 0
    for top, values in _values(image, original):
        part = values.astype(np.float64)
        no_value = ~np.isfinite(part)
        missing += int(no_value.sum())
        part[no_value] = least
        grey = np.clip((part - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
        grey = 255 - grey if inverted else grey
        if isinstance(key, int):
            grey[values == key] = 255
        whole.paste(Image.fromarray(grey), (0, top))
    share = missing / (image.width * image.height)
    if share > _MOST_MISSING:
        raise NoPixelValueError(f"{share:.0%} of its pixels have no value (NaN or infinite)")
    note = f"{share:.1%} of its pixels have no value (NaN or infinite), taken as the darkest"
    return whole, note if missing else None


def _type(original: Image.Image) -> tuple[int, int]:
    """Return a TIFF's bits a sample and kind of number; (0, unsigned) for other formats."""
    tags = getattr(original, "tag_v2", {})
    return tags.get(_BITS_TAG, (0,))[0], tags.get(_KIND_TAG, (_UNSIGNED,))[0]


def _range(image: Image.Image, original: Image.Image, most_of_type: float | None) -> tuple[float, float, float]:
    """Return the least finite value, and the values that become black and white.

    32-bit files rarely use their whole range: the smallest common range that holds nearly all values is taken; values a
    little beyond it are clipped. If none does, the largest value is white. If values are negative, zero is mid-grey.
    """
    least, most, stride = math.inf, -math.inf, max(1, image.width * image.height // 2**20)
    samples: list[npt.NDArray[np.float64]] = []
    whole = False
    for _, values in _values(image, original):
        whole = np.issubdtype(values.dtype, np.integer)
        part = values.astype(np.float64).ravel()
        part = part[np.isfinite(part)]
        if part.size:
            least, most = min(least, float(part.min())), max(most, float(part.max()))
            samples.append(part[::stride].copy())  # a view would keep all of it in memory
    if not samples:
        raise NoPixelValueError("no finite pixel value")
    sample = np.concatenate(samples)
    signed = float(np.quantile(sample, 0.01)) < -_SLIGHT * most
    if most_of_type is not None:
        return least, -most_of_type - 1 if signed else 0.0, most_of_type
    most, nearly = max(most, -least), float(np.quantile(np.abs(sample), 0.99))
    limits = (
        ((128.0, 32768.0) if whole else (1.0,)) if signed else ((255.0, 65535.0) if whole else (1.0, 255.0, 65535.0))
    )
    top = next((limit for limit in limits if most <= limit or (nearly <= limit and most <= 2 * limit)), most) or 1.0
    return least, -top if signed else 0.0, top


def _values(image: Image.Image, original: Image.Image) -> Iterator[tuple[int, npt.NDArray[np.generic]]]:
    """Yield strips of rows: the number of the first row, and the values."""
    bits, kind = _type(original)
    for top, strip in strips(image):
        values = np.asarray(strip)
        # Pillow reads int8 as uint8, and int16 and uint32 as int32.
        if (bits, kind) == (8, _SIGNED):
            values = values.view(np.int8)
        elif (bits, kind) == (32, _UNSIGNED) and values.dtype == np.int32:
            values = values.view(np.uint32)
        yield top, values
