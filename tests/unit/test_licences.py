"""Licences: read as SPDX, joined, and compared with those that a user accepts."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from tans_core.errors import ParamsError
from tans_core.licences import (
    TEXTS,
    UNSTATED,
    USERS_OWN,
    Licence,
    check_accepted,
    combine,
    is_expression,
    lacking,
    normalise,
    satisfied,
    suggest,
    texts_of,
)

FONT = "GPL-2.0-only WITH Font-exception-2.0"
EXPRESSIONS = {
    "MIT": "MIT",
    " mit ": "MIT",
    "(((MIT)))": "MIT",
    "unlicense": "Unlicense",
    "OFL-1.1 and mit AND MIT": "MIT AND OFL-1.1",
    "MIT AND (OFL-1.1 AND (MIT AND ISC))": "ISC AND MIT AND OFL-1.1",
    "MIT OR Apache-2.0 AND ISC": "(Apache-2.0 AND ISC) OR MIT",
    "(MIT OR Apache-2.0) AND ISC": "(Apache-2.0 OR MIT) AND ISC",
    "MIT\tOR\nISC": "ISC OR MIT",
    "gpl-2.0-only with font-exception-2.0": FONT,
    "MIT OR (ISC AND (Zlib OR (GPL-2.0-only WITH Font-exception-2.0)))": f"(({FONT} OR Zlib) AND ISC) OR MIT",
    # Deprecated ids, as SPDX spells them today.
    "GPL-2.0": "GPL-2.0-only",
    "gpl-2.0+": "GPL-2.0-or-later",
    "LGPL-2.1+ OR GFDL-1.3": "GFDL-1.3-only OR LGPL-2.1-or-later",
    "GPL-2.0-with-font-exception": FONT,
    "eCos-2.0": "GPL-2.0-or-later WITH eCos-exception-2.0",
    "BSD-2-Clause-FreeBSD": "BSD-2-Clause-Views",
    "Net-SNMP": "Net-SNMP",
    "Apache-2.0+": "Apache-2.0+",
    "MPL-2.0-no-copyleft-exception": "MPL-2.0-no-copyleft-exception",
    "licenseref-Our.own-2": "LicenseRef-Our.own-2",
    "LicenseRef-MIT-TC OR MIT": "LicenseRef-MIT-TC OR MIT",
    "LicenseRef-x WITH LLVM-exception": "LicenseRef-x WITH LLVM-exception",
}
PROSE = [
    "research only",
    "MIT OR",
    "MIT/Apache-2.0",
    "MIT, Apache-2.0",
    "MIT OR nonesuch",
    "MIT WITH MIT",
    "MIT WITH nonesuch",
    "GPL-2.0-with-font-exception WITH LLVM-exception",
    "Font-exception-2.0",
    "GPL",
    "GPL-2.0-only+",
    "(MIT OR ISC) WITH LLVM-exception",
    "()",
    ")MIT(",
    "(MIT",
    "MIT ISC",
    "NOT MIT",
    "MIT & ISC",
    "LicenseRef-",
    "LicenseRef-a_b",
    "DocumentRef-a:LicenseRef-b",
    "\N{KELVIN SIGN}nuth-CTAN",
    "ＭＩＴ",
    "自由使用",
    "\u202eMIT\u202e eht rednu",
    "\x1b[31mMIT",
    'O\'Reilly: "see below"; DROP TABLE models',
    "(" * 5000,
    "(" * 40 + "MIT" + ")" * 40,
    "MIT AND " * 2000 + "MIT",
    "(MIT OR " * 900 + "ISC" + ")" * 900,
    "x" * 10_000,
    "AND " * 1000,
]


@pytest.mark.parametrize("stated", EXPRESSIONS)
def test_an_expression_is_spelt_as_spdx_does(stated: str) -> None:
    expression = EXPRESSIONS[stated]
    assert normalise(stated) == normalise(expression) == Licence(expression)
    assert is_expression(expression)


@pytest.mark.parametrize("stated", PROSE, ids=lambda stated: ascii(stated[:20]))
def test_prose_gets_a_name_of_its_own_and_is_kept(stated: str) -> None:
    start = time.monotonic()
    named = normalise(stated)
    assert time.monotonic() - start < 1
    assert not is_expression(stated)
    assert re.fullmatch(r"LicenseRef-[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?", named.expression)
    assert list(named.texts) == [named.expression]
    assert named.texts[named.expression].isprintable()
    assert normalise(named.expression) == Licence(named.expression)
    assert not satisfied(stated, ["MIT", "ISC"]) and satisfied(stated, [named.expression])


def test_texts_that_share_their_words_get_different_names() -> None:
    texts = ["research only", "research, only", "(research) only", "research-only", "x" * 70, "x" * 71, "自由", "由自"]
    assert len({normalise(text).expression for text in texts}) == len(texts)
    assert (
        normalise("Research  only\n").expression == normalise("research only").expression == "LicenseRef-research-only"
    )


@pytest.mark.parametrize(
    "stated", ["", " \n\t", "\x00", "\ud800", "unstated by its authors", "Unstated by its authors "]
)
def test_no_statement_is_a_licence_of_its_own(stated: str) -> None:
    assert normalise(stated) == Licence(UNSTATED)
    assert not is_expression(stated)


def test_what_a_user_brings_is_the_users_own_as_it_was_called_before() -> None:
    assert normalise("the user's own") == Licence(USERS_OWN)
    assert satisfied("the user's own", [USERS_OWN])


def test_control_characters_make_no_expression() -> None:
    assert not any(map(is_expression, ["MIT\x07", "MIT\nOR ISC", "MIT\u202e"]))


def test_combined_licences_all_hold_each_once_in_alphabetical_order() -> None:
    assert combine(["MIT", "OFL-1.1", "MIT"]) == "MIT AND OFL-1.1"
    assert combine(["OFL-1.1 AND mit", "ISC"]) == combine(["ISC", "MIT AND OFL-1.1"]) == "ISC AND MIT AND OFL-1.1"
    assert combine(["MIT", "ISC OR Apache-2.0"]) == "(Apache-2.0 OR ISC) AND MIT"
    assert combine(["GPL-2.0", FONT, "gpl-2.0-with-font-exception"]) == f"GPL-2.0-only AND {FONT}"
    assert combine(["MIT", "research only", ""]) == f"LicenseRef-research-only AND {UNSTATED} AND MIT"
    assert combine([]) == UNSTATED and combine(["MIT"]) == "MIT"
    long = combine(f"LicenseRef-{number:050d}" for number in range(500))
    assert not satisfied(long, ["MIT"])


@pytest.mark.parametrize(
    ("expression", "accepted", "missing"),
    [
        ("MIT", ["MIT"], ()),
        ("MIT", ["mit"], ()),
        ("MIT", [], ("MIT",)),
        ("MIT AND OFL-1.1", ["MIT"], ("OFL-1.1",)),
        ("MIT AND OFL-1.1", ["ofl-1.1", "MIT", "ISC"], ()),
        ("MIT OR OFL-1.1", ["OFL-1.1"], ()),
        ("Zlib OR (MIT AND ISC)", [], ("Zlib",)),
        ("Zlib OR (MIT AND ISC)", ["MIT"], ("ISC",)),
        ("LicenseRef-a OR MIT", [], ("MIT",)),
        ("(ISC OR MIT) AND (MIT OR Zlib)", [], ("MIT",)),
        ("(ISC OR MIT) AND (MIT OR Zlib)", ["ISC"], ("MIT",)),
        ("(ISC OR MIT) AND (MIT OR Zlib)", ["ISC", "Zlib"], ()),
        (FONT, ["GPL-2.0-only"], ()),
        (FONT, [FONT.lower()], ()),
        (FONT, ["GPL-2.0"], ()),
        (FONT, [], (FONT,)),
        (FONT, ["GPL-2.0-only WITH LLVM-exception", "Font-exception-2.0"], (FONT,)),
        ("GPL-2.0-only", [FONT], ("GPL-2.0-only",)),
        (f"GPL-2.0-only AND {FONT}", [], ("GPL-2.0-only",)),
        ("GPL-2.0-or-later", ["GPL-2.0-only", "GPL-3.0-only"], ("GPL-2.0-or-later",)),
        ("GPL-2.0-only", ["GPL-2.0-or-later"], ("GPL-2.0-only",)),
        ("GPL-2.0+", ["GPL-2.0-or-later"], ()),
        ("Apache-2.0+", ["Apache-2.0"], ("Apache-2.0+",)),
        ("LicenseRef-a AND MIT", ["licenseref-A", "MIT"], ()),
        ("LicenseRef-a", ["LicenseRef-b"], ("LicenseRef-a",)),
        (UNSTATED, ["MIT"], (UNSTATED,)),
        ("", [UNSTATED], ()),
        ("MIT AND ISC", ["MIT AND ISC", "MIT OR ISC"], ("ISC", "MIT")),
    ],
)
def test_what_may_be_used_and_what_would_have_to_be_accepted_besides(
    expression: str, accepted: list[str], missing: tuple[str, ...]
) -> None:
    assert lacking(expression, accepted) == missing
    assert satisfied(expression, accepted) == (not missing)


def test_what_is_lacking_is_enough_and_never_more_than_needed() -> None:
    """Beside a slow search: every set of ids, the smallest first."""
    ids = ["Apache-2.0", "ISC", "LicenseRef-a", "MIT", "Zlib", FONT, "GPL-2.0-only"]
    rng = np.random.default_rng(0)

    def grow(depth: int) -> str:
        if depth == 0 or rng.random() < 0.3:
            return str(rng.choice(ids))
        parts = [grow(depth - 1) for _ in range(rng.integers(2, 4))]
        return f"({str(rng.choice([' AND ', ' OR '])).join(parts)})"

    for _ in range(60):
        expression, accepted = grow(3), [str(rng.choice(ids))]
        sets = (more for size in range(len(ids)) for more in itertools.combinations(ids, size))
        wanted = next(more for more in sets if satisfied(expression, [*accepted, *more]))
        found = lacking(expression, accepted)
        assert len(found) == len(wanted) and satisfied(expression, [*accepted, *found])


def test_long_expressions_are_judged_quickly() -> None:
    wide = " AND ".join(f"(LicenseRef-a{n} OR (LicenseRef-b{n} AND LicenseRef-c{n}))" for n in range(130))
    start = time.monotonic()
    assert len(lacking(wide, ["MIT"])) == 130
    assert time.monotonic() - start < 10
    start = time.monotonic()
    for number in range(14_000):
        satisfied(["MIT AND OFL-1.1", "ISC OR Zlib", FONT][number % 3], ["MIT", "Zlib", "GPL-2.0-only"])
    assert time.monotonic() - start < 2


def test_accepted_licences_are_spelt_as_spdx_does() -> None:
    assert check_accepted(["mit", "gpl-2.0", "MIT", "LicenseRef-mine", FONT.lower()]) == (
        *("MIT", "GPL-2.0-only", "LicenseRef-mine"),
        FONT,
    )
    assert check_accepted([]) == ()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["MTI"],
            r"licence 'MTI': not an SPDX licence id \(did you mean 'MIT'\?\)\. `tans models list` shows .*LicenseRef-…",
        ),
        (
            ["MIT", "Apache 2.0", "x" * 10_000],
            r"'Apache 2.0'.*did you mean 'Apache-2.0'\?.*; licence 'x{60}…': not an SPDX",
        ),
        (["OFL-1.1 AND MIT"], "'OFL-1.1 AND MIT': an expression, want a list of licences: MIT,OFL-1.1"),
        ([""], "licence '': not an SPDX licence id"),
        (["\x1b[31m"], r"licence '\[31m'"),
        (["Font-exception-2.0"], "not an SPDX licence id"),
    ],
)
def test_a_name_that_is_no_licence_is_refused_with_the_nearest(names: list[str], words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        check_accepted(names)


def test_the_nearest_id_is_suggested_whatever_the_letter_case() -> None:
    assert suggest("cc by 4.0") == " (did you mean 'CC-BY-4.0'?)"
    assert suggest("free for all who ask") == suggest("") == ""


def test_terms_of_references_are_told() -> None:
    own = {"LicenseRef-mine": "Ask.", "LicenseRef-aenigma": "Mine."}
    expression = "MIT AND (licenseref-MINE OR LicenseRef-other WITH LLVM-exception) AND LicenseRef-unstated"
    told = texts_of(expression, own)
    assert told == {"LicenseRef-MINE": "Ask.", "LicenseRef-other": "", UNSTATED: TEXTS[UNSTATED]}
    assert texts_of("LicenseRef-aenigma", own) == {"LicenseRef-aenigma": "Mine."}
    assert texts_of("MIT") == {}


def test_our_own_references_are_spdx_and_their_terms_one_sentence_on_one_line() -> None:
    for name, text in TEXTS.items():
        assert normalise(name) == Licence(name)
        assert text.endswith(".") and text.isprintable() and "|" not in text


def test_reading_licences_needs_no_torch_and_the_list_of_ids_only_when_asked() -> None:
    code = (
        "import sys, tans_core.licences; sys.exit(bool({'torch', 'pyarrow', 'license_expression'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
