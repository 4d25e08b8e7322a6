"""Image files like those on people's disks, good and bad, made on the fly."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from tans_core.tasks.pixels import SquareImages

ORIENTATION = 0x0112


def noise(width: int = 40, height: int = 30, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return (height, width, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def equal_images(one: SquareImages, other: SquareImages) -> bool:
    """Return whether two sets have the same pixels, image by image."""
    return np.array_equal(one.sides, other.sides) and np.array_equal(one.data, other.data)


def encoded(pixels: npt.NDArray[Any], file_format: str = "PNG", **options: Any) -> bytes:
    """Encode an array; its dtype and shape choose the mode."""
    return encoded_image(Image.fromarray(pixels), file_format, **options)


def tiff(pixels: npt.NDArray[Any], photometric: str = "minisblack", **options: Any) -> bytes:
    """Encode an array of any integer or floating type as TIFF; Pillow writes only some of them."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric=photometric, **options)
    return buffer.getvalue()


def pfm(pixels: npt.NDArray[np.float32]) -> bytes:
    """Encode (H, W) floats as portable float map: rows from the lowest, little-endian."""
    height, width = pixels.shape
    return f"Pf\n{width} {height}\n-1.0\n".encode() + pixels[::-1].astype("<f4").tobytes()


def encoded_image(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def rotated_photo() -> bytes:
    """A JPEG stored 40 x 20, its left half red, whose EXIF says that the camera was turned: upright, the top is red."""
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, :20, 0] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encoded(pixels, "JPEG", exif=exif, quality=95)


def cmyk_jpeg(colour: tuple[int, int, int, int], adobe: bool, **options: Any) -> bytes:
    """A CMYK JPEG of one colour (0 = no ink), inverted and marked as Adobe does, or neither."""
    image = Image.new("CMYK", (16, 16), colour)
    if adobe:
        return encoded_image(image, "JPEG", quality=95, **options)
    inverted = Image.new("CMYK", (16, 16), tuple(255 - ink for ink in colour))
    plain = encoded_image(inverted, "JPEG", quality=95, **options)
    start = plain.index(b"\xff\xee")
    length = int.from_bytes(plain[start + 2 : start + 4], "big")
    return plain[:start] + plain[start + 2 + length :]


def ycck_jpeg(planes: tuple[int, int, int, int]) -> bytes:
    """An Adobe JPEG whose four stored planes are declared to be Y, Cb, Cr and K."""
    stored = encoded_image(Image.new("CMYK", (16, 16), tuple(255 - value for value in planes)), "JPEG", quality=95)
    transform = stored.index(b"\xff\xee") + 4 + len("Adobe") + 6
    return stored[:transform] + b"\x02" + stored[transform + 1 :]


def bomb() -> bytes:
    """A small PNG of 100 megapixels."""
    return encoded_image(Image.new("1", (10_000, 10_000)), "PNG")


def write_class_folders(root: Path, classes: dict[str, int], seed: int = 0, side: int = 24) -> Path:
    """Write `root/<class>/<number>.png`, each image different, each class of its own mean colour."""
    for index, (label, count) in enumerate(classes.items()):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng((seed, index))
        for number in range(count):
            pixels = rng.integers(0, 60, (side, side, 3)) + 190 * (index % 3 == np.arange(3))
            (folder / f"{number}.png").write_bytes(encoded(pixels.astype(np.uint8)))
    return root
