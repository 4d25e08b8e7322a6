"""Numbers and names in messages and pages."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5
_NAME_CHARS = 80
# Joiners are needed in emoji and Persian words; other unprintable characters could reverse or end a line.
_JOINERS = "\u200c\u200d"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return "1 file", "2,000 files"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def quoted(name: str) -> str:
    """Return a name in quotes, safe for a terminal: unprintable characters escaped, the middle of a long name cut."""
    if len(name) > _NAME_CHARS:
        name = f"{name[: _NAME_CHARS // 2]}…{name[-_NAME_CHARS // 2 :]}"
    return repr(name)


def listed(items: Sequence[str], limit: int = SHOWN) -> str:
    """Return "a, b and 3 more"."""
    more = f" and {len(items) - limit:,} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def shown(text: str) -> str:
    """Return text that is safe in a terminal, in UTF-8 and in HTML: unprintable characters become their codes."""
    return "".join(
        letter if letter.isprintable() or letter in _JOINERS else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
