"""Sources `fonts-aenigma`, `culmus` and `arabic-fonts`: pictures of glyphs of typefaces in Debian packages.

Two kinds of task: which letter (split by typeface), which typeface (split by letter).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tans_core.errors import ParamsError
from tans_core.sources.aenigma import NO_DIGITS, NO_LOWER, NO_UPPER
from tans_core.sources.base import Sample, check_choice, check_options
from tans_core.sources.drawing import LOOKS
from tans_core.sources.fetch import Package, fetch, missing_package
from tans_core.sources.typefaces import (
    MIN_COPY_CORRELATION,
    Face,
    Glyph,
    character_glyphs,
    cut_alphabet,
    group_faces,
    render,
)

KINDS = ("characters", "typefaces")


@dataclass(frozen=True)
class Alphabet:
    """Characters, and the names of the faces to leave out: they draw something else, or nothing readable."""

    characters: str
    left_out: str = ""


@dataclass(frozen=True)
class FontSource:
    """Options: kind, characters (a key of `alphabets`), first and count, look, images (about how many).

    `first` and `count` select a range of the characters. With kind `typefaces` they select a range of the faces, one
    face per group.

    Attributes:
        packages: the packages that contain the faces.
        files: glob patterns of the faces in the packages.
        alphabets: the alphabets that the faces draw.
        min_correlation: faces whose glyphs correlate at least so much are near-copies.
    """

    name: str
    licence: str
    packages: tuple[Package, ...]
    files: tuple[str, ...]
    alphabets: Mapping[str, Alphabet]
    min_correlation: float = MIN_COPY_CORRELATION

    @property
    def package(self) -> str:
        return ", ".join(package.name for package in self.packages)

    @property
    def defaults(self) -> Mapping[str, Any]:
        first = next(iter(self.alphabets))
        return {"kind": "characters", "characters": first, "first": 0, "count": 20, "look": "print", "images": 1900}

    def missing(self, options: Mapping[str, Any]) -> str | None:
        lines = (missing_package(package, self.files) for package in self.packages)
        return next((line for line in lines if line), None)

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "kind", chosen["kind"], KINDS)
        check_choice(self.name, "characters", chosen["characters"], self.alphabets)
        check_choice(self.name, "look", chosen["look"], LOOKS)
        alphabet = self.alphabets[chosen["characters"]]
        if chosen["kind"] == "characters":
            first, count = chosen["first"], chosen["count"]
            wanted = cut_alphabet(self.name, alphabet.characters, chosen["characters"], first, count)
            glyphs = character_glyphs(self._grouped(alphabet), wanted)
        else:
            glyphs = self._typefaces(alphabet, chosen["first"], chosen["count"])
        # Typefaces differ in weight, so it is not changed there.
        bolder_px = (0,) if chosen["kind"] == "typefaces" else (0, 0, 1)
        yield from render(glyphs, chosen["look"], chosen["images"], seed, bolder_px)

    def faces(self, alphabet: Alphabet) -> list[Face]:
        """Return the faces that draw every character of an alphabet, ordered by name.

        Raises:
            SourceUnavailableError: a package cannot be fetched.
        """
        left_out = frozenset(alphabet.left_out.split())
        folders = [fetch(package, self.files) for package in self.packages]
        paths = (path for folder in folders for path in font_files(folder) if path.stem not in left_out)
        return [face for face in map(Face, paths) if face.draws(alphabet.characters)]

    def _grouped(self, alphabet: Alphabet) -> list[tuple[Face, str]]:
        faces = self.faces(alphabet)
        return list(zip(faces, group_faces(faces, alphabet.characters, self.min_correlation), strict=True))

    def _typefaces(self, alphabet: Alphabet, first: int, count: int) -> list[Glyph]:
        distinct = [face for face, group in self._grouped(alphabet) if face.name == group]
        wanted = distinct[first : first + count]
        if first < 0 or len(wanted) < 2:
            raise ParamsError(
                f"source {self.name!r}: options.first, options.count: got {first}, {count}, "
                f"want at least 2 of the {len(distinct)} distinct typefaces"
            )
        return [
            Glyph(face, character, face.name, f"letter {character}")
            for face in wanted
            for character in alphabet.characters
        ]


def font_files(folder: Path) -> list[Path]:
    """Return the TrueType and OpenType files of an unpacked package."""
    return sorted(path for path in (folder / "usr/share/fonts").rglob("*") if path.suffix in (".ttf", ".otf"))


AENIGMA = FontSource(
    name="fonts-aenigma",
    licence="LicenseRef-aenigma",
    packages=(
        Package(
            manager="debian",
            name="fonts-aenigma",
            version="0.0.20080511+dfsg-4",
            sha256="c7f33a4e5932af82a92c81a5a993a1d117c4309b47532cb0d9c3ad34bc54f5a8",
            size_mb=7,
            licence="LicenseRef-aenigma",
        ),
    ),
    files=("usr/share/fonts/*.ttf",),
    alphabets={
        "upper": Alphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZ", NO_UPPER),
        "lower": Alphabet("abcdefghijklmnopqrstuvwxyz", NO_LOWER),
        "digits": Alphabet("0123456789", NO_DIGITS),
    },
)

CULMUS = FontSource(
    name="culmus",
    licence="GPL-2.0-only AND GPL-2.0-only WITH Font-exception-2.0",
    packages=(
        Package(
            manager="debian",
            name="culmus",
            version="0.133-1",
            sha256="d13eb8269204532e4239ce0b133343b8f764fb2069e057ea86060e7396101b30",
            size_mb=1,
            licence="GPL-2.0-only AND GPL-2.0-only WITH Font-exception-2.0",
        ),
    ),
    files=("usr/share/fonts/*.ttf", "usr/share/fonts/*.otf"),
    # Without final forms, and without vav and yod: cropped and enlarged, they are one stroke, much like zayin.
    alphabets={"hebrew": Alphabet("אבגדהזחטכלמנסעפצקרשת")},
)

ARABIC = FontSource(
    name="arabic-fonts",
    licence="GPL-2.0-only",
    packages=(
        Package(
            manager="debian",
            name="fonts-arabeyes",
            version="2.1-7",
            sha256="344e3dbfc374e675f667ebbaf63e55e858d42c1f2df3d39c27612559a5c1458e",
            size_mb=1,
            licence="GPL-2.0-only",
        ),
        Package(
            manager="debian",
            name="fonts-kacst",
            version="2.01+mry-15",
            sha256="1a83306b736dbc0a26a10d89b924f1aaaa6743ab5218b2b474be6bbb00b6fa89",
            size_mb=1,
            licence="GPL-2.0-only",
        ),
    ),
    files=("usr/share/fonts/*.ttf",),
    # Isolated forms. Haramain is left out: it draws each letter small, under an ornament.
    alphabets={"arabic": Alphabet("ابتثجحخدذرزسشصضطظعغفقكلمنهوي", "ae_Haramain")},
    # Their book faces share shapes but differ in the width of thin strokes, which lowers the correlation.
    min_correlation=0.74,
)
