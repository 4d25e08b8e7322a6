"""A sheet of a task's images, for users.

Axes: N images of any sides, K classes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tans_core.tasks.pixels import SquareImages

_LEAST_PX, _MOST_PX = 32, 64
_GAP_PX = 3
_LABEL_PX = 150
_INK, _PAPER = (40, 44, 52), (255, 255, 255)


def contact_sheet(
    images: SquareImages, labels: npt.NDArray[np.int64], class_names: Sequence[str], per_class: int = 12
) -> Image.Image:
    """Draw one row a class: its name, then its first images, all scaled to the largest side, 32 to 64 pixels.

    Args:
        images: N of any sides.
        labels: (N,) indices into `class_names`.
        class_names: K names.
        per_class: the most images in a row.
    """
    side = min(max(int(images.sides.max(initial=0)), _LEAST_PX), _MOST_PX)
    cell = side + _GAP_PX
    sheet = Image.new("RGB", (_LABEL_PX + per_class * cell, len(class_names) * cell), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = _label_font(12)
    for row, name in enumerate(class_names):
        members = np.flatnonzero(labels == row)
        pen.text((4, row * cell + cell // 2), f"{name[:22]} ({len(members)})", fill=_INK, font=font, anchor="lm")
        for column, image in enumerate(images.at(side, indices=members[:per_class])):
            picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
            sheet.paste(picture, (_LABEL_PX + column * cell, row * cell))
    return sheet


def _label_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Pillow's own font has Latin letters only; class names may be in any script.
    spec = importlib.util.find_spec("matplotlib")
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size_px)
    return ImageFont.load_default(size_px)
