"""Source `matplotlib`: pictures of glyphs of the typefaces that matplotlib ships.

Three kinds of task: which character (split by typeface), which typeface (split by character), which script (split by
character).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from tans_core.sources.base import Sample, check_choice, check_options, missing_file, package_file
from tans_core.sources.drawing import LOOKS
from tans_core.sources.typefaces import Face, Glyph, character_glyphs, cut_alphabet, render

# Faces with nearly the same outlines (an oblique is its upright face, sheared) share a group, and so a split.
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

# Inclusive ranges of code points. A face draws those that it has.
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


class MatplotlibFonts:
    """Options: kind, characters (a key of CHARACTERS), first and count (a range), look, images (about how many)."""

    name = "matplotlib"
    package = "matplotlib"
    # DejaVu, Computer Modern, STIX.
    licence = "Bitstream-Vera AND LicenseRef-bakoma-fonts AND OFL-1.1"
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
            glyphs = self._characters(chosen)
        elif chosen["kind"] == "typefaces":
            glyphs = self._typefaces(chosen)
        else:
            glyphs = self._scripts()
        # Typefaces differ in weight, so it is not changed there.
        bolder_px = (0,) if chosen["kind"] == "typefaces" else (0, 0, 1, 2)
        yield from render(glyphs, chosen["look"], chosen["images"], seed, bolder_px)

    def _characters(self, chosen: Mapping[str, Any]) -> list[Glyph]:
        name = chosen["characters"]
        wanted = cut_alphabet(self.name, CHARACTERS[name], name, chosen["first"], chosen["count"])
        return character_glyphs(self._faces(TEXT_FACES), wanted)

    def _typefaces(self, chosen: Mapping[str, Any]) -> list[Glyph]:
        faces = list(TEXT_FACES)[chosen["first"] : chosen["first"] + chosen["count"]]
        return [
            Glyph(face, character, face.name, f"letter {character.upper()}")
            for face, _ in self._faces(dict.fromkeys(faces, ""))
            for character in _FACE_CHARACTERS
        ]

    def _scripts(self) -> list[Glyph]:
        glyphs = []
        for face, _ in self._faces(dict.fromkeys(_SCRIPT_FACES, "")):
            for script, (low, high) in SCRIPTS.items():
                for code in range(low, high + 1):
                    character = chr(code)
                    if unicodedata.category(character)[0] in "LS":
                        glyphs.append(Glyph(face, character, script, f"U+{code:04X}"))
        return glyphs

    def _faces(self, names: Mapping[str, str]) -> Iterator[tuple[Face, str]]:
        folder = package_file("matplotlib", "mpl-data", "fonts", "ttf", install="matplotlib")
        for name, group in names.items():
            yield Face(folder / f"{name}.ttf"), group
