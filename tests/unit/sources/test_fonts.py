"""Typefaces: what a face draws, which faces are near-copies, and tasks of small font packages made here."""

from __future__ import annotations

import dataclasses
import shutil
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tans_core.errors import ParamsError
from tans_core.sources import get_source, noto_fonts
from tans_core.sources.base import Sample
from tans_core.sources.debian_fonts import AENIGMA, ARABIC, CULMUS, Alphabet, FontSource
from tans_core.sources.noto_fonts import LETTERS, NOTO, SCRIPTS, SECTIONS, letter_name
from tans_core.sources.typefaces import Face, group_faces
from tests.factories.fonts import Polygon, pack, shape, write_font

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on this machine")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANS_PACKAGES", str(tmp_path / "packages"))


def alphabet(characters: str, seed: int, shift: int = 0) -> dict[str, Polygon]:
    return {c: [(x + shift * (y % 2), y) for x, y in shape(1000 * seed + n)] for n, c in enumerate(characters)}


def groups_by_class(samples: list[Sample]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        found[sample.label].add(sample.group)
    return found


def test_a_face_draws_what_its_file_maps_to_ink(tmp_path: Path) -> None:
    face = Face(write_font(tmp_path / "a.ttf", "A", alphabet("ab", 1) | {"c": [], "d": shape(5)}))
    assert face.draws("ab") and face.draws("d")
    assert not face.draws("abc"), "c is blank"
    assert not face.draws("abz"), "z is not mapped"


def test_near_copies_and_members_of_one_family_share_a_group(tmp_path: Path) -> None:
    fonts = {
        "plain": ("Plain", alphabet("abcdef", 1)),
        "copy": ("Copy", alphabet("abcdef", 1, shift=9)),
        "other": ("Other", alphabet("abcdef", 2)),
        "other-bold": ("Other Bold", alphabet("abcdef", 3)),
        "alone": ("Alone", alphabet("abcdef", 4)),
    }
    faces = [Face(write_font(tmp_path / f"{name}.ttf", *font)) for name, font in fonts.items()]
    assert group_faces(faces, "abcdef") == ["plain", "plain", "other", "other", "alone"]
    assert group_faces([], "abc") == []


def source(tmp_path: Path) -> FontSource:
    """Six faces of capitals in five families; two more draw nothing usable."""
    folder = tmp_path / "tree/usr/share/fonts/truetype/x"
    for number in range(5):
        write_font(folder / f"face{number}.ttf", f"Family{number}", alphabet("ABCDEF", number))
    write_font(folder / "face4-bold.ttf", "Family4", alphabet("ABCDEF", 9))
    write_font(folder / "half.ttf", "Half", alphabet("ABC", 10))
    write_font(folder / "ornaments.ttf", "Ornaments", alphabet("ABCDEF", 11))
    return dataclasses.replace(
        AENIGMA,
        packages=(pack(AENIGMA.packages[0], tmp_path / "tree"),),
        alphabets={"upper": Alphabet("ABCDEF", "ornaments other")},
    )


@needs_dpkg
def test_letters_come_from_readable_faces_split_by_family(tmp_path: Path) -> None:
    fonts = source(tmp_path)
    samples = list(fonts.load({"images": 120, "count": 4}, 0))
    assert Counter(sample.label for sample in samples) == dict.fromkeys("ABCD", 30)
    assert {frozenset(groups) for groups in groups_by_class(samples).values()} == {
        frozenset({"face0", "face1", "face2", "face3", "face4-bold"})
    }
    assert {sample.path.split("/")[0] for sample in samples} >= {"face4", "face4-bold"}
    assert [s.image.tobytes() for s in fonts.load({"images": 120, "count": 4}, 0)] == [
        s.image.tobytes() for s in samples
    ]


@needs_dpkg
def test_typefaces_are_one_of_each_family_split_by_letter(tmp_path: Path) -> None:
    samples = list(source(tmp_path).load({"kind": "typefaces", "images": 60, "first": 1}, 0))
    assert {sample.label for sample in samples} == {"face1", "face2", "face3", "face4-bold"}
    assert {sample.group for sample in samples} == {f"letter {letter}" for letter in "ABCDEF"}


@needs_dpkg
def test_a_cut_that_leaves_one_typeface_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="want at least 2 of the 5 distinct typefaces"):
        list(source(tmp_path).load({"kind": "typefaces", "first": 4}, 0))


@needs_dpkg
def test_a_letter_that_a_face_draws_like_another_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "tree/usr/share/fonts/truetype/x"
    write_font(folder / "a.ttf", "A", alphabet("ABC", 1))
    write_font(folder / "b.ttf", "B", alphabet("AB", 2) | {"C": shape(2000)})
    package = pack(CULMUS.packages[0], tmp_path / "tree")
    fonts = dataclasses.replace(CULMUS, packages=(package,), alphabets={"x": Alphabet("ABC")})
    groups = groups_by_class(list(fonts.load({"images": 60}, 0)))
    assert groups == {"A": {"a"}, "B": {"a", "b"}, "C": {"a"}}


@needs_dpkg
def test_two_packages_are_one_source(tmp_path: Path) -> None:
    packages = []
    for number, package in enumerate(ARABIC.packages):
        tree = tmp_path / f"tree{number}"
        write_font(tree / f"usr/share/fonts/x/face{number}.ttf", f"F{number}", alphabet("ابت", number))
        packages.append(pack(package, tree))
    fonts = dataclasses.replace(ARABIC, packages=tuple(packages), alphabets={"arabic": Alphabet("ابت")})
    assert fonts.package == "fonts-arabeyes, fonts-kacst"
    assert fonts.missing({}) == f"unpacked at first use: {packages[0].file}"
    assert {sample.group for sample in fonts.load({"images": 30}, 0)} == {"face0", "face1"}
    assert fonts.missing({}) is None


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("culmus", {"first": 19}, "options.first, options.count: got 19, 20, want at least 2 of the 20 characters"),
        ("culmus", {"first": -3}, "options.first"),
        ("fonts-aenigma", {"characters": "uper"}, "did you mean 'upper'"),
        ("arabic-fonts", {"kind": "letters"}, "want one of characters, typefaces"),
        ("fonts-noto", {"classes": ["thai"]}, "want at least two scripts"),
        ("fonts-noto", {"classes": ["thai", "tamli"]}, "did you mean 'tamil'"),
        ("fonts-noto", {"kind": "letters", "letters": "thia"}, "did you mean 'thai'"),
        ("fonts-noto", {"kind": "ethiopic", "first": 36}, "options.first"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError) as caught:
        list(get_source(name).load(options, 0))
    assert words in str(caught.value)


def noto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fonts: dict[str, str]) -> None:
    """Install a Noto package of faces that draw these characters."""
    folder = tmp_path / "tree/usr/share/fonts/truetype/noto"
    for number, (name, characters) in enumerate(fonts.items()):
        write_font(folder / f"{name}.ttf", name, alphabet(characters, number))
    monkeypatch.setattr(noto_fonts, "NOTO", pack(NOTO, tmp_path / "tree"))


def load(**options: Any) -> list[Sample]:
    return list(get_source("fonts-noto").load(options, 0))


@needs_dpkg
def test_scripts_are_split_by_letter_whatever_face_draws_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fonts = {"NotoSansThai-Regular": "กขค1A", "NotoSerifThai-Bold": "กขค", "NotoSansOldPersian-Regular": "𐎠𐎡𐏑"}
    noto(tmp_path, monkeypatch, fonts)
    samples = load(classes=["old persian", "thai"], images=40)
    # Digits, Latin letters and numbers are no letters of the script.
    assert groups_by_class(samples) == {
        "thai": {"U+0E01", "U+0E02", "U+0E04"},
        "old persian": {"U+103A0", "U+103A1"},
    }
    assert {sample.path.split("/")[0] for sample in samples} == set(fonts)


@needs_dpkg
def test_letters_of_a_script_are_split_by_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = LETTERS["thai"][:6]
    names = (
        "NotoSansThai-Regular",
        "NotoSansThai-Bold",
        "NotoSerifThai-Regular",
        "NotoLoopedThai-Bold",
        "NotoSansLao-Bold",
    )
    noto(tmp_path, monkeypatch, dict.fromkeys(names, letters))
    groups = groups_by_class(load(kind="letters", first=1, count=5, images=100))
    assert groups == {letter_name(letter): {"sans", "serif", "looped"} for letter in letters[1:]}
    assert "kho khai" in groups


@needs_dpkg
def test_ethiopic_syllables_are_split_by_vowel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    characters = "".join(map(chr, range(0x1200, 0x1210)))
    noto(tmp_path, monkeypatch, {"NotoSansEthiopic-Bold": characters})
    groups = groups_by_class(load(kind="ethiopic", count=2, images=200))
    assert groups == {name: {f"vowel {n}" for n in range(1, 8)} for name in ("ha", "la")}


@needs_dpkg
def test_variants_of_a_hieroglyph_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A001, A002, A005, A005A, G005, Z001; strokes (Z) are no section of the task.
    noto(tmp_path, monkeypatch, {"NotoSansEgyptianHieroglyphs-Regular": "𓀀𓀁𓀄𓀅𓅃𓏤"})
    groups = groups_by_class(load(kind="hieroglyphs", images=40))
    assert groups == {"men": {"sign A001", "sign A002", "sign A005"}, "birds": {"sign G005"}}


def test_every_script_and_every_letter_is_known_to_unicode() -> None:
    names = [unicodedata.name(chr(code), "") for code in range(0x20000) if unicodedata.category(chr(code))[0] == "L"]
    beginnings = Counter(" ".join(name.split()[:n]).lower() for name in names for n in (1, 2, 3))
    assert {script for script in SCRIPTS if beginnings[script] < 25} == set()
    for script, letters in LETTERS.items():
        assert len(set(map(letter_name, letters))) == len(letters) >= 20
        assert {unicodedata.name(letter).split()[0].lower() for letter in letters} == {script}
    assert len(set(SECTIONS.values())) == len(SECTIONS)


@pytest.mark.parametrize("fonts", [AENIGMA, ARABIC, CULMUS], ids=lambda fonts: fonts.name)
def test_alphabets_hold_letters_once(fonts: FontSource) -> None:
    for letters in fonts.alphabets.values():
        assert len(set(letters.characters)) == len(letters.characters)
        assert {unicodedata.category(letter)[0] for letter in letters.characters} <= {"L", "N"}


@pytest.mark.parametrize("name", ["fonts-aenigma", "culmus", "arabic-fonts", "fonts-noto"])
def test_packages_that_are_not_here_say_how_they_come(name: str) -> None:
    said = get_source(name).missing({})
    assert said is not None and said.startswith(("fetched at first use: ", "needs `"))
