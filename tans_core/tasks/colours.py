"""Colours as a picture's own profile means them, brought to sRGB, which is what networks are trained on."""

from __future__ import annotations

import functools
import io

from PIL import Image, ImageCms

_NAME_CHARS = 60
# What profiles of sRGB call themselves; a profile of it under another name is converted, to the same colours.
_SRGB = ("srgb", "c2")


def in_srgb(image: Image.Image, profile: object) -> tuple[Image.Image, str | None]:
    """Return an RGB or CMYK image in sRGB by its ICC profile, and what was done.

    Where the profile is that of sRGB, broken, or for other colours, the image is returned as it is, and None.
    """
    made = _transform(profile, image.mode) if isinstance(profile, bytes) and profile else None
    if made is None:
        return image, None
    transform, name = made
    if image.mode == "RGB":
        transform.apply_in_place(image)  # a copy of a large photograph takes a quarter of a gigabyte
    else:
        image = transform.apply(image)
    return image, f"colours of the profile {name!r} brought to sRGB"


# A data set has few profiles, and reading one takes longer than a small image.
@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform, str] | None:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = " ".join((opened.profile.profile_description or "without a name").split())[:_NAME_CHARS]
        if opened.profile.xcolor_space.strip() != mode or name.lower().startswith(_SRGB):
            return None
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB"), name
    # A broken profile says nothing of the pixels.
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
