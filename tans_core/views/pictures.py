"""Pictures and names on pages. Axes: s = an image's own side in pixels."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from tans_core.text import shown


def thumbnail(image: npt.NDArray[np.uint8], most_px: int) -> bytes:
    """Return an image (3, s, s) as PNG, no larger than `most_px`."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    if picture.width > most_px:
        picture = picture.resize((most_px, most_px), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def short_name(text: str, limit: int = 80) -> str:
    """Return a name, without its middle if it is long."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-limit // 2 :]}"
    return shown(text)
