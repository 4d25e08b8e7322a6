"""The one decoder: every image of every task passes through it, so training and serving see the same pixels.

Axes: H, W = height and width of the original in pixels; S = largest side that is kept, in pixels.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from tans_core.tasks.colours import in_srgb
from tans_core.tasks.deep_grey import NoPixelValueError, from_deep_grey, is_deep_grey
from tans_core.tasks.headers import MAX_SCANS, count_scans, icon_sides, is_preview, named, scale_key
from tans_core.tasks.jpeg import decode_jpeg
from tans_core.tasks.strips import strips

MAX_PIXELS = 64_000_000
"""An image above this is refused before it is decoded: 48 kB of PNG can hold 400 megapixels."""

LARGE_PIXELS = 30_000_000
"""Images above this are decoded one at a time, by whichever worker: one may take 500 MB of memory."""

CROP_ASPECT = 1.5
"""Up to this ratio of the sides (3:2 photographs) an image is centre-cropped to a square."""

MAX_ASPECT = 3.0
"""Above this ratio the ends of the long side are cut off before the rest is padded to a square."""

# Detected from the content; the name is ignored. No EPS: reading it starts Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF", "TGA", "PCX")

# Formats that share their suffixes.
_FAMILY = {"DIB": "BMP", "MPO": "JPEG"}
_ORIENTATION = 274
# ICC profiles of grey images are ignored: their curves are close to that of sRGB.
_GREY = ("1", "L", "LA", "La")
# Difference in grey levels from which a drawing is visible on its background.
_SHOWS = 12
# Keys of `Image.info` that may hold an orientation.
_ORIENTED = frozenset(("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"))

# `MAX_PIXELS` is lower than the size at which Pillow starts to warn.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Only the orientation is used; if it cannot be read, the pixels stay as they are.
warnings.filterwarnings("ignore", message="Corrupt EXIF data")
# An icon's content is used, not the sizes in its directory.
warnings.filterwarnings("ignore", message="Image was not the expected size")

_turn: contextlib.AbstractContextManager[object] = threading.RLock()


class UnreadableImageError(Exception):
    """An image cannot be used; the message is the reason, for a report. Always caught within `tans_core.tasks`.

    Attributes:
        format: of the first bytes of the content, such as "JPEG"; None if it is no image.
    """

    def __init__(self, reason: str, file_format: str | None = None) -> None:
        super().__init__(reason)
        self.format = file_format


@dataclass(frozen=True)
class Decoded:
    """One decoded image.

    Attributes:
        image: RGB in sRGB, upright; transparency composited on white, or on black if nothing shows on white.
        width, height: of the upright original, in pixels.
        format: of the content, such as "JPEG".
        note: changes of values or colours, for a report; None if there are none.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    note: str | None = None

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8."""
        return np.array(self.image)


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image file completely: first frame, upright, 8-bit RGB.

    JPEG is not decoded at a reduced scale: it would be faster, but give other pixels than the same image as PNG.

    Args:
        data: the file's content.
        max_pixels: images of more pixels are refused before their pixels are read.

    Raises:
        UnreadableImageError: empty, no image, truncated, too large, or broken in any other way.
    """
    if not data:
        raise UnreadableImageError("empty file")
    file_format = None
    try:
        icon = icon_sides(data)
        _check_sides(icon, max_pixels, "ICO")
        with _taking_turns(icon), Image.open(io.BytesIO(data), formats=_known_formats()) as image:
            file_format = image.format or "unknown"
            _check_sides(image.size, max_pixels, file_format)
            if is_preview(getattr(image, "tag_v2", None)):
                raise UnreadableImageError(
                    f"a preview of {image.width}x{image.height} pixels before the full picture, as in a camera's raw "
                    "file: export the picture as JPEG or TIFF",
                    file_format,
                )
            if file_format in ("JPEG", "MPO") and (scans := count_scans(data)) > MAX_SCANS:
                raise UnreadableImageError(f"{scans:,} scans, more than {MAX_SCANS}: save it anew", file_format)
            with _taking_turns(image.size):
                return _loaded(image, data, file_format)
    except UnreadableImageError:
        raise
    except NoPixelValueError as error:
        raise UnreadableImageError(str(error), file_format) from None
    except UnidentifiedImageError:
        raise UnreadableImageError(named(data)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImageError(f"more than {max_pixels:,} pixels", file_format or _begins_as(data)) from None
    # Parsers of broken files raise any error (struct.error, IndexError, SyntaxError, ...).
    except Exception as error:
        raise UnreadableImageError(f"{type(error).__name__}: {error}"[:200], file_format) from None


def take_turns_by(lock: contextlib.AbstractContextManager[object]) -> None:
    """Set the lock under which large images are decoded one at a time: re-entrant, and shared by the processes."""
    global _turn
    _turn = lock


def claims_another_format(name: str, file_format: str) -> bool:
    """Return whether a file's suffix is of another format than its content; False for no or an unknown suffix."""
    claimed = _suffixes().get(os.path.splitext(name)[1].lower())  # noqa: PTH122  for many names, and they are no paths
    return claimed is not None and _FAMILY.get(claimed, claimed) != _FAMILY.get(file_format, file_format)


def fit_box(pixels: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """Make an image square, and no larger than the stored size; it is neither distorted nor enlarged.

    Args:
        pixels: (H, W) grey or (H, W, 3) RGB, uint8.
        size_px: S, the largest side.

    Returns:
        (3, s, s) uint8 with s at most S. Up to `CROP_ASPECT` images are centre-cropped to a square; longer ones are
        cut to `MAX_ASPECT` and padded with the mean colour of their border.
    """
    return planes(fit(Image.fromarray(pixels).convert("RGB"), size_px))


def kept_box(width: int, height: int, size_px: int) -> tuple[float, float, int, int, int]:
    """Return left, top, width and height of what `fit` keeps of an image, and the side that this gets."""
    long, short = max(width, height), min(width, height)
    keep = short if long <= CROP_ASPECT * short else min(long, round(MAX_ASPECT * short))
    crop_w, crop_h = min(width, keep), min(height, keep)
    left, top = (width - crop_w) / 2, (height - crop_h) / 2
    if keep <= size_px:
        # Not enlarged: crop at whole pixels.
        size_px, left, top = keep, float(int(left)), float(int(top))
    return left, top, crop_w, crop_h, size_px


def fit(image: Image.Image, size_px: int) -> Image.Image:
    """Do as `fit_box`, for an RGB image of Pillow."""
    left, top, crop_w, crop_h, size_px = kept_box(*image.size, size_px)
    if crop_w == crop_h and crop_w % size_px == 0 and left.is_integer() and top.is_integer():
        # Each square of whole pixels becomes their mean: within one grey level of `resize`, in half the time.
        return image.reduce(crop_w // size_px, (int(left), int(top), int(left) + crop_w, int(top) + crop_h))
    scale = size_px / max(crop_w, crop_h)
    target = (max(1, round(crop_w * scale)), max(1, round(crop_h * scale)))
    # Hamming is nearly as good as Lanczos, in half the time and with less ringing.
    box = (left, top, left + crop_w, top + crop_h)
    resized = image.resize(target, Image.Resampling.HAMMING, box=box, reducing_gap=2.0)
    if target != (size_px, size_px):
        canvas = Image.new("RGB", (size_px, size_px), _border_colour(np.asarray(resized)))
        canvas.paste(resized, ((size_px - target[0]) // 2, (size_px - target[1]) // 2))
        resized = canvas
    return resized


def planes(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return a square RGB image of side s as (3, s, s) uint8."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


@functools.cache
def _suffixes() -> dict[str, str]:
    Image.init()
    return Image.EXTENSION


@functools.cache
def _known_formats() -> tuple[str, ...]:
    # `Image.open` fails on every file if a format in its list is missing from this build of Pillow.
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _begins_as(data: bytes) -> str | None:
    """Return the format of an image that Pillow refuses for its size before reporting the format."""
    accepts = {name: Image.OPEN[name][1] for name in _known_formats()}
    return next((name for name, accept in accepts.items() if accept is not None and accept(data[:16])), None)


def _border_colour(pixels: npt.NDArray[np.uint8]) -> tuple[int, int, int]:
    rows = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in rows.mean(axis=0).round())
    return red, green, blue


def _check_sides(size: tuple[int, int], max_pixels: int, file_format: str) -> None:
    if math.prod(size) > max_pixels:
        raise UnreadableImageError(f"{size[0]}x{size[1]} pixels, more than {max_pixels:,}", file_format)


def _taking_turns(size: tuple[int, int]) -> contextlib.AbstractContextManager[object]:
    return _turn if math.prod(size) > LARGE_PIXELS else contextlib.nullcontext()


def _loaded(image: Image.Image, data: bytes, file_format: str) -> Decoded:
    """Read the pixels of an opened image; they outlive its file."""
    decoded = decode_jpeg(image, data)
    if decoded is None:
        # Only a full load finds a truncated JPEG: `verify()` passes it.
        image.load()
        scale_key(image, data)
        decoded = image
    width, height = decoded.size
    upright = _upright(decoded)
    if upright.size == image.size[::-1]:
        width, height = sorted((width, height), reverse=upright.width > upright.height)
    # The upright copy lacks the file's format and tags, so the original goes along.
    rgb, note = _to_rgb(upright, image)
    return Decoded(rgb, width, height, file_format, note)


def _upright(image: Image.Image) -> Image.Image:
    # Without metadata the search is skipped: it takes a third of the time of decoding a small image.
    if image.format != "TIFF" and _ORIENTED.isdisjoint(image.info):
        return image
    try:
        # `exif_transpose` copies even an upright image.
        return image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    # Broken EXIF data: keep the pixels as they are.
    except Exception:
        return image


def _to_rgb(image: Image.Image, original: Image.Image) -> tuple[Image.Image, str | None]:
    """Return the image in sRGB, and a note of the changes."""
    profile = None if image.mode in _GREY else image.info.get("icc_profile")
    if is_deep_grey(image, original):
        return from_deep_grey(image, original)
    if image.mode == "CMYK":
        upright = _true_cmyk(image, original.format)
        rgb, note = in_srgb(upright, profile)
        return rgb.convert("RGB"), note
    if image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info:
        return in_srgb(_opaque(image), profile)
    return in_srgb(image if image.mode == "RGB" else image.convert("RGB"), profile)


def _opaque(image: Image.Image) -> Image.Image:
    """Composite on white, or on black if nothing shows on white, as of white icons."""
    grey = 0 if not _shows(image, 255) and _shows(image, 0) else 255
    whole = Image.new("RGB", image.size)
    for top, strip in _composites(image, grey):
        whole.paste(strip, (0, top))
    return whole


def extremes(image: Image.Image) -> tuple[tuple[int, int], ...]:
    """Return the least and the most value of each channel."""
    return cast("tuple[tuple[int, int], ...]", image.getextrema())


def _shows(image: Image.Image, grey: int) -> bool:
    return any(
        abs(value - grey) > _SHOWS
        for _, strip in _composites(image, grey)
        for pair in extremes(strip)
        for value in pair
    )


def _composites(image: Image.Image, grey: int) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image on grey in strips: as a whole, it would take the memory of four copies."""
    for top, strip in strips(image):
        ground = Image.new("RGBA", strip.size, (grey, grey, grey, 255))
        yield top, Image.alpha_composite(ground, strip.convert("RGBA")).convert("RGB")


def _true_cmyk(image: Image.Image, file_format: str | None) -> Image.Image:
    # Adobe writes CMYK JPEGs inverted, with a marker. Pillow inverts all of them: undo those without the marker.
    if file_format in ("JPEG", "MPO") and "adobe" not in image.info:
        return ImageChops.invert(image)
    return image
