"""Sheets and strips of a task's images, for people.

Axes: N images, S = their size in pixels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_GAP_PX = 3
_LABEL_PX = 150
_INK, _PAPER = (40, 44, 52), (255, 255, 255)


def contact_sheet(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    class_names: Sequence[str],
    per_class: int = 12,
    scale: int = 1,
) -> Image.Image:
    """Draw one row a class: its name, then its first images.

    Args:
        images: (N, 3, S, S) uint8.
        labels: (N,) indices into `class_names`.
        class_names: K names.
        per_class: the most images in a row.
        scale: enlargement of each image, at least 1.
    """
    cell = images.shape[-1] * scale + _GAP_PX
    sheet = Image.new("RGB", (_LABEL_PX + per_class * cell, len(class_names) * cell), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = _label_font(min(12, max(9, cell // 2)))
    for row, name in enumerate(class_names):
        members = np.flatnonzero(labels == row)[:per_class]
        text = f"{name[:22]} ({int((labels == row).sum())})"
        pen.text((4, row * cell + cell // 2), text, fill=_INK, font=font, anchor="lm")
        for column, index in enumerate(members):
            sheet.paste(_picture(images[index], scale), (_LABEL_PX + column * cell, row * cell))
    return sheet


def sample_strip(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], count: int = 20, scale: int = 1
) -> Image.Image:
    """Draw one row of up to `count` images, the classes in turn.

    Args:
        images: (N, 3, S, S) uint8.
        labels: (N,) class indices.
    """
    queues = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    longest = max((len(queue) for queue in queues), default=0)
    turns = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    chosen = turns[:count]
    cell = images.shape[-1] * scale + _GAP_PX
    strip = Image.new("RGB", (max(len(chosen) * cell - _GAP_PX, 1), cell - _GAP_PX), _PAPER)
    for column, index in enumerate(chosen):
        strip.paste(_picture(images[index], scale), (column * cell, 0))
    return strip


def _picture(image: npt.NDArray[np.uint8], scale: int) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _label_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Pillow's own font has Latin letters only; class names may be Greek, Georgian, or arrows.
    spec = importlib.util.find_spec("matplotlib")
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size_px)
    return ImageFont.load_default(size_px)
