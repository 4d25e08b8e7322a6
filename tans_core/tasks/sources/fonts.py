"""Source `matplotlib`: the typefaces that matplotlib ships, drawn.

Three kinds of task: which character (split by typeface), which typeface (split by character), which script (split by character).
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageFont

from tans_core.errors import ParamsError
from tans_core.runtime import derive_seed
from tans_core.tasks.sources.base import Sample, check_choice, check_options, missing_file, package_file
from tans_core.tasks.sources.drawing import GLYPH_PX, LOOKS, Mask, draw, embolden, glyph_mask

# Faces whose outlines are near-copies (an oblique is its upright face, sheared) share a group: they never face each other.
TEXT_FACES = {
    "DejaVuSans": "dejavu-sans",
    "DejaVuSans-Oblique": "dejavu-sans",
    "DejaVuSans-Bold": "dejavu-sans-bold",
    "DejaVuSans-BoldOblique": "dejavu-sans-bold",
    "DejaVuSansMono": "dejavu-mono",
    "DejaVuSansMono-Oblique": "dejavu-mono",
    "DejaVuSansMono-Bold": "dejavu-mono-bold",
    "DejaVuSansMono-BoldOblique": "dejavu-mono-bold",
    "DejaVuSerif": "dejavu-serif",
    "DejaVuSerif-Italic": "dejavu-serif",
    "DejaVuSerif-Bold": "dejavu-serif-bold",
    "DejaVuSerif-BoldItalic": "dejavu-serif-bold",
    "STIXGeneral": "stix",
    "STIXGeneralItalic": "stix-italic",
    "STIXGeneralBol": "stix-bold",
    "STIXGeneralBolIta": "stix-bold-italic",
    "cmr10": "computer-modern-roman",
    "cmb10": "computer-modern-bold",
    "cmss10": "computer-modern-sans",
    "cmtt10": "computer-modern-typewriter",
    "cmti10": "computer-modern-italic",
}

CHARACTERS = {
    "latin-upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "latin-lower": "abcdefghijklmnopqrstuvwxyz",
    "digits": "0123456789",
    "greek-upper": "ΓΔΘΛΞΠΣΦΨΩΒΕΗΚΜΝΡΤΥΧ",
    "greek-lower": "αβγδεζηθικλμνξπρστφω",
    "cyrillic-upper": "БГДЖЗИЛПУФЦЧШЩЪЫЬЭЮЯ",
    "cyrillic-lower": "бвгджзиклмптфцшщъэюя",
    "operators": "±×÷∂∆∏∑√∞∫∩∪∈∀∃∇≈≠≤≥",
    "arrows": "←↑→↓↔↕↖↗↘↙⇐⇑⇒⇓⇔↦↩↪↶↷",
    "shapes": "■□◎▬▭▮▲△▶▷▼▽◀◁◆◇◊○●★",
    "boxes": "─│┌┐└┘├┤┬┴┼═║╔╗╚╝╠╣╬",
    "georgian": "აბგდევზთიკლმნოპჟრსტუ",
    "armenian": "ԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄ",
    "braille": "⠃⠇⠋⠏⠓⠗⠛⠟⠧⠫⠯⠳⠷⠻⠾⡇⡏⡟⡧⡷",
}

# Inclusive ranges of code points; a face draws what it has of them.
SCRIPTS = {
    "arabic": (0x0621, 0x064A),
    "armenian": (0x0531, 0x0586),
    "arrows": (0x2190, 0x21D5),
    "braille": (0x2801, 0x28FF),
    "canadian-syllabics": (0x1401, 0x1676),
    "cyrillic": (0x0400, 0x045F),
    "georgian": (0x10D0, 0x10F0),
    "greek": (0x0391, 0x03C9),
    "hebrew": (0x05D0, 0x05EA),
    "hexagrams": (0x4DC0, 0x4DFF),
    "lao": (0x0E81, 0x0EAE),
    "latin": (0x0041, 0x007A),
    "lisu": (0xA4D0, 0xA4F7),
    "mathematical": (0x2200, 0x22C3),
    "nko": (0x07CA, 0x07EA),
    "tifinagh": (0x2D30, 0x2D65),
}

KINDS = ("characters", "typefaces", "scripts")
_FACE_CHARACTERS = "ABCDEFGHKMNPRSTabdeghknprst234567&"
_SCRIPT_FACES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")


class Face:
    """One font file at the drawing size, with what it truly draws."""

    def __init__(self, path: Path, size_px: int = GLYPH_PX) -> None:
        self.name = path.stem
        self.font = ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)
        self._masks: dict[str, Mask] = {}

    @cached_property
    def _missing(self) -> bytes:
        # U+10FFFF is never assigned: what it draws is the face's "missing glyph" box.
        return glyph_mask(self.font, "\U0010ffff").tobytes()

    def mask(self, character: str) -> Mask | None:
        """Return the character's (H, W) mask, or None where the face draws nothing or its missing-glyph box."""
        # Computer Modern keeps TeX's own code points: only its letters and digits are what Unicode says.
        if self.name.startswith("cm") and not character.isascii():
            return None
        if character not in self._masks:
            self._masks[character] = glyph_mask(self.font, character)
        mask = self._masks[character]
        return None if mask.size == 0 or mask.tobytes() == self._missing else mask


class MatplotlibFonts:
    """Options: kind, characters (a key of CHARACTERS), first and count (a cut of them), look, images (about how many)."""

    name = "matplotlib"
    package = "matplotlib"
    licence = "Bitstream-Vera (DejaVu), OFL-1.1 (STIX), Knuth (Computer Modern)"
    defaults: Mapping[str, Any] = {
        "kind": "characters",
        "characters": "latin-upper",
        "first": 0,
        "count": 20,
        "look": "print",
        "images": 1900,
    }

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_file("matplotlib", "mpl-data", "fonts", "ttf", install="matplotlib")

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "kind", chosen["kind"], KINDS)
        check_choice(self.name, "characters", chosen["characters"], CHARACTERS)
        check_choice(self.name, "look", chosen["look"], LOOKS)
        if chosen["kind"] == "characters":
            drawings = self._characters(chosen)
        elif chosen["kind"] == "typefaces":
            drawings = self._typefaces(chosen)
        else:
            drawings = self._scripts()
        # Weight tells typefaces apart, so there it stays as it is.
        bolder_px = (0,) if chosen["kind"] == "typefaces" else (0, 0, 1, 2)
        yield from render(drawings, chosen["look"], chosen["images"], seed, bolder_px)

    def _characters(self, chosen: Mapping[str, Any]) -> list[Drawing]:
        alphabet = CHARACTERS[chosen["characters"]]
        wanted = alphabet[chosen["first"] : chosen["first"] + chosen["count"]]
        if len(wanted) < 2:
            raise ParamsError(
                f"source {self.name!r}: options.first, options.count: got {chosen['first']}, {chosen['count']}, "
                f"want at least 2 of the {len(alphabet)} characters of {chosen['characters']!r}"
            )
        drawings = []
        for face, group in self._faces(TEXT_FACES):
            drawn = {c: face.mask(c) for c in wanted}
            # Two characters that a face draws alike (an unfinished alphabet) would be two labels for one picture.
            prints = [mask.tobytes() for mask in drawn.values() if mask is not None]
            for character, mask in drawn.items():
                if mask is not None and prints.count(mask.tobytes()) == 1:
                    drawings.append(Drawing(face, character, character_name(character), group))
        return drawings

    def _typefaces(self, chosen: Mapping[str, Any]) -> list[Drawing]:
        faces = list(TEXT_FACES)[chosen["first"] : chosen["first"] + chosen["count"]]
        return [
            Drawing(face, character, face.name, f"letter {character.upper()}")
            for face, _ in self._faces(dict.fromkeys(faces, ""))
            for character in _FACE_CHARACTERS
        ]

    def _scripts(self) -> list[Drawing]:
        drawings = []
        for face, _ in self._faces(dict.fromkeys(_SCRIPT_FACES, "")):
            for script, (low, high) in SCRIPTS.items():
                for code in range(low, high + 1):
                    character = chr(code)
                    if unicodedata.category(character)[0] in "LS":
                        drawings.append(Drawing(face, character, script, f"U+{code:04X}"))
        return drawings

    def _faces(self, names: Mapping[str, str]) -> Iterator[tuple[Face, str]]:
        folder = package_file("matplotlib", "mpl-data", "fonts", "ttf", install="matplotlib")
        for name, group in names.items():
            yield Face(folder / f"{name}.ttf"), group


class Drawing:
    """A glyph of a face, under its class and its group."""

    def __init__(self, face: Face, character: str, label: str, group: str) -> None:
        self.face, self.character, self.label, self.group = face, character, label, group


def render(drawings: list[Drawing], look: str, images: int, seed: int, bolder_px: tuple[int, ...]) -> Iterator[Sample]:
    """Draw about `images` pictures, evenly over classes; a class's drawings take turns, each time differently.

    `bolder_px` lists by how much an outline may be thickened.
    """
    by_class: dict[str, list[Drawing]] = {}
    for drawing in drawings:
        by_class.setdefault(drawing.label, []).append(drawing)
    for label, members in by_class.items():
        rng = np.random.default_rng(derive_seed(seed, label))
        count = images // len(by_class)
        # Shuffled, so that a class of more drawings than pictures is cut evenly; blank glyphs are found only when drawn.
        shuffled = (members[index] for index in rng.permutation(len(members)))
        drawn = list(itertools.islice((d for d in shuffled if d.face.mask(d.character) is not None), count))
        for turn in range(count if drawn else 0):
            drawing = drawn[turn % len(drawn)]
            mask = drawing.face.mask(drawing.character)
            assert mask is not None
            by_px, hollow = int(rng.choice(bolder_px)), bool(rng.random() < LOOKS[look].hollow)
            if by_px or hollow:
                mask = embolden(mask, max(by_px, 1), hollow)
            picture = draw(mask, LOOKS[look], rng)
            name = f"{drawing.face.name}/{label}/{turn:03d}.png"
            yield Sample(picture, label, drawing.group, name)


def character_name(character: str) -> str:
    """Return the character itself for letters and digits, its Unicode name for symbols."""
    if unicodedata.category(character)[0] in "LN":
        return character
    return unicodedata.name(character).lower()
