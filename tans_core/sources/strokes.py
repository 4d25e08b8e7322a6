"""Source `hershey-fonts`: the stroke letters that A. V. Hershey digitised in 1967, drawn with a pen.

Two kinds of task: which character (split by typeface), which typeface (split by character).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tans_core.errors import ParamsError
from tans_core.runtime import derive_seed
from tans_core.sources.base import Sample, check_choice, check_options, missing_file, package_file
from tans_core.sources.drawing import LOOKS, Mask, crop_to_ink, draw

Segments = npt.NDArray[np.float64]
"""(L, 2, 2): lines, ends, x and y (y up)."""

# Faces with the Latin alphabet -> group. Of faces that are copies of each other only one is listed.
LATIN_FACES = {
    "futural": "sans",
    "futuram": "sans",
    "timesr": "roman",
    "rowmant": "roman bold",
    "timesi": "italic",
    "timesib": "italic bold",
    "scripts": "script simplex",
    "scriptc": "script complex",
    "gothiceng": "gothic english",
    "gothicger": "gothic german",
    "gothicita": "gothic italian",
}

ALL_FACES = (
    "cyrillic", "futuram", "gothiceng", "gothicger", "gothicita", "greek", "greekc", "japanese", "rowmans", "rowmant",
    "scriptc", "scripts", "symbolic", "timesi", "timesib", "timesr",
)  # fmt: skip

CHARACTERS = {
    "upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "lower": "abcdefghijklmnopqrstuvwxyz",
    "digits": "0123456789",
}
KINDS = ("characters", "typefaces")
_CANVAS_PX = 96


class HersheyFonts:
    """Options: kind, characters (a key of CHARACTERS), first and count (a range), look, images (about how many)."""

    name = "hershey-fonts"
    package = "Hershey-Fonts"
    licence = "LicenseRef-hershey AND MIT"
    defaults: Mapping[str, Any] = {
        "kind": "characters",
        "characters": "upper",
        "first": 0,
        "count": 20,
        "look": "print",
        "images": 1900,
    }

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("HersheyFonts", install="Hershey-Fonts")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "kind", chosen["kind"], KINDS)
        check_choice(self.name, "characters", chosen["characters"], CHARACTERS)
        check_choice(self.name, "look", chosen["look"], LOOKS)
        glyphs = self._characters(chosen) if chosen["kind"] == "characters" else self._typefaces()
        by_class: dict[str, list[tuple[Segments, str, str]]] = {}
        for label, segments, group, name in glyphs:
            by_class.setdefault(label, []).append((segments, group, name))
        for label, members in by_class.items():
            rng = np.random.default_rng(derive_seed(seed, label))
            order = rng.permutation(len(members))
            for turn in range(chosen["images"] // len(by_class)):
                segments, group, name = members[order[turn % len(members)]]
                mask = pen_mask(segments, width_px=int(rng.integers(3, 9)))
                yield Sample(draw(mask, LOOKS[chosen["look"]], rng), label, group, f"{name}/{turn:03d}.png")

    def _characters(self, chosen: Mapping[str, Any]) -> list[tuple[str, Segments, str, str]]:
        alphabet = CHARACTERS[chosen["characters"]]
        wanted = alphabet[chosen["first"] : chosen["first"] + chosen["count"]]
        if len(wanted) < 2:
            raise ParamsError(
                f"source {self.name!r}: options.first, options.count: got {chosen['first']}, {chosen['count']}, "
                f"want at least 2 of the {len(alphabet)} characters of {chosen['characters']!r}"
            )
        return _distinct(
            (character, segments, group, f"{face}/{character}")
            for face, group in LATIN_FACES.items()
            for character, segments in read_face(face, wanted).items()
        )

    def _typefaces(self) -> list[tuple[str, Segments, str, str]]:
        characters = "ABCDEFGHIKLMNOPRSTUVWXabcdefghiklmnoprstuvwx"
        return _distinct(
            (face, segments, f"position {character.upper()}", f"{face}/{character}")
            for face in ALL_FACES
            for character, segments in read_face(face, characters).items()
        )


def read_face(face: str, characters: str) -> dict[str, Segments]:
    """Return the line segments of the characters that the face draws."""
    package_file("HersheyFonts", install="Hershey-Fonts")
    from HersheyFonts import HersheyFonts as Reader

    reader = Reader()
    reader.load_default_font(face)
    glyphs = {}
    for character in characters:
        segments = np.array(list(reader.lines_for_text(character)), dtype=np.float64)
        if len(segments):
            glyphs[character] = segments.reshape(-1, 2, 2)
    return glyphs


def pen_mask(segments: Segments, width_px: int) -> Mask:
    """Draw segments with a round pen; return the mask, cropped to its ink: (H, W) uint8, 255 = ink."""
    points = segments.reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (_CANVAS_PX - 2 * width_px) / max(float((high - low).max()), 1e-6)
    placed = (segments - low) * scale + width_px
    extent = (high - low) * scale + 2 * width_px
    layer = Image.new("L", (math.ceil(extent[0]) + 1, math.ceil(extent[1]) + 1), 0)
    pen = ImageDraw.Draw(layer)
    radius = width_px / 2
    for start, end in placed:
        pen.line([*start, *end], fill=255, width=width_px)
        for x, y in (start, end):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    return crop_to_ink(np.asarray(layer))


def _distinct(glyphs: Iterator[tuple[str, Segments, str, str]]) -> list[tuple[str, Segments, str, str]]:
    """Drop outlines that an earlier face has, and those that two classes share."""
    first: dict[bytes, tuple[str, Segments, str, str]] = {}
    ambiguous: set[bytes] = set()
    for glyph in glyphs:
        key = hashlib.sha256(np.round(glyph[1], 3).tobytes()).digest()
        if key not in first:
            first[key] = glyph
        elif first[key][0] != glyph[0]:
            ambiguous.add(key)
    return [glyph for key, glyph in first.items() if key not in ambiguous]
