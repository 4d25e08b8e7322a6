"""Source `iconify`: icons, emoji and flags as SVG drawings, from the npm package `@iconify/json`.

Kinds of task: the concept that an icon shows (split by the family that drew it), the set of an icon (split by concept),
the sort of an emoji (split by emoji), which emoji (split by vendor), the vendor of an emoji (split by emoji), the
country of a flag (split by vendor).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import imagehash
import numpy as np
from PIL import Image

from tans_core.errors import ParamsError, did_you_mean
from tans_core.licences import combine
from tans_core.runtime import derive_seed
from tans_core.sources.base import Sample, check_choice, check_options, missing_file, package_file
from tans_core.sources.drawing import LOOKS, Look, draw
from tans_core.sources.fetch import fetch, missing_package
from tans_core.sources.iconify_sets import (
    EMOJI_NAMES,
    EMOJI_SETS,
    FLAG_SETS,
    ICON_SETS,
    ICONIFY,
    LANGUAGES_OF_CIRCLE_FLAGS,
    MONOCHROME_EMOJI,
    WANTED,
    SvgSet,
    emoji_key,
    read_emoji,
    read_set,
)
from tans_core.sources.icons import concept_of
from tans_core.sources.svg import Pixels, SvgDrawing, draw_picture, rasterise, shape_of

KINDS = ("concepts", "families", "emoji-sorts", "emoji", "emoji-vendors", "flags")

# Unicode's subgroups. Small ones are joined.
EMOJI_SORTS = {
    "mammal": ("animal-mammal",), "bird": ("animal-bird",), "sea animal": ("animal-marine",), "bug": ("animal-bug",),
    "plant": ("plant-other", "plant-flower"), "fruit": ("food-fruit",), "vegetable": ("food-vegetable",),
    "dish": ("food-prepared", "food-asian"), "sweet": ("food-sweet",), "drink": ("drink",),
    "building": ("place-building", "place-religious"), "land vehicle": ("transport-ground",),
    "aircraft": ("transport-air",), "ship": ("transport-water",), "clothing": ("clothing",), "tool": ("tool",),
    "instrument": ("musical-instrument",), "face": ("face-smiling", "face-neutral-skeptical", "face-concerned"),
    "hand": ("hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed"),
    "heart": ("heart",), "arrow": ("arrow",), "zodiac": ("zodiac",), "time": ("time",), "play button": ("av-symbol",),
}  # fmt: skip

_RASTER_PX = 64
# Two families' icons of one concept are copies if at most so many of their hash's 256 bits differ.
_COPY_BITS = 10


@dataclass(frozen=True)
class _Entry:
    label: str
    group: str
    name: str
    drawing: SvgDrawing
    colourful: bool


class Iconify:
    """Options: kind, classes (of that kind; empty for all sorts or vendors), look, images (about how many)."""

    name = "iconify"
    package = "@iconify/json"
    licence = ICONIFY.licence
    defaults: Mapping[str, Any] = {"kind": "concepts", "classes": [], "look": "print", "images": 1900}

    def licence_of(self, options: Mapping[str, Any]) -> str:
        kind = options.get("kind", self.defaults["kind"])
        chosen = [one for one in ICON_SETS if kind != "families" or one.prefix in options.get("classes", ())]
        if kind not in ("concepts", "families"):
            chosen = [*EMOJI_SETS, *(FLAG_SETS if kind == "flags" else ())]
        return combine(one.licence for one in chosen) if chosen else self.licence

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return (
            missing_file("resvg_py", install="resvg-py")
            or missing_package(ICONIFY, WANTED)
            or missing_package(EMOJI_NAMES)
        )

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        kind, wanted, look = chosen["kind"], chosen["classes"], LOOKS.get(chosen["look"])
        check_choice(self.name, "kind", kind, KINDS)
        check_choice(self.name, "look", chosen["look"], LOOKS)
        assert look is not None
        if len(wanted) < 2 and kind not in ("emoji-sorts", "emoji-vendors"):
            raise ParamsError(f"source {self.name!r}: options.classes: got {wanted}, want at least two of its {kind}")
        package_file("resvg_py", install="resvg-py")
        known: set[str] = set()
        by_class: dict[str, list[_Entry]] = {}
        for entry in _ENTRIES[kind]():
            known.add(entry.label)
            if not wanted or entry.label in wanted:
                by_class.setdefault(entry.label, []).append(entry)
        for label in wanted:
            if label not in known:
                raise ParamsError(
                    f"source {self.name!r}: options.classes: {label!r}: not one of its {kind}"
                    f"{did_you_mean(label, known)}"
                )
        labels = sorted(by_class)
        for label in labels:
            rng = np.random.default_rng(derive_seed(seed, label))
            count = chosen["images"] // len(labels)
            yield from _draw_class(by_class[label], count, look, rng, kind == "concepts")


def _draw_class(
    entries: list[_Entry], count: int, look: Look, rng: np.random.Generator, drop_copies: bool
) -> Iterator[Sample]:
    """Draw `count` pictures, taking the class's drawings in turn, with random variation."""
    shuffled = (entries[index] for index in rng.permutation(len(entries)))
    drawn = list(itertools.islice(_usable(shuffled, drop_copies), count))
    for turn in range(count if drawn else 0):
        entry, pixels = drawn[turn % len(drawn)]
        picture = draw_picture(pixels, look, rng) if entry.colourful else draw(shape_of(pixels), look, rng)
        yield Sample(picture, entry.label, entry.group, f"{entry.name}/{turn:03d}.png")


def _usable(entries: Iterator[_Entry], drop_copies: bool) -> Iterator[tuple[_Entry, Pixels]]:
    """Leave out blank drawings, and those nearly equal to one of another family."""
    seen: list[tuple[str, imagehash.ImageHash]] = []
    for entry in entries:
        pixels = rasterise(entry.drawing, _RASTER_PX)
        shape = shape_of(pixels)
        if min(shape.shape) < 2:
            continue
        if drop_copies:
            code = imagehash.average_hash(Image.fromarray(shape), hash_size=16)
            if any(group != entry.group and code - other <= _COPY_BITS for group, other in seen):
                continue
            seen.append((entry.group, code))
        yield entry, pixels


def _concepts() -> Iterator[_Entry]:
    for one, name, drawing in _drawings(ICON_SETS):
        yield _Entry(concept_of(name), one.family, f"{one.prefix}/{name}", drawing, False)


def _families() -> Iterator[_Entry]:
    """Yield the icons of concepts that many sets draw, so that no set is recognised by a concept of its own."""
    icons = [(one, concept_of(name), name, drawing) for one, name, drawing in _drawings(ICON_SETS)]
    sets_with = Counter(concept for _, concept in {(one.prefix, concept) for one, concept, _, _ in icons})
    for one, concept, name, drawing in icons:
        if sets_with[concept] >= len(ICON_SETS) // 4:
            yield _Entry(one.prefix, concept, f"{one.prefix}/{name}", drawing, False)


def _emoji_sorts() -> Iterator[_Entry]:
    sort_of = {subgroup: sort for sort, subgroups in EMOJI_SORTS.items() for subgroup in subgroups}
    for entry, subgroup in _emoji():
        if subgroup in sort_of:
            yield _Entry(sort_of[subgroup], entry.label, entry.name, entry.drawing, entry.colourful)


def _emoji_bases() -> Iterator[_Entry]:
    return (entry for entry, _ in _emoji())


def _emoji_vendors() -> Iterator[_Entry]:
    for entry, _ in _emoji():
        yield _Entry(entry.name.partition("/")[0], entry.label, entry.name, entry.drawing, entry.colourful)


def _emoji() -> Iterator[tuple[_Entry, str]]:
    known = read_emoji(fetch(EMOJI_NAMES))
    for one, name, drawing in _drawings(EMOJI_SETS):
        emoji = known.get(emoji_key(name)) or known.get(emoji_key(name).removesuffix("face"))
        if emoji and not emoji.country:
            colourful = one.prefix not in MONOCHROME_EMOJI
            yield _Entry(emoji.base, one.family, f"{one.prefix}/{name}", drawing, colourful), emoji.subgroup


def _flags() -> Iterator[_Entry]:
    known = read_emoji(fetch(EMOJI_NAMES))
    country_of = {emoji.country: emoji.base for emoji in known.values() if emoji.country}
    for one, name, drawing in _drawings(FLAG_SETS):
        country = country_of.get(name.removesuffix("-1x1").removesuffix("-4x3"))
        if country and not (one.prefix == "circle-flags" and name in LANGUAGES_OF_CIRCLE_FLAGS):
            yield _Entry(country, one.family, f"{one.prefix}/{name}", drawing, True)
    for one, name, drawing in _drawings(EMOJI_SETS):
        emoji = known.get(emoji_key(name))
        if emoji and emoji.country and one.prefix not in MONOCHROME_EMOJI:
            yield _Entry(emoji.base, one.family, f"{one.prefix}/{name}", drawing, True)


def _drawings(sets: tuple[SvgSet, ...]) -> Iterator[tuple[SvgSet, str, SvgDrawing]]:
    folder = fetch(ICONIFY, WANTED)
    for one in sets:
        for name, drawing in read_set(folder, one.prefix):
            yield one, name, drawing


_ENTRIES = {
    "concepts": _concepts,
    "families": _families,
    "emoji-sorts": _emoji_sorts,
    "emoji": _emoji_bases,
    "emoji-vendors": _emoji_vendors,
    "flags": _flags,
}
