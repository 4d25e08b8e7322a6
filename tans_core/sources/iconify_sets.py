"""The sets of `@iconify/json` that are used: icons by the family that drew them, emoji and flags by vendor.

Sets under share-alike, non-commercial or GPL licences, logos, and animations are left out.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tans_core.sources.fetch import Package
from tans_core.sources.svg import SvgDrawing

ICONIFY = Package(
    manager="npm",
    name="@iconify/json",
    version="2.2.535",
    sha256="1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
    size_mb=104,
    licence=(
        "Apache-2.0 AND BSD-3-Clause AND CC-BY-4.0 AND CC0-1.0 AND ISC AND MIT AND MPL-2.0 AND OFL-1.1 AND Unlicense"
    ),
)
EMOJI_NAMES = Package(
    manager="npm",
    name="emoji.json",
    version="16.0.0",
    sha256="71cc1f9ab370fd3749fdde3c8ab2db13cf6f64c59ee918a4735b6a08e5e09c56",
    size_mb=1,
    licence="MIT",
)


@dataclass(frozen=True)
class SvgSet:
    """One set. Sets of one family share drawings or designers, so each family is in one split only."""

    prefix: str
    family: str
    licence: str


# licence -> families, each with its sets; a family without a list is one set of the same name.
# Lucide is a fork of Feather, Famicons of Ionicons; the three Google-like sets draw the same symbols.
_ICONS = {
    "Apache-2.0": """
        carbon cuida garden grommet-icons icon-park=icon-park-outline,icon-park-solid,icon-park-twotone
        icons8=la iwwa mage material=material-symbols,material-symbols-light,ic,mdi memory mingcute oui ri
        unicons=uil,uim,uit,uis vaadin
    """,
    "BSD-3-Clause": """
        rivet-icons
    """,
    "CC-BY-4.0": """
        basil ci cil codicon font-awesome=fa7-solid,fa7-regular,fa6-solid,fa6-regular,fa-solid,fa-regular
        iconamoon lets-icons nrk pepicons=pepicons-pop,pepicons-print,pepicons-pencil,pepicons pixel
        streamline=streamline-ultimate,streamline-plump,streamline-sharp,guidance,streamline,streamline-flex
        streamline-block streamline-cyber streamline-freehand streamline-pixel subway
    """,
    "ISC": """
        feather=lucide,lucide-lab
    """,
    "MIT": """
        akar-icons ant-design at-icons bi boxicons=boxicons,bx,bxs bytesize charm clarity codex dinkie-icons
        duo-icons ei ep eva f7 fe feather flowbite fluent fluent-mdl2 fontisto formkit foundation gg glyphs
        gravity-ui griddy-icons heroicons=heroicons,sidekickicons,heroicons-outline,heroicons-solid hugeicons
        humbleicons iconoir icons8=icons8,wpf il ionicons=ion,famicons ix jam lineicons lsicon majesticons
        meteor-icons mono=mi,mono-icons mynaui=mynaui,vadivam nimbus octicon oi ooui pajamas ph pixelarticons
        primeicons=prime proicons qlementine-icons quill radix-icons raphael reicon si simple-line-icons stash
        tabler tdesign teenyicons uiw weui zondicons
    """,
    "MPL-2.0": """
        circum
    """,
    "OFL-1.1": """
        el font-awesome=fa ls material=mdi-light,zmdi picon vs whh wi
    """,
    "Unlicense": """
        system-uicons
    """,
}

_EMOJI = {
    "Apache-2.0": "noto=noto,noto-v1 fxemoji",
    "CC-BY-4.0": "twemoji emojione=emojione,emojione-monotone streamline=streamline-emojis",
    "MIT": "fluent=fluent-emoji-flat,fluent-emoji-high-contrast",
}
_FLAGS = {"CC0-1.0": "cif", "MIT": "circle-flags flag flagpack"}


def _sets(table: dict[str, str]) -> tuple[SvgSet, ...]:
    sets = []
    for licence, families in table.items():
        for entry in families.split():
            family, _, prefixes = entry.partition("=")
            sets += [SvgSet(prefix, family, licence) for prefix in (prefixes or family).split(",")]
    return tuple(sets)


ICON_SETS, EMOJI_SETS, FLAG_SETS = _sets(_ICONS), _sets(_EMOJI), _sets(_FLAGS)
WANTED = tuple(f"json/{one.prefix}.json" for one in (*ICON_SETS, *EMOJI_SETS, *FLAG_SETS))

# Codes for which `circle-flags` draws the emblem of a language: Arabic, Interlingue, Ido, Latin.
LANGUAGES_OF_CIRCLE_FLAGS = ("ar", "ie", "io", "la")

MONOCHROME_EMOJI = ("fluent-emoji-high-contrast", "emojione-monotone")


@dataclass(frozen=True)
class Emoji:
    """An emoji's name without skin tone and gender, its Unicode subgroup, and its country if it is a flag."""

    base: str
    subgroup: str
    country: str = ""


def read_set(folder: Path, prefix: str) -> Iterator[tuple[str, SvgDrawing]]:
    """Yield the names and drawings of one set, without those that its maker withdrew."""
    stored: dict[str, Any] = json.loads((folder / "json" / f"{prefix}.json").read_text(encoding="utf-8"))

    def number(icon: dict[str, Any], key: str, default: float) -> float:
        return float(icon.get(key, stored.get(key, default)))

    for name, icon in stored["icons"].items():
        if not icon.get("hidden"):
            width, height = number(icon, "width", 16), number(icon, "height", 16)
            yield name, SvgDrawing(icon["body"], (number(icon, "left", 0), number(icon, "top", 0), width, height))


def read_emoji(folder: Path) -> dict[str, Emoji]:
    """Return each emoji by the key of its name (see `emoji_key`)."""
    emoji = {}
    for entry in json.loads((folder / "emoji.json").read_text(encoding="utf-8")):
        name, subgroup = entry["name"], entry["subgroup"]
        if subgroup == "country-flag":
            # Two regional indicators spell the country's code.
            code = "".join(chr(int(letter, 16) - 0x1F1E6 + ord("a")) for letter in entry["codes"].split())
            emoji[emoji_key(name)] = Emoji(name.removeprefix("flag: "), subgroup, code)
        else:
            base = re.sub(r"^(man|woman|person) (?=.)", "", name.partition(":")[0].lower())
            emoji[emoji_key(name)] = Emoji(base, subgroup)
    return emoji


def emoji_key(name: str) -> str:
    """Return the letters and digits of a name: vendors write `1st-place-medal`, `flag-for-france`, `alarmclock`."""
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.replace("flag-for-", "flag-").replace("&", "and"))
