"""SPDX licence expressions as trees: ids joined by AND, OR and WITH, in one canonical form.

The library license-expression knows the ids and reads the syntax. Its own comparison is left alone: it simplifies,
which can take very long, and does not know what an exception means.
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
"""The name of terms that SPDX has no id for."""

# Beyond these a text is prose, whatever it looks like.
MAX_LETTERS, MAX_DEPTH = 8000, 32

# In the library's index, but not in the list of SPDX.
_NOT_SPDX = frozenset({"gpl", "bsd-2", "verbatim-man-pages"})
# An id of the list that the index takes for an exception.
_NO_EXCEPTION = "MPL-2.0-no-copyleft-exception"
# Deprecated ids that held an exception, as what SPDX writes instead.
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
    """Parts joined by AND or OR, none of them joined by the same: alphabetical, each once."""

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
    """Read an expression; None where it is none: prose, an unknown id, too long, or too deep in parentheses."""
    if len(text) > MAX_LETTERS or not text.isascii():
        return None
    text = clean(text)
    depths = itertools.accumulate((letter == "(") - (letter == ")") for letter in text)
    if not text or max(depths) > MAX_DEPTH:
        return None
    from license_expression import ExpressionError

    try:
        return _grow(_licensing().parse(text, simple=True))
    except (ExpressionError, LookupError, AssertionError):
        # LookupError is an unknown id, but also a slip of the parser (at `()`), as AssertionError is.
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
    """Return all ids of licences, as SPDX spells them today."""
    return frozenset(_ids()[0].values())


def clean(text: str) -> str:
    """Return a text on one line, without control characters, surrogates and marks that turn the way of writing."""
    return " ".join("".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text).split())


@lru_cache(maxsize=1)
def _licensing() -> Any:
    # Imported here: its list of licences takes some 30 ms to read.
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@lru_cache(maxsize=1)
def _ids() -> tuple[dict[str, str], dict[str, str]]:
    """Return what SPDX calls licences and exceptions, by names in lower case; deprecated names lead to today's."""
    licences: dict[str, str] = {}
    exceptions: dict[str, str] = {}
    symbols = _licensing().known_symbols
    current = {key.casefold() for key in symbols}
    for key, symbol in symbols.items():
        former = [alias for alias in symbol.aliases if not REFERENCE.fullmatch(alias)]
        if REFERENCE.fullmatch(key):
            # The index has dropped an id that SPDX keeps: Net-SNMP.
            licences.update({alias.casefold(): alias for alias in former})
            continue
        names = exceptions if symbol.is_exception and key != _NO_EXCEPTION else licences
        names.update(dict.fromkeys({alias.casefold() for alias in former} - current - _NOT_SPDX, key))
        names[key.casefold()] = key
    for former_id in _PAIRS:
        licences.pop(former_id, None)
        exceptions.pop(former_id, None)
    return licences, exceptions


def _grow(parsed: Any) -> Tree:
    """Turn what the library has parsed into a tree.

    Raises:
        LookupError: a name in it is neither an SPDX id nor a LicenseRef-...
    """
    if not parsed.isliteral:
        operator = "AND" if isinstance(parsed, _licensing().AND) else "OR"
        return join(operator, [_grow(part) for part in parsed.args])
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
    # `Apache-2.0+`: this version or a later one. The GPL's own ids say so themselves.
    if low.endswith("+") and low[:-1] in licences and not low.endswith(("-only+", "-or-later+")):
        return Leaf(f"{licences[low[:-1]]}+")
    raise LookupError(key)
