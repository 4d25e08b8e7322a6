"""Icons, emoji and flags: classes, groups and pictures from the package's content.

The package is made here, with every set of the real one and a few drawings in each.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tans_core.errors import DataError, ParamsError
from tans_core.io import sha256_file
from tans_core.licences import combine
from tans_core.sources import get_source, iconify
from tans_core.sources.base import Sample
from tans_core.sources.build import build_task
from tans_core.sources.drawing import LOOKS
from tans_core.sources.fetch import Package, packages_folder
from tans_core.sources.iconify_sets import EMOJI_SETS, FLAG_SETS, ICON_SETS, emoji_key, read_emoji
from tans_core.sources.svg import SvgDrawing, draw_picture, rasterise, shape_of

NAMES = [
    {"name": "cat", "subgroup": "animal-mammal", "codes": "1F408"},
    {"name": "man surfing: dark skin tone", "subgroup": "person-sport", "codes": "1F3C4 1F3FF 200D 2642 FE0F"},
    {"name": "eagle", "subgroup": "animal-bird", "codes": "1F985"},
    {"name": "flag: Côte d’Ivoire", "subgroup": "country-flag", "codes": "1F1E8 1F1EE"},
    {"name": "flag: Argentina", "subgroup": "country-flag", "codes": "1F1E6 1F1F7"},
]


def box(left: int, width: int, colour: str = "currentColor") -> dict[str, Any]:
    return {"body": f'<path fill="{colour}" d="M{left} 2h{width}v20h-{width}z"/>'}


def blots(seed: int) -> dict[str, Any]:
    spots = np.random.default_rng(seed).integers(0, 20, (12, 2))
    return {"body": f'<path fill="currentColor" d="{"".join(f"M{x} {y}h4v4h-4z" for x, y in spots)}"/>'}


def put_package(package: Package, files: dict[str, Any]) -> Package:
    path = packages_folder() / "downloads" / package.file
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, value in files.items():
            content = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return Package("npm", package.name, package.version, sha256_file(path), 1)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANS_PACKAGES", str(tmp_path))
    files: dict[str, Any] = {}
    for number, one in enumerate(ICON_SETS):
        # Blots: no two families draw alike, but for the copied `plus`.
        icons = {
            "home-outline": blots(number),
            "star-fill": blots(1000 + number),
            "plus": {"body": '<path fill="currentColor" d="M10 2h4v8h8v4h-8v8h-4v-8H2v-4h8z"/>'},
            "gone": {**box(2, 9), "hidden": True},
            "blank": {"body": "<g/>"},
        }
        files[f"json/{one.prefix}.json"] = {"icons": icons, "width": 24, "height": 24}
    for number, one in enumerate(EMOJI_SETS):
        icons = {
            "cat": box(2, 4 + number, "#a52"),
            "man-surfing-dark-skin-tone": box(4, 3 + number, "#25a"),
            "eagle": box(6, 2 + number, "#5a2"),
            "flag-for-argentina": box(0, 20 + number, "#7ad"),
        }
        files[f"json/{one.prefix}.json"] = {"icons": icons, "width": 24, "height": 24}
    for one in FLAG_SETS:
        icons = {"ar": box(0, 22, "#7ad"), "ci-4x3": box(0, 22, "#d82"), "zz": box(0, 22)}
        files[f"json/{one.prefix}.json"] = {"icons": icons, "width": 24, "height": 24}
    monkeypatch.setattr(iconify, "ICONIFY", put_package(iconify.ICONIFY, files))
    monkeypatch.setattr(iconify, "EMOJI_NAMES", put_package(iconify.EMOJI_NAMES, {"emoji.json": NAMES}))


def load(seed: int = 0, **options: Any) -> list[Sample]:
    return list(get_source("iconify").load(options, seed))


def groups_of(samples: list[Sample]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        groups[sample.label].add(sample.group)
    return groups


@pytest.mark.usefixtures("package")
def test_concepts_come_from_many_families_and_a_copied_drawing_from_one() -> None:
    groups = groups_of(load(classes=["home", "star", "plus"], images=240))
    assert len(groups["home"]) > 15 and len(groups["star"]) > 10
    assert len(groups["plus"]) == 1
    assert {one.family for one in ICON_SETS} >= groups["home"]


@pytest.mark.usefixtures("package")
def test_families_are_told_apart_on_what_they_share() -> None:
    samples = load(kind="families", classes=["tabler", "ph"], images=40)
    assert groups_of(samples) == {"tabler": {"home", "star", "plus"}, "ph": {"home", "star", "plus"}}


@pytest.mark.usefixtures("package")
def test_emoji_are_known_by_sort_by_name_and_by_vendor() -> None:
    assert groups_of(load(kind="emoji-sorts", images=40)) == {"mammal": {"cat"}, "bird": {"eagle"}}
    by_name = groups_of(load(kind="emoji", classes=["cat", "surfing"], images=60))
    assert by_name["surfing"] == {one.family for one in EMOJI_SETS}
    assert set(groups_of(load(kind="emoji-vendors", images=60))) == {one.prefix for one in EMOJI_SETS}


@pytest.mark.usefixtures("package")
def test_flags_are_countries_and_an_emblem_of_a_language_is_none() -> None:
    samples = load(kind="flags", classes=["Argentina", "Côte d’Ivoire"], images=60)
    groups = groups_of(samples)
    assert groups["Côte d’Ivoire"] == {one.family for one in FLAG_SETS}
    assert {"flagpack", "twemoji"} <= groups["Argentina"] and "circle-flags" not in groups["Argentina"]


@pytest.mark.usefixtures("package")
def test_the_same_seed_draws_the_same_task() -> None:
    def build(seed: int) -> bytes:
        options = {"classes": ["home", "star"], "images": 60, "look": "street"}
        task = build_task(
            "t", "iconify", options, "meta-train", stored_size_px=32, max_train=40, max_val=10, max_test=16,
            min_images_per_class=2, seed=seed,
        )  # fmt: skip
        return task.images.data.tobytes()

    assert build(1) == build(1) != build(2)


@pytest.mark.usefixtures("package")
def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ParamsError, match=r"'hone': not one of its concepts.*did you mean 'home'"):
        load(classes=["hone", "star"])
    with pytest.raises(ParamsError, match="at least two of its flags"):
        load(kind="flags")
    with pytest.raises(ParamsError, match=r"options\.kind"):
        load(kind="icon", classes=["home", "star"])


@pytest.mark.usefixtures("package")
def test_what_is_missing_is_said_until_it_is_there() -> None:
    source = get_source("iconify")
    assert source.missing({}) == "unpacked at first use: iconify-json-2.2.535.tgz"
    load(kind="flags", classes=["Argentina", "Côte d’Ivoire"], images=4)
    assert source.missing({}) is None


def test_the_licence_is_that_of_the_sets_a_task_takes() -> None:
    assert iconify.Iconify().licence_of({"kind": "families", "classes": ["tabler", "lucide"]}) == "ISC AND MIT"
    assert iconify.Iconify().licence_of({"kind": "emoji"}) == "Apache-2.0 AND CC-BY-4.0 AND MIT"
    assert not any(word in iconify.Iconify.licence for word in ("GPL", "SA", "NC"))
    sets = (*iconify.ICON_SETS, *iconify.EMOJI_SETS, *iconify.FLAG_SETS)
    assert iconify.Iconify.licence == combine(one.licence for one in sets)


def test_a_set_stands_in_one_family() -> None:
    prefixes = [one.prefix for one in (*ICON_SETS, *EMOJI_SETS, *FLAG_SETS)]
    assert len(prefixes) == len(set(prefixes)) > 150


def test_names_of_vendors_meet(tmp_path: Path) -> None:
    assert emoji_key("1st-place-medal") == emoji_key("1st place medal")
    assert emoji_key("flag-for-cote-divoire") == emoji_key("flag: Côte d’Ivoire")
    (tmp_path / "emoji.json").write_text(json.dumps(NAMES))
    known = read_emoji(tmp_path)
    assert known["mansurfingdarkskintone"].base == "surfing"
    assert known[emoji_key("flag: Côte d’Ivoire")].country == "ci"


def test_drawings_keep_their_shape_and_their_colours() -> None:
    wide = SvgDrawing('<path fill="#f00" d="M0 0h40v20h-40z"/>', (0, 0, 40, 20))
    pixels = rasterise(wide, 64)
    assert pixels.shape == (32, 64, 4)
    assert (pixels[16, 32] == (255, 0, 0, 255)).all()
    assert shape_of(rasterise(SvgDrawing('<path d="M5 5h10v4H5z"/>', (0, 0, 20, 20)), 40)).shape == (8, 20)
    assert shape_of(rasterise(SvgDrawing("<g/>", (0, 0, 20, 20)), 40)).size == 0
    with pytest.raises(DataError, match="cannot be drawn"):
        rasterise(SvgDrawing("<path", (0, 0, 20, 20)), 40)


@pytest.mark.parametrize("look", LOOKS)
def test_a_picture_varies_and_grey_looks_stay_grey(look: str) -> None:
    pixels = rasterise(SvgDrawing('<path fill="#f00" d="M2 2h16v16H2z"/>', (0, 0, 20, 20)), 64)
    rng = np.random.default_rng(0)
    one, two = (draw_picture(pixels, LOOKS[look], rng) for _ in range(2))
    assert one.shape == (64, 64, 3) and (one != two).any() and one.std() > 10
    assert LOOKS[look].colour == bool((one[:, :, 0] != one[:, :, 2]).any())
