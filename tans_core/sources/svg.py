"""SVG drawings: rendered to pixels, and placed on a canvas with random variation.

Axes: H, W = height and width of a rendering in pixels; the canvas is `CANVAS_PX` square.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from tans_core.errors import DataError
from tans_core.sources.drawing import CANVAS_PX, Look, Mask, crop_to_ink

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SvgDrawing:
    """The body of an SVG document and its view box: left, top, width, height."""

    body: str
    box: tuple[float, float, float, float]


def rasterise(drawing: SvgDrawing, size_px: int) -> Pixels:
    """Render on a transparent background, the longer side `size_px`. Parts without a colour are black.

    Returns:
        (H, W, 4) uint8, RGBA.

    Raises:
        DataError: the SVG cannot be rendered.
    """
    import resvg_py

    left, top, width, height = drawing.box
    scale = size_px / max(width, height)
    document = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
        f'viewBox="{left} {top} {width} {height}">{drawing.body}</svg>'
    )
    try:
        png = resvg_py.svg_to_bytes(
            svg_string=document,
            width=max(1, round(width * scale)),
            height=max(1, round(height * scale)),
            skip_system_fonts=True,
        )
    except ValueError as error:
        raise DataError(f"SVG drawing: cannot be drawn: {error}.") from error
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGBA"))


def shape_of(pixels: Pixels) -> Mask:
    """Return a rendering's mask, cropped to its ink: (H, W) uint8, 255 = ink; an empty (0, 0) array if it is blank."""
    return crop_to_ink(pixels[:, :, 3])


def draw_picture(pixels: Pixels, look: Look, rng: np.random.Generator) -> Pixels:
    """Draw a coloured rendering once: placed, slanted, turned, on coloured paper, with shifted colours and noise.

    Args:
        pixels: (H, W, 4) uint8, RGBA.
        look: how much may vary; `clutter` and `hollow` are for shapes of one colour.
        rng: source of the variation.

    Returns:
        (CANVAS_PX, CANVAS_PX, 3) uint8.
    """
    spread = 110 if look.colour else 0
    paper = (
        rng.uniform(0, 55) + spread * rng.random(3) if look.inverted else rng.uniform(200, 255) - spread * rng.random(3)
    )
    fill = tuple(int(value) for value in paper)
    image = Image.fromarray(pixels)
    sheet = Image.new("RGB", image.size, fill)
    sheet.paste(image, mask=image.getchannel("A"))
    placed = sheet.transform(
        (CANVAS_PX, CANVAS_PX),
        Image.Transform.AFFINE,
        _inverse(image.size, look, rng),
        Image.Resampling.BICUBIC,
        fillcolor=fill,
    )
    soft = placed.filter(ImageFilter.GaussianBlur(rng.uniform(0, look.blur_px)))
    values = np.asarray(soft, dtype=np.float32)
    # Brightness and tint of the light vary.
    values = values * (rng.uniform(0.75, 1.15) + rng.uniform(-0.08, 0.08, 3)).astype(np.float32)
    if not look.colour:
        values = values.mean(axis=2, keepdims=True).repeat(3, axis=2)
    values = values + rng.normal(0, look.noise, (CANVAS_PX, CANVAS_PX, 1)).astype(np.float32)
    return np.clip(values, 0, 255).round().astype(np.uint8)


def _inverse(size_px: tuple[int, int], look: Look, rng: np.random.Generator) -> tuple[float, ...]:
    """Return the six coefficients of the affine map from canvas points to points of the rendering."""
    width, height = size_px
    scale = CANVAS_PX * rng.uniform(*look.fill) / max(width, height)
    angle = math.radians(rng.uniform(-look.turn_deg, look.turn_deg))
    slant = rng.uniform(-look.slant, look.slant)
    free = (CANVAS_PX - np.array([width, height]) * scale) / 2 * 0.8
    centre = CANVAS_PX / 2 + rng.uniform(-1, 1, 2) * free
    forward = scale * np.array([[math.cos(angle), -math.sin(angle) + slant], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(forward)
    offset = np.array([width / 2, height / 2]) - inverse @ centre
    return (*inverse[0], offset[0], *inverse[1], offset[1])
