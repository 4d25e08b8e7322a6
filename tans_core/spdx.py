"""SPDX licence expressions as trees: ids joined by AND, OR and WITH, in one canonical form.

The library license-expression provides the ids and parses the syntax. Its comparison is not used: its simplification
can take very long, and ignores the meaning of exceptions.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+", re.IGNORECASE)
"""The name of terms without an SPDX id."""

# Longer or deeper texts count as prose.
MAX_LETTERS, MAX_DEPTH = 8000, 32

# In the library's index, but not in the SPDX list.
_NOT_SPDX = frozenset({"gpl", "bsd-2", "verbatim-man-pages"})
# A licence of the SPDX list that the index marks as an exception.
_NO_EXCEPTION = "MPL-2.0-no-copyleft-exception"
# Deprecated ids that include an exception -> their current licence and exception.
_PAIRS = {
    "ecos-2.0": ("GPL-2.0-or-later", "eCos-exception-2.0"),
    "gpl-2.0-with-autoconf-exception": ("GPL-2.0-only", "Autoconf-exception-2.0"),
    "gpl-2.0-with-bison-exception": ("GPL-2.0-only", "Bison-exception-2.2"),
    "gpl-2.0-with-classpath-exception": ("GPL-2.0-only", "Classpath-exception-2.0"),
    "gpl-2.0-with-font-exception": ("GPL-2.0-only", "Font-exception-2.0"),
    "gpl-2.0-with-gcc-exception": ("GPL-2.0-only", "GCC-exception-2.0"),
    "gpl-3.0-with-autoconf-exception": ("GPL-3.0-only", "Autoconf-exception-3.0"),
    "gpl-3.0-with-gcc-exception": ("GPL-3.0-only", "GCC-exception-3.1"),
    "wxwindows": ("LGPL-2.0-or-later", "WxWindows-exception-3.1"),
}


@dataclass(frozen=True)
class Leaf:
    """One licence: `base`, or `base WITH exception`."""

    base: str
    exception: str = ""

    @property
    def name(self) -> str:
        return f"{self.base} WITH {self.exception}" if self.exception else self.base

    @property
    def leaves(self) -> frozenset[Leaf]:
        return frozenset({self})

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Node:
    """Parts joined by AND or OR, in alphabetical order, each once; no part has the same operator."""

    operator: str
    parts: tuple[Leaf | Node, ...]

    @property
    def leaves(self) -> frozenset[Leaf]:
        return frozenset().union(*(part.leaves for part in self.parts))

    def __str__(self) -> str:
        parts = (f"({part})" if isinstance(part, Node) else str(part) for part in self.parts)
        return f" {self.operator} ".join(parts)


Tree = Leaf | Node


@lru_cache(maxsize=4096)
def parse(text: str) -> Tree | None:
    """Parse an expression; None if it is prose, has an unknown id, is too long or too deeply nested."""
    if len(text) > MAX_LETTERS or not text.isascii():
        return None
    text = clean(text)
    depths = itertools.accumulate((letter == "(") - (letter == ")") for letter in text)
    if not text or max(depths) > MAX_DEPTH:
        return None
    from license_expression import ExpressionError

    try:
        return _to_tree(_licensing().parse(text, simple=True))
    except (ExpressionError, LookupError, AssertionError):
        # LookupError is an unknown id. Like AssertionError, it is also a bug of the parser (at `()`).
        return None


def join(operator: str, trees: Iterable[Tree]) -> Tree:
    """Join trees, at least one, by AND or OR."""
    parts: dict[str, Tree] = {}
    for tree in trees:
        inner = tree.parts if isinstance(tree, Node) and tree.operator == operator else (tree,)
        for part in inner:
            parts.setdefault(str(part).casefold(), part)
    ordered = tuple(parts[key] for key in sorted(parts))
    return ordered[0] if len(ordered) == 1 else Node(operator, ordered)


def licence_ids() -> frozenset[str]:
    """Return all current licence ids in SPDX spelling."""
    return frozenset(_ids()[0].values())


def clean(text: str) -> str:
    """Return a text on one line, without control characters, surrogates and text direction marks."""
    return " ".join("".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text).split())


@lru_cache(maxsize=1)
def _licensing() -> Any:
    # Imported here: reading its list of licences takes some 30 ms.
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@lru_cache(maxsize=1)
def _ids() -> tuple[dict[str, str], dict[str, str]]:
    """Return SPDX ids of licences and of exceptions by lower-case name; deprecated names map to current ids."""
    licences: dict[str, str] = {}
    exceptions: dict[str, str] = {}
    symbols = _licensing().known_symbols
    current = {key.casefold() for key in symbols}
    for key, symbol in symbols.items():
        former = [alias for alias in symbol.aliases if not REFERENCE.fullmatch(alias)]
        if REFERENCE.fullmatch(key):
            # An id that the index dropped but SPDX has: Net-SNMP.
            licences.update({alias.casefold(): alias for alias in former})
            continue
        names = exceptions if symbol.is_exception and key != _NO_EXCEPTION else licences
        names.update(dict.fromkeys({alias.casefold() for alias in former} - current - _NOT_SPDX, key))
        names[key.casefold()] = key
    for former_id in _PAIRS:
        licences.pop(former_id, None)
        exceptions.pop(former_id, None)
    return licences, exceptions


def _to_tree(parsed: Any) -> Tree:
    """Convert the library's parse result to a tree.

    Raises:
        LookupError: a name in it is neither an SPDX id nor a LicenseRef-...
    """
    if not parsed.isliteral:
        operator = "AND" if isinstance(parsed, _licensing().AND) else "OR"
        return join(operator, [_to_tree(part) for part in parsed.args])
    pair = getattr(parsed, "exception_symbol", None)
    if pair is None:
        return _leaf(parsed.key)
    leaf, exception = _leaf(parsed.license_symbol.key), _ids()[1][pair.key.casefold()]
    if leaf.exception:
        raise LookupError(f"{leaf.name} WITH {exception}")
    return Leaf(leaf.base, exception)


def _leaf(key: str) -> Leaf:
    low, licences = key.casefold(), _ids()[0]
    if low in _PAIRS:
        return Leaf(*_PAIRS[low])
    if low in licences:
        return Leaf(licences[low])
    if REFERENCE.fullmatch(key):
        return Leaf(f"LicenseRef-{key.partition('-')[2]}")
    # `Apache-2.0+`: this version or a later one. GPL ids use -only and -or-later instead.
    if low.endswith("+") and low[:-1] in licences and not low.endswith(("-only+", "-or-later+")):
        return Leaf(f"{licences[low[:-1]]}+")
    raise LookupError(key)
