"""Sources of images: `SOURCES` maps the names that params.yaml uses to sources."""

from __future__ import annotations

from tans_core.errors import ParamsError, did_you_mean
from tans_core.sources.arrays import AnimalMnist, Digits, Faces, IndianPines, Mnist
from tans_core.sources.base import Source
from tans_core.sources.debian_fonts import AENIGMA, ARABIC, CULMUS
from tans_core.sources.fonts import MatplotlibFonts
from tans_core.sources.iconify import Iconify
from tans_core.sources.icons import QTAWESOME, TKINTER_ICONS
from tans_core.sources.image_folder import ImageFolder
from tans_core.sources.medmnist import MedMnist
from tans_core.sources.noto_fonts import NotoFonts
from tans_core.sources.packages_arrays import BrainRegions, FashionMnist
from tans_core.sources.packages_pictures import GameTextures, Sky
from tans_core.sources.pictures import Earth, PhotoRegions, ScikitImagePictures
from tans_core.sources.strokes import HersheyFonts
from tans_core.sources.torchvision import TorchvisionDatasets

__all__ = ["SOURCES", "Source", "get_source"]

_ALL: tuple[Source, ...] = (
    AENIGMA,
    AnimalMnist(),
    ARABIC,
    BrainRegions(),
    CULMUS,
    Digits(),
    Earth(),
    HersheyFonts(),
    Iconify(),
    ImageFolder(),
    IndianPines(),
    Faces(),
    FashionMnist(),
    GameTextures(),
    MatplotlibFonts(),
    MedMnist(),
    Mnist(),
    NotoFonts(),
    PhotoRegions(),
    QTAWESOME,
    ScikitImagePictures(),
    Sky(),
    TKINTER_ICONS,
    TorchvisionDatasets(),
)

SOURCES: dict[str, Source] = {source.name: source for source in _ALL}


def get_source(name: str) -> Source:
    """Return a source by name.

    Raises:
        ParamsError: no source has that name.
    """
    if name not in SOURCES:
        raise ParamsError(f"source {name!r}: no such source{did_you_mean(name, SOURCES)}. Known: {', '.join(SOURCES)}.")
    return SOURCES[name]
