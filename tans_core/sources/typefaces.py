"""Typefaces as images: which characters a face draws, which faces are near-copies, and pictures of their glyphs.

Axes: F faces, C characters, H, W = height and width of a glyph in pixels, T = thumbnail size in pixels.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFont

from tans_core.errors import ParamsError
from tans_core.runtime import derive_seed
from tans_core.sources.base import Sample
from tans_core.sources.drawing import GLYPH_PX, LOOKS, Mask, draw, embolden, glyph_mask

MIN_COPY_CORRELATION = 0.9
"""Two faces are near-copies if the mean correlation of their glyphs is above this."""

_THUMBNAIL_PX = 12


class Face:
    """One font file at the drawing size, and the glyphs that it draws."""

    def __init__(self, path: Path, size_px: int = GLYPH_PX) -> None:
        self.name, self.path = path.stem, path
        self.font = ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)
        self._masks: dict[str, Mask] = {}

    @cached_property
    def _missing(self) -> bytes:
        # U+10FFFF is never assigned, so it is drawn as the face's "missing glyph" box.
        return glyph_mask(self.font, "\U0010ffff").tobytes()

    @cached_property
    def codes(self) -> frozenset[int]:
        """The code points that the file maps to a glyph; none if it has no Unicode map."""
        from fontTools.ttLib import TTFont

        with TTFont(self.path, lazy=True) as file:
            return frozenset(file.getBestCmap() or ())

    @property
    def family(self) -> str:
        """The first word of the family's name in lower case: bold and oblique faces share it."""
        words = (self.font.getname()[0] or "").lower().split()
        return words[0] if words else self.name

    def draws(self, characters: str) -> bool:
        """Return whether the file maps all of these characters, and none is blank."""
        return all(ord(c) in self.codes for c in characters) and all(self.mask(c) is not None for c in characters)

    def mask(self, character: str) -> Mask | None:
        """Return the character's (H, W) mask, or None if the face draws nothing or its missing-glyph box."""
        # Computer Modern uses TeX's code points: only its letters and digits agree with Unicode.
        if self.name.startswith("cm") and not character.isascii():
            return None
        if character not in self._masks:
            self._masks[character] = glyph_mask(self.font, character)
        mask = self._masks[character]
        return None if mask.size == 0 or mask.tobytes() == self._missing else mask


@dataclass(frozen=True)
class Glyph:
    """A character of a face, with its class and its group."""

    face: Face
    character: str
    label: str
    group: str


def cut_alphabet(source: str, alphabet: str, name: str, first: int, count: int) -> str:
    """Return `count` characters of an alphabet, starting at `first`.

    Raises:
        ParamsError: fewer than two are left.
    """
    wanted = alphabet[first : first + count]
    if first < 0 or len(wanted) < 2:
        raise ParamsError(
            f"source {source!r}: options.first, options.count: got {first}, {count}, "
            f"want at least 2 of the {len(alphabet)} characters of {name!r}"
        )
    return wanted


def character_glyphs(faces: Iterable[tuple[Face, str]], wanted: str) -> list[Glyph]:
    """Return the wanted characters of all faces, given with their groups: class = character."""
    glyphs = []
    for face, group in faces:
        masks = {c: face.mask(c) for c in wanted}
        # A face may draw two characters alike (an unfinished alphabet): both are left out, one picture has one label.
        contents = [mask.tobytes() for mask in masks.values() if mask is not None]
        for character, mask in masks.items():
            if mask is not None and contents.count(mask.tobytes()) == 1:
                glyphs.append(Glyph(face, character, character_name(character), group))
    return glyphs


def group_faces(faces: Sequence[Face], characters: str, min_correlation: float = MIN_COPY_CORRELATION) -> list[str]:
    """Return the group of each of F faces. Faces of one family and near-copies share a group.

    A group is named after its first face.
    """
    from scipy.sparse.csgraph import connected_components

    if not faces:
        return []
    glyphs = np.stack([[_thumbnail(face.mask(character)) for character in characters] for face in faces])
    flat = glyphs.reshape(len(faces), len(characters), -1)
    flat = flat - flat.mean(axis=2, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), 1e-6)
    # (F, F): one matrix product gives the correlation of two faces' glyphs, averaged over C characters.
    rows = flat.reshape(len(faces), -1)
    families = np.array([face.family for face in faces])
    together = (rows @ rows.T / len(characters) > min_correlation) | (families[:, None] == families[None, :])
    _, labels = connected_components(together, directed=False)
    first: dict[int, str] = {}
    return [first.setdefault(int(label), face.name) for face, label in zip(faces, labels, strict=True)]


def _thumbnail(mask: Mask | None) -> npt.NDArray[np.float32]:
    """Return a glyph centred in a (T, T) square that its longer side fills; zeros if there is none."""
    if mask is None:
        return np.zeros((_THUMBNAIL_PX, _THUMBNAIL_PX), np.float32)
    height, width = mask.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.pad(mask, ((top, side - height - top), (left, side - width - left)))
    small = Image.fromarray(square).resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def render(glyphs: list[Glyph], look: str, images: int, seed: int, bolder_px: tuple[int, ...]) -> Iterator[Sample]:
    """Draw about `images` pictures, evenly over classes. A class's glyphs are taken in turn, with random variation.

    `bolder_px` lists by how much an outline may be thickened.
    """
    by_class: dict[str, list[Glyph]] = {}
    for glyph in glyphs:
        by_class.setdefault(glyph.label, []).append(glyph)
    for label, members in by_class.items():
        rng = np.random.default_rng(derive_seed(seed, label))
        count = images // len(by_class)
        # Shuffled, so that a class with more glyphs than pictures is sampled evenly. Blank glyphs are skipped.
        shuffled = (members[index] for index in rng.permutation(len(members)))
        drawn = list(itertools.islice((g for g in shuffled if g.face.mask(g.character) is not None), count))
        for turn in range(count if drawn else 0):
            glyph = drawn[turn % len(drawn)]
            mask = glyph.face.mask(glyph.character)
            assert mask is not None
            by_px, hollow = int(rng.choice(bolder_px)), bool(rng.random() < LOOKS[look].hollow)
            if by_px or hollow:
                mask = embolden(mask, max(by_px, 1), hollow)
            picture = draw(mask, LOOKS[look], rng)
            name = f"{glyph.face.name}/{label}/{turn:03d}.png"
            yield Sample(picture, label, glyph.group, name)


def character_name(character: str) -> str:
    """Return the character itself for letters and digits, its Unicode name for symbols."""
    if unicodedata.category(character)[0] in "LN":
        return character
    return unicodedata.name(character).lower()
