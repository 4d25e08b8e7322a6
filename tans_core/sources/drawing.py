"""Turn the mask of a shape into a picture: placed, slanted, turned, with strokes, colours and noise.

Axes: H, W = height and width of a mask in pixels; the canvas is `CANVAS_PX` square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageFont

CANVAS_PX = 64
GLYPH_PX = 64

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """How much the pictures of one shape vary.

    Attributes:
        fill: smallest and largest share of the canvas that the longer side takes.
        turn_deg: largest turn to either side.
        slant: largest shear to either side, as a share of the height.
        colour: random colours instead of greys.
        noise: standard deviation of pixel noise, in grey levels.
        clutter: number of strokes drawn over and around the shape.
        blur_px: largest radius of a Gaussian blur.
        inverted: light ink on dark paper.
        hollow: share of shapes that are drawn as an outline.
    """

    fill: tuple[float, float]
    turn_deg: float
    slant: float
    colour: bool
    noise: float
    clutter: int
    blur_px: float
    inverted: bool = False
    hollow: float = 0.0


LOOKS = {
    "print": Look(fill=(0.6, 0.9), turn_deg=5, slant=0.1, colour=False, noise=6, clutter=0, blur_px=0.8),
    "poster": Look(fill=(0.55, 0.9), turn_deg=10, slant=0.2, colour=True, noise=8, clutter=0, blur_px=1.0),
    "night": Look(
        fill=(0.5, 0.9), turn_deg=12, slant=0.2, colour=True, noise=10, clutter=0, blur_px=1.2, inverted=True
    ),
    "street": Look(fill=(0.55, 0.9), turn_deg=12, slant=0.2, colour=True, noise=12, clutter=2, blur_px=1.2, hollow=0.1),
    "scrawl": Look(fill=(0.45, 0.9), turn_deg=20, slant=0.3, colour=False, noise=25, clutter=4, blur_px=1.6),
}


def glyph_mask(font: ImageFont.FreeTypeFont, text: str) -> Mask:
    """Return a glyph's mask, cropped to its ink: (H, W) uint8, 255 = ink; an empty (0, 0) array if it is blank."""
    mask, _ = font.getmask2(text, mode="L")
    width, height = mask.size
    if width == 0 or height == 0:
        return np.zeros((0, 0), dtype=np.uint8)
    return crop_to_ink(np.frombuffer(bytes(mask), dtype=np.uint8).reshape(height, width))


def embolden(mask: Mask, by_px: int, hollow: bool = False) -> Mask:
    """Grow a shape by `by_px` to every side; `hollow` keeps only the outline."""
    padded = np.pad(mask, by_px + 1)
    grown = np.asarray(Image.fromarray(padded).filter(ImageFilter.MaxFilter(2 * by_px + 1)))
    if not hollow:
        return crop_to_ink(grown)
    core = np.asarray(Image.fromarray(padded).filter(ImageFilter.MinFilter(3)))
    return crop_to_ink(np.where(grown > core, grown - core, 0).astype(np.uint8))


def crop_to_ink(mask: Mask) -> Mask:
    """Cut blank borders off; an empty (0, 0) array if all is blank."""
    rows, columns = np.flatnonzero(mask.max(axis=1) > 32), np.flatnonzero(mask.max(axis=0) > 32)
    if len(rows) == 0:
        return np.zeros((0, 0), dtype=np.uint8)
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw(mask: Mask, look: Look, rng: np.random.Generator, em_px: float | None = None) -> npt.NDArray[np.uint8]:
    """Draw a shape once.

    Args:
        mask: (H, W) uint8, 255 = ink, without blank borders.
        look: how much may vary.
        rng: source of the variation.
        em_px: the size that fills the canvas, so that a dot stays smaller than a letter; None takes the longer side.

    Returns:
        (CANVAS_PX, CANVAS_PX, 3) uint8.
    """
    placed = _place(mask, look, rng, em_px or max(mask.shape))
    placed = np.maximum(placed, _strokes(look.clutter, rng)) if look.clutter else placed
    radius = rng.uniform(0, look.blur_px)
    soft = Image.fromarray(placed).filter(ImageFilter.GaussianBlur(radius))
    ink = np.asarray(soft, dtype=np.float32)[:, :, None] / 255
    paper_rgb, ink_rgb = _colours(look, rng)
    picture = paper_rgb + ink * (ink_rgb - paper_rgb)
    if look.noise:
        picture = picture + rng.normal(0, look.noise, (CANVAS_PX, CANVAS_PX, 1)).astype(np.float32)
    return np.clip(picture, 0, 255).round().astype(np.uint8)


def _place(mask: Mask, look: Look, rng: np.random.Generator, em_px: float) -> Mask:
    height, width = mask.shape
    scale = CANVAS_PX * rng.uniform(*look.fill) / em_px
    # A shape longer than the em (a dash, an arrow) must fit, too.
    scale = min(scale, CANVAS_PX * 0.95 / max(height, width))
    angle = math.radians(rng.uniform(-look.turn_deg, look.turn_deg))
    slant = rng.uniform(-look.slant, look.slant)
    free_x, free_y = ((CANVAS_PX - side * scale) / 2 * 0.8 for side in (width, height))
    shift_x, shift_y = rng.uniform(-free_x, free_x), rng.uniform(-free_y, free_y)
    forward = scale * np.array(
        [[math.cos(angle), -math.sin(angle) + slant], [math.sin(angle), math.cos(angle)]], dtype=np.float64
    )
    inverse = np.linalg.inv(forward)
    centre = np.array([CANVAS_PX / 2 + shift_x, CANVAS_PX / 2 + shift_y])
    offset = np.array([width / 2, height / 2]) - inverse @ centre
    coefficients = (*inverse[0], offset[0], *inverse[1], offset[1])
    source = Image.fromarray(mask)
    placed = source.transform((CANVAS_PX, CANVAS_PX), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.asarray(placed)


def _strokes(count: int, rng: np.random.Generator) -> Mask:
    from PIL import ImageDraw

    layer = Image.new("L", (CANVAS_PX, CANVAS_PX), 0)
    pen = ImageDraw.Draw(layer)
    for _ in range(int(rng.integers(0, count + 1))):
        start = rng.uniform(0, CANVAS_PX, 2)
        end = start + rng.normal(0, CANVAS_PX * 0.3, 2)
        pen.line([*start, *end], fill=int(rng.integers(100, 220)), width=int(rng.integers(1, 4)))
    return np.asarray(layer)


def _colours(look: Look, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the colours of paper and ink, (3,) each, 0..255."""
    spread = 110 if look.colour else 0
    light = rng.uniform(200, 255) - spread * rng.random(3)
    dark = rng.uniform(0, 55) + spread * rng.random(3)
    paper, ink = (dark, light) if look.inverted else (light, dark)
    return paper.astype(np.float32), ink.astype(np.float32)
