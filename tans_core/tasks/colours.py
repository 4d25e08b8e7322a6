"""Conversion of colours from an image's own ICC profile to sRGB, which networks are trained on."""

from __future__ import annotations

import functools
import io

from PIL import Image, ImageCms

_NAME_CHARS = 60
# Names of sRGB profiles; one under another name is converted, to the same colours.
_SRGB = ("srgb", "c2")


def in_srgb(image: Image.Image, profile: object) -> tuple[Image.Image, str | None]:
    """Return an RGB or CMYK image converted to sRGB by its ICC profile, and a note of it.

    If the profile is sRGB, broken, or for other colours, return the image as it is, and None.
    """
    conversion = _transform(profile, image.mode) if isinstance(profile, bytes) and profile else None
    if conversion is None:
        return image, None
    transform, name = conversion
    if image.mode == "RGB":
        transform.apply_in_place(image)  # a copy of a large photograph takes 250 MB
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
    # A broken profile is ignored.
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
