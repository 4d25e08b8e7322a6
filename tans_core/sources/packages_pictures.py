"""Sources whose images are pictures inside Debian packages: photographs and drawings of the sky, game textures."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tans_core.errors import DataError
from tans_core.runtime import derive_seed
from tans_core.sources.base import Sample, check_choice, check_options
from tans_core.sources.fetch import Package, fetch, missing_package
from tans_core.sources.pictures import cut_random

STELLARIUM = Package(
    manager="debian",
    name="stellarium-data",
    version="0.22.2-1",
    sha256="45aaebf39a814acbd6dcccea058c2f5651bcb5635599da03a215feeb51f4d5a5",
    size_mb=246,
    licence="GPL-2.0-or-later AND LicenseRef-stellarium-credits",
)
OPENARENA = Package(
    manager="debian",
    name="openarena-081-textures",
    version="0.8.5split-14",
    sha256="72bf05abd5286a1523b56ca04e25bceb775813d747f92ecd20749d512361a81f",
    size_mb=94,
    licence="GPL-2.0-or-later",
)
_SKY_FILES = ("usr/share/stellarium/nebulae/default/*.png", "usr/share/stellarium/skycultures/*.png")
_TEXTURE_FILES = ("usr/share/games/openarena/baseoa/*.pk3",)

# Files by the type of their object in Stellarium's own catalogue.
SKY_PHOTOGRAPHS = {
    "galaxy": """
        ic10 ic1613 ic2574 ic342 ic883h m100 m101-vasey m102 m104 m105-vasey m106-vasey m108 m109 m31 m33 m49
        m51-vasey m58-vasey m59 m60 m61 m63-vasey m64 m65 m66 m74 m77 m81-vasey m82-vasey m83 m85 m88 m89 m90
        m91 m94 m95 m96-vasey m98 m99 n1023 n1042 n1055 n1097 n1232 n1269 n1300 n1313 n1316 n134 n1365 n1398
        n1407-dss n1433 n147 n1532-darkskies n1549-dss n1560-dss n1566-dss n1569-dss n1672 n1792 n1808 n185-dss
        n1961-vasey n2146-vasey n2207 n2366 n2403-vasey n2442 n247 n253 n2613 n2623 n2655-vasey n2683
        n2685-vasey n2775 n2805-vasey n2841-vasey n2903oleg n2936 n2976-sdss n2997 n300 n3077 n3079-vasey n3109
        n3115 n3166-vasey n3180 n3198-sdss n3227-vasey n3310-vasey n3314 n3344-vasey n3359-vasey n3486
        n3504-vasey n3521-vasey n3621 n3626-sdss n3628-vasey n3640-sdss n3690h n3718oleg n3750 n3808 n3923-dss
        n3938-vasey n4038-9 n404 n4151-vasey n4170 n4216 n4228 n4236 n4244 n4274-dss n4298 n4394-dss n4395 n4414
        n4449 n4450 n4490 n4494-dss n45 n4526 n4535-vasey n4559-vasey n4565 n4567 n4631-vasey n4636 n4651
        n4656-vasey n4676 n4697-dss n4725 n474-vasey n488-vasey n4945 n5005-sdss n5033-vasey n5068-sdss n5102
        n5128 n520 n5216 n5248 n5257h n5363-vasey n5426 n5474 n55 n5566 n5906 n5982oleg n6027 n6050h n613 n6240
        n6503 n660 n672-vasey n6744 n6769 n6822 n6868-dss n691group-vasey n6946dumont n7318-vasey n7331-vasey
        n7424-dss n7479-vasey n7497 n7590-trev n7640-vasey n7714 n772 n7742 n7793 n7814 n891 n908 n918 n92 n925
        n936
    """,
    "open cluster": """
        ic1848 ic2395 ic4756 m103 m11 m18 m21-trev m23 m24-vasey m25 m26 m29 m34 m35 m36 m37 m38 m39-dss m41 m44
        m46 m47-trev m48 m50 m52 m6 m67 m7 m73 m93 n1502 n2158 n2244 n225 n2264 n2362 n2477 n2506-vasey
        n2516-dss n2547 n3114 n3532 n3572 n3766 n457-vasey n4755 n6025 n6087 n6124 n6231 n654 n663 n6633 n752
        n7789-vasey n869-884spano
    """,
    "globular cluster": """
        ic4499-dss m10 m107 m12 m13 m14 m15-vasey m19 m2 m22 m28 m3 m30 m4 m5 m53 m54 m55 m56 m62 m68 m69 m70
        m71 m72 m75 m79 m80 m9 m92 n104 n1261-dss n1851-dss n1978 n2298-dss n2419-sdss n2808 n288 n3201-dss n362
        n4147-sdss n4372-dss n4833-dss n5053 n5139 n5286 n5466 n5634-dss n5694-dss n5824-dss n5897 n5927-dss
        n5986-dss n6101-dss n6139-dss n6229-sdss n6235-dss n6284-dss n6287-dss n6293 n6304 n6316 n6352-dss
        n6356-dss n6362 n6366-dss n6388 n6397 n6401 n6496 n6522 n6539 n6541-dss n6544 n6553 n6569 n6584
        n6624-dss n6652 n6752 n6760-dss n6934-dss n7006-sdss n7492-dss
    """,
    "planetary nebula": """
        ic1295 ic3568 ic418 ic4406 ic4593 ic4634 m27dumont m57dumont m76-vasey m97dumont n1360 n1501 n1514-vasey
        n1535 n2022 n2346 n2371-vasey n2392-vasey n2440 n246-vasey n2818 n2867 n3132 n3195 n3242 n3699 n3918 n40
        n4361 n5189 n5307 n5315 n5882 n6210 n6302 n6309 n6369 n6445 n6537 n6543 n6563 n6572 n6741 n6751 n6781
        n6818 n6826 n6884 n6891 n6894 n6905 n7008-vasey n7009 n7027 n7293 n7354 n7662 sh2-188-vasey
    """,
    "nebula": """
        ic1396 ic1805 ic2118-1 ic2118-2 ic2169 ic2177 ic2631 ic2944 ic348-dss ic405-vasey ic410 ic434
        ic443-vasey ic4592 ic4601 ic4628 ic5146 lbn438 lbn782 m16 m17 m1dumont m20 m42 m78 m8 n1333 n1491 n1499
        n1555 n1579 n1788 n2170 n2174-vasey n2261 n2282 n2359 n2467 n2736 n281 n3199 n3293 n3603 n5367 n6334
        n6357 n6590 n6726 n6823 n6888 n6914 n6960 n7000 n7023 n7129 n7380 n7538 n7635-vasey n7822 sh2-1-1
        sh2-1-2 sh2-101-vasey sh2-106 sh2-132 sh2-136 sh2-155 sh2-170 sh2-240 sh2-261 sh2-263 sh2-264 sh2-297
        vdb152
    """,
}

SKY_KINDS = ("photographs", "drawings")

# Cultures with at least 25 drawings in a style of their own.
CULTURES = (
    "arabic_al-sufi", "babylonian_mulapin", "boorong", "egyptian_dendera", "greek_farnese", "maya", "romanian",
    "western",
)  # fmt: skip

TEXTURES = {
    "bricks": "cosmo_block/ancient_bricks2.jpg", "bumps": "oquartz/bally.jpg",
    "dark rock": "gothic_trim/skullsvertgray02b.jpg",
    "embers": "skin/skin6move.jpg", "fire": "nki/nki_lava5.tga", "foam": "liquids/pool3d_3e.jpg",
    "forest": "nki/nki_forest3.tga", "granite": "proto2/xfloor01.jpg", "gravel": "skin/skin5.jpg",
    "lava": "liquids/lavahell2.tga", "marble": "proto2/marble02.jpg", "masonry": "gothic_floor/q1metal7_97.jpg",
    "planks": "e7/e7panelwood2.jpg", "plaster": "gothic_floor/blocks17floor3.jpg", "rock": "stone/pjrock1.jpg",
    "rust": "gothic_trim/pitted_rust2.jpg", "rusty plate": "base_wall/patch10rusty5.jpg", "sand": "acc_dm5/sand.jpg",
    "slabs": "proto2/xfloor03.jpg", "slime": "liquids/slime8.jpg", "tiles": "gothic_block/blocks15.jpg",
    "water": "liquids/pool3d_6.jpg",
}  # fmt: skip

_MAX_PICTURE_BYTES = 8 << 20
_TEXTURE_PX = 512


class Sky:
    """Options: kind, views (how many crops of each photograph, turned by multiples of 90 degrees).

    Photographs: class = type of object, group = the object. Drawings of constellations: class = culture.
    """

    name = "stellarium"
    package = "stellarium-data"
    licence = "GPL-2.0-or-later AND LicenseRef-stellarium-credits"
    defaults: Mapping[str, Any] = {"kind": "photographs", "views": 4}

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_package(STELLARIUM, _SKY_FILES)

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "kind", chosen["kind"], SKY_KINDS)
        folder = fetch(STELLARIUM, _SKY_FILES) / "usr/share/stellarium"
        if chosen["kind"] == "drawings":
            for label in CULTURES:
                for path in sorted((folder / "skycultures" / label).rglob("*.png")):
                    yield Sample(_on_black(path), label, "", f"{label}/{path.name}")
            return
        for label, stems in SKY_PHOTOGRAPHS.items():
            for stem in stems.split():
                rng = np.random.default_rng(derive_seed(seed, stem))
                photograph = _on_black(folder / "nebulae" / "default" / f"{stem}.png")
                for view in range(chosen["views"]):
                    crop = _view(photograph, rng)
                    yield Sample(crop, label, object_of(stem), f"{stem}/{view}.png")


class GameTextures:
    """Patches of tileable pictures; class = picture, train left and test right. Options: grey, per_class."""

    name = "openarena"
    package = "openarena-081-textures"
    licence = "GPL-2.0-or-later"
    defaults: Mapping[str, Any] = {"grey": False, "per_class": 100}

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_package(OPENARENA, _TEXTURE_FILES)

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        folder = fetch(OPENARENA, _TEXTURE_FILES) / "usr/share/games/openarena/baseoa"
        with zipfile.ZipFile(folder / "pak4-textures.pk3") as archive:
            for label, file in TEXTURES.items():
                picture = _read_texture(archive, f"textures/{file}", chosen["grey"])
                rng = np.random.default_rng(derive_seed(seed, label))
                regions = {"train": (0.0, 0.5), "val": (0.5, 0.72), "test": (0.72, 1.0)}
                for (split, (left, right)), share in zip(regions.items(), (0.6, 0.15, 0.25), strict=True):
                    box = (left * _TEXTURE_PX, 0.0, right * _TEXTURE_PX, float(_TEXTURE_PX))
                    count = round(chosen["per_class"] * share)
                    for name, patch in cut_random(picture, box, count, (64, 110), rng):
                        # Brightness varies, so that the mean grey alone does not identify a texture.
                        lit = np.clip(patch * rng.uniform(0.6, 1.3), 0, 255).round().astype(np.uint8)
                        yield Sample(lit, label, f"{label}, {split}", f"{file}/{name}", split)


def object_of(stem: str) -> str:
    """Return the object that a photograph shows. Several files may show one object or its parts."""
    match = re.match(r"sh2-\d+|[A-Za-z]+\d+", stem)
    return match.group() if match else stem


def _view(photograph: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    height, width = photograph.shape[:2]
    side = round(min(height, width) * rng.uniform(0.7, 1.0))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    return np.rot90(photograph[top : top + side, left : left + side], int(rng.integers(4)))


def _on_black(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path, formats=("PNG",)) as image:
        picture = image.convert("RGBA")
    sheet = Image.new("RGB", picture.size)
    sheet.paste(picture, mask=picture.getchannel("A"))
    sheet.thumbnail((256, 256))
    return np.asarray(sheet)


def _read_texture(archive: zipfile.ZipFile, name: str, grey: bool) -> npt.NDArray[np.uint8]:
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise DataError(f"openarena: {name} is not in {archive.filename}.") from error
    if info.file_size > _MAX_PICTURE_BYTES:
        raise DataError(f"openarena: {name}: got {info.file_size:,} bytes, want at most {_MAX_PICTURE_BYTES:,}.")
    with Image.open(io.BytesIO(archive.read(info)), formats=("JPEG", "TGA")) as image:
        picture = image.convert("L" if grey else "RGB").resize((_TEXTURE_PX, _TEXTURE_PX), Image.Resampling.BICUBIC)
    return np.asarray(picture)
