"""Source `fonts-noto`: the scripts of the world, living and dead, drawn by one family of typefaces.

Four kinds of task: which script (split by letter), which letter of a script (split by family), which consonant of an
Ethiopic syllable (split by vowel), which section of Gardiner's list for a hieroglyph (split by sign).
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tans_core.errors import ParamsError
from tans_core.sources.base import Sample, check_choice, check_options
from tans_core.sources.debian_fonts import font_files
from tans_core.sources.drawing import LOOKS
from tans_core.sources.fetch import Package, fetch, missing_package
from tans_core.sources.typefaces import Face, Glyph, character_glyphs, cut_alphabet, render

NOTO = Package(
    manager="debian",
    name="fonts-noto-core",
    version="20201225-1",
    sha256="58f4f0bb6720f919f92096b3508e1412a0f1544424ade6c5b5bf1eb694dd64ba",
    size_mb=12,
    licence="OFL-1.1",
)
_FILES = ("usr/share/fonts/*-Regular.ttf", "usr/share/fonts/*-Bold.ttf")
_FACE = re.compile(r"Noto(Sans|Serif|Looped|Traditional)(.+)-(Regular|Bold)")

KINDS = ("scripts", "letters", "ethiopic", "hieroglyphs")

# The first words of their letters' Unicode names. Left out: scripts of fewer than 25 letters, and those whose letters
# look like Latin capitals.
SCRIPTS = (
    "adlam", "anatolian", "armenian", "avestan", "balinese", "bamum", "bassa vah", "batak", "bengali", "brahmi",
    "canadian", "carian", "chakma", "cham", "cuneiform", "cypriot", "devanagari", "duployan", "egyptian", "ethiopic",
    "georgian", "glagolitic", "grantha", "gujarati", "gurmukhi", "javanese", "kannada", "kayah li", "khmer", "khojki",
    "lao", "lepcha", "linear a", "linear b", "malayalam", "mandaic", "mende kikakui", "meroitic", "miao", "modi",
    "mongolian", "myanmar", "new tai lue", "nko", "nushu", "ogham", "ol chiki", "old hungarian", "old permic",
    "old persian", "old turkic", "oriya", "osmanya", "pahawh hmong", "phags-pa", "runic", "shavian", "siddham",
    "sinhala", "soyombo", "sundanese", "syriac", "tai tham", "tai viet", "tamil", "telugu", "thaana", "thai",
    "tibetan", "tifinagh", "tirhuta", "ugaritic", "vai", "wancho", "yezidi", "yi",
)  # fmt: skip
_FILE_NAMES = {"anatolian": "AnatolianHieroglyphs", "canadian": "CanadianAboriginal", "egyptian": "EgyptianHieroglyphs"}

# Scripts that at least two families draw, except those of other sources.
LETTERS = {
    "bengali": "অআইউএকখগঘচছজঝঞটঠডতথদধনপফবভমলষস",
    "devanagari": "अइउएकखगघचछजझटठडतथदधनपफबभमयरलवसह",
    "gujarati": "અઇઉકખગઘચછજટઠડતથદધનપફબભમયરલવસહ",
    "kannada": "ಅಇಉಎಕಖಗಘಚಜಟಡತದನಪಬಮಯರಲವಸಹಳ",
    "khmer": "កខគឃងចឆជឈញដឋឌឍណតថទធនបផពភមយរលវសហឡអ",
    "lao": "ກຂຄງຈສຊຍດຕຖທນບປຜຝພຟມຢຣລວຫອຮ",
    "thai": "กขคงจฉชซญฎฐณดตถทธนบปผฝพฟมยรลวศสหฬอฮ",
}

# Gardiner's sections with at least 18 signs.
SECTIONS = {
    "A": "men", "C": "gods", "D": "parts of the body", "E": "mammals", "F": "parts of mammals", "G": "birds",
    "I": "reptiles", "M": "plants", "N": "sky and earth", "O": "buildings", "R": "temple furniture", "S": "dress",
    "T": "weapons", "U": "tools", "V": "rope", "W": "vessels",
}  # fmt: skip

_VOWELS = 7
# The code points of a consonant's syllables are consecutive. Rows without all vowels (U+1248 QWA, ...) are left out:
# they are not separate consonants.
CONSONANTS = "".join(
    chr(code) for code in range(0x1200, 0x1358, 8) if all(unicodedata.name(chr(code + n), "") for n in range(_VOWELS))
)


class NotoFonts:
    """Options: kind, classes, letters, first and count, look, images (about how many).

    The classes of kind `scripts` are the scripts in `classes`; those of kind `letters` are the letters of a script, a
    key of LETTERS. `first` and `count` select a range of those letters, or of the Ethiopic consonants.
    """

    name = "fonts-noto"
    package = "fonts-noto-core"
    licence = "OFL-1.1"
    defaults: Mapping[str, Any] = {
        "kind": "scripts",
        "classes": [],
        "letters": "thai",
        "first": 0,
        "count": 20,
        "look": "print",
        "images": 1900,
    }

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return missing_package(NOTO, _FILES)

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "kind", chosen["kind"], KINDS)
        check_choice(self.name, "letters", chosen["letters"], LETTERS)
        check_choice(self.name, "look", chosen["look"], LOOKS)
        first, count = chosen["first"], chosen["count"]
        if chosen["kind"] == "scripts":
            glyphs = self._scripts(chosen["classes"])
        elif chosen["kind"] == "letters":
            wanted = cut_alphabet(self.name, LETTERS[chosen["letters"]], chosen["letters"], first, count)
            glyphs = [
                dataclasses.replace(glyph, label=letter_name(glyph.character))
                for glyph in character_glyphs(faces_of(chosen["letters"]), wanted)
            ]
        elif chosen["kind"] == "ethiopic":
            glyphs = _syllables(cut_alphabet(self.name, CONSONANTS, "ethiopic", first, count))
        else:
            glyphs = _hieroglyphs()
        yield from render(glyphs, chosen["look"], chosen["images"], seed, (0, 0, 1))

    def _scripts(self, classes: list[str]) -> list[Glyph]:
        for script in classes:
            check_choice(self.name, "classes", script, SCRIPTS)
        if len(set(classes)) < 2:
            raise ParamsError(f"source {self.name!r}: options.classes: got {classes}, want at least two scripts")
        return [
            Glyph(face, character, script, f"U+{ord(character):04X}")
            for script in dict.fromkeys(classes)
            for face, _ in faces_of(script)
            for character in letters_of(face, script)
        ]


def faces_of(script: str) -> list[tuple[Face, str]]:
    """Return the upright faces of a script, each with its family. The regular and the bold face share a family."""
    file_name = _FILE_NAMES.get(script, re.sub(r"[ -]", "", script.title()))
    matches = ((path, _FACE.fullmatch(path.stem)) for path in _fonts())
    return [(Face(path), match[1].lower()) for path, match in matches if match and match[2] == file_name]


def letters_of(face: Face, script: str) -> list[str]:
    """Return the letters of a script that the face has glyphs for."""
    prefix = f"{script.upper()} "
    characters = (chr(code) for code in sorted(face.codes))
    return [c for c in characters if unicodedata.category(c)[0] == "L" and unicodedata.name(c, "").startswith(prefix)]


def letter_name(character: str) -> str:
    """Return the letter's name without its script: few fonts of a screen could show the letter itself."""
    return re.split(r" (?:LETTER|CHARACTER|SYLLABLE) ", unicodedata.name(character), maxsplit=1)[-1].lower()


def _syllables(consonants: str) -> list[Glyph]:
    """Return Ethiopic syllables: class = consonant, named by its first syllable; group = vowel."""
    return [
        Glyph(face, chr(ord(first) + n), letter_name(first), f"vowel {n + 1}")
        for face, _ in faces_of("ethiopic")
        for first in consonants
        for n in range(_VOWELS)
    ]


def _hieroglyphs() -> list[Glyph]:
    """Return hieroglyphs: class = section of Gardiner's list, group = the sign with its variants."""
    glyphs = []
    for face, _ in faces_of("egyptian"):
        for character in letters_of(face, "egyptian"):
            match = re.fullmatch(r"EGYPTIAN HIEROGLYPH ([A-Z]+)(\d+)[A-Z]*", unicodedata.name(character))
            if match and match[1] in SECTIONS:
                glyphs.append(Glyph(face, character, SECTIONS[match[1]], f"sign {match[1]}{match[2]}"))
    return glyphs


def _fonts() -> list[Path]:
    return font_files(fetch(NOTO, _FILES))
