"""Typefaces made on the fly, and Debian packages with them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from tans_core.io import sha256_file
from tans_core.sources.fetch import Package, packages_folder

Polygon = Sequence[tuple[int, int]]

_BOX: Polygon = ((0, 0), (0, 700), (500, 700), (500, 0))


def shape(seed: int) -> Polygon:
    """Return a star-shaped polygon; another seed gives another shape."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, -2 * np.pi, 9, endpoint=False)
    radii = rng.uniform(80, 450, 9)
    points = np.stack([500 + radii * np.cos(angles), 400 + radii * np.sin(angles)], axis=1).round().astype(int)
    return [(int(x), int(y)) for x, y in points]


def write_font(path: Path, family: str, glyphs: Mapping[str, Polygon]) -> Path:
    """Write a TrueType file; a character without points is mapped to a blank glyph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    outlines: dict[str, Polygon] = {".notdef": _BOX} | {f"u{ord(c):04X}": points for c, points in glyphs.items()}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(list(outlines))
    builder.setupCharacterMap({ord(c): f"u{ord(c):04X}" for c in glyphs})
    builder.setupGlyf({name: _glyph(points) for name, points in outlines.items()})
    builder.setupHorizontalMetrics(dict.fromkeys(outlines, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def pack(package: Package, tree: Path) -> Package:
    """Make a Debian package of the files under `tree`, in the folder for manual downloads; return its description."""
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {package.name}\nVersion: {package.version}\nArchitecture: all\n"
        "Maintainer: A <a@b.c>\nDescription: d\n"
    )
    path = packages_folder() / "downloads" / package.file
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-Znone", "-b", tree, path], check=True, capture_output=True)
    return Package("debian", package.name, package.version, sha256_file(path), 1)


def _glyph(points: Polygon) -> object:
    pen = TTGlyphPen(None)
    if points:
        pen.moveTo(points[0])
        for point in points[1:]:
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()
