"""Sources `qtawesome` and `tkinter-icons`: icon fonts with a name for each icon.

Only font files and name maps are read; neither package is imported.
Three kinds of task: the concept that an icon shows (split by family), the family that drew it (split by concept), and
the first word of a compound icon's name (`account-plus`, `account-minus`, ...; split by the rest of the name).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tans_core.errors import ParamsError, did_you_mean
from tans_core.sources.base import Sample, check_choice, check_options, missing_file, package_file
from tans_core.sources.drawing import LOOKS
from tans_core.sources.typefaces import Face, Glyph, render

KINDS = ("concepts", "families", "variants")

_STYLE = re.compile(r"-(fill|filled|line|outline|outlined|bold|thin|light|duotone|regular|alt|o|s|sharp|round|\d\d)$")
_PREFIX = re.compile(r"^(ic-fluent-|icon-|ion-|eva-|typcn-|ios-|md-|android-)+")
# Other names of a concept -> the name that most fonts use.
_SYNONYMS = {
    "house": "home", "notifications": "bell", "magnifying-glass": "search",
    "magnify": "search", "cog": "gear", "settings": "gear", "trash-can": "trash", "delete": "trash", "envelope": "mail",
    "email": "mail", "person": "user", "account": "user", "label": "tag", "photo-camera": "camera", "favorite": "heart",
    "flight": "airplane", "plane": "airplane", "local-shipping": "truck", "vehicle-truck": "truck",
    "vpn-key": "key", "emoji-events": "trophy", "card-giftcard": "gift", "visibility": "eye",
    "directions-car": "car", "vehicle-car": "car", "insert-drive-file": "file", "document": "file",
    "paperclip": "attach", "attachment": "attach", "attach-file": "attach", "lightbulb": "bulb", "light-bulb": "bulb",
    "public": "globe", "earth": "globe", "edit": "pencil", "pen": "pencil", "content-cut": "scissors",
    "cut": "scissors", "cart": "shopping-cart", "microphone": "mic", "explore": "compass", "bolt": "lightning",
    "flash": "lightning", "lightning-bolt": "lightning", "place": "map-marker", "location": "map-marker",
    "location-on": "map-marker", "map-pin": "map-marker", "sunny": "sun", "weather-sunny": "sun",
    "wb-sunny": "sun", "moon-o": "moon", "weather-night": "moon", "weather-moon": "moon", "nightlight": "moon",
}  # fmt: skip


@dataclass(frozen=True)
class IconFont:
    """One font file and its name map. Fonts that are near-copies of each other share a group."""

    package: str
    font: str
    names: str
    group: str
    style: str = ""


@dataclass(frozen=True)
class IconSource:
    """Options: kind, classes (names of concepts, families or first words), look, images (about how many).

    Without classes, kind `families` takes all families.
    """

    name: str
    package: str
    licence: str
    fonts: tuple[IconFont, ...]
    defaults: Mapping[str, Any] = field(
        default_factory=lambda: {"kind": "concepts", "classes": [], "look": "print", "images": 1900}
    )

    def missing(self, options: Mapping[str, Any]) -> str | None:
        return next((line for line in map(_missing_font, self.fonts) if line), None)

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        check_choice(self.name, "kind", chosen["kind"], KINDS)
        check_choice(self.name, "look", chosen["look"], LOOKS)
        wanted = set(chosen["classes"])
        if not wanted and chosen["kind"] != "families":
            raise ParamsError(f"source {self.name!r}: options.classes: missing; want a list of {chosen['kind']}")
        known: set[str] = set()
        glyphs: list[Glyph] = []
        for font in self.fonts:
            face = Face(package_file(font.package, font.font, install=_install(font)))
            for label, group, code in _labelled(font, chosen["kind"]):
                known.add(label)
                if label in wanted or not wanted:
                    glyphs.append(Glyph(face, chr(code), label, group))
        for label in chosen["classes"]:
            if label not in known:
                raise ParamsError(
                    f"source {self.name!r}: options.classes: {label!r}: not one of its {chosen['kind']}"
                    f"{did_you_mean(label, known)}"
                )
        # At most 1 px, since the fine inner lines of filled icons close quickly; 0 for families: they differ in weight.
        bolder_px = (0,) if chosen["kind"] == "families" else (0, 0, 1)
        yield from render(glyphs, chosen["look"], chosen["images"], seed, bolder_px)


def _labelled(font: IconFont, kind: str) -> Iterator[tuple[str, str, int]]:
    """Yield label, group and code point of the icons that a kind of task can use."""
    for icon, code in read_names(font).items():
        concept = concept_of(icon)
        if kind == "concepts":
            yield concept, font.group, code
        elif kind == "families":
            yield font.group + _style_of(icon, font), concept, code
        else:
            first, _, rest = concept.partition("-")
            if rest:
                yield first, rest, code


def read_names(font: IconFont) -> dict[str, int]:
    """Return icon name -> code point. Of names that share a code point only the first is kept."""
    path = package_file(font.package, font.names, install=_install(font))
    raw: dict[str, str | int] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, int] = {}
    seen: set[int] = set()
    for name, value in raw.items():
        code = value if isinstance(value, int) else int(value, 16)
        # Fonts may also name plain letters and digits, which are not icons.
        if code not in seen and code > 0x2000:
            seen.add(code)
            names[name] = code
    return names


def concept_of(icon: str) -> str:
    """Return the concept that an icon shows: its name without style and size, synonyms joined."""
    name = _PREFIX.sub("", icon.lower().replace("_", "-"))
    while (shorter := _STYLE.sub("", name)) != name:
        name = shorter
    return _SYNONYMS.get(name, name)


def _missing_font(font: IconFont) -> str | None:
    return missing_file(font.package, font.font, install=_install(font))


def _install(font: IconFont) -> str:
    return font.package.replace("_", "-")


def _style_of(icon: str, font: IconFont) -> str:
    if font.style:
        return f" {font.style}"
    match = re.search(r"-(fill|filled|line|outline|bold|thin|light|duotone)$", icon)
    return f" {match.group(1)}" if match else ""


def _qta(font: str, names: str, group: str, style: str = "") -> IconFont:
    return IconFont("qtawesome", f"fonts/{font}.ttf", f"fonts/{names}.json", group, style)


def _tk(pack: str, font: str, group: str, names: str = "glyphmap", style: str = "", folder: str = "") -> IconFont:
    return IconFont(
        f"tkinter_icons_{pack}", f"{folder or 'fonts'}/{font}", f"{folder}/{names}.json".lstrip("/"), group, style
    )


QTAWESOME = IconSource(
    name="qtawesome",
    package="qtawesome",
    # OFL-1.1: Font Awesome, Elusive; Apache-2.0: Material Design, Remix; MIT: Phosphor; CC-BY-4.0: Codicon.
    licence="Apache-2.0 AND CC-BY-4.0 AND MIT AND OFL-1.1",
    fonts=(
        _qta("fontawesome5-solid-webfont-5.15.4", "fontawesome5-solid-webfont-charmap-5.15.4", "font-awesome", "solid"),
        _qta(
            "fontawesome5-regular-webfont-5.15.4",
            "fontawesome5-regular-webfont-charmap-5.15.4",
            "font-awesome",
            "regular",
        ),
        _qta("fontawesome6-solid-webfont-6.7.2", "fontawesome6-solid-webfont-charmap-6.7.2", "font-awesome", "solid"),
        _qta(
            "fontawesome6-regular-webfont-6.7.2",
            "fontawesome6-regular-webfont-charmap-6.7.2",
            "font-awesome",
            "regular",
        ),
        _qta("materialdesignicons5-webfont-5.9.55", "materialdesignicons5-webfont-charmap-5.9.55", "material-design"),
        _qta("materialdesignicons6-webfont-6.9.96", "materialdesignicons6-webfont-charmap-6.9.96", "material-design"),
        _qta("phosphor-1.3.0", "phosphor-charmap-1.3.0", "phosphor"),
        _qta("remixicon-2.5.0", "remixicon-charmap-2.5.0", "remix"),
        _qta("codicon-0.0.36", "codicon-charmap-0.0.36", "codicon"),
        _qta("elusiveicons-webfont-2.0", "elusiveicons-webfont-charmap-2.0", "elusive"),
    ),
)

TKINTER_ICONS = IconSource(
    name="tkinter-icons",
    package="tkinter-icons",
    # MIT: Bootstrap, Eva, Ionicons, Fluent; ISC: Lucide; OFL-1.1: Typicons; Apache-2.0: Google Material.
    licence="Apache-2.0 AND ISC AND MIT AND OFL-1.1",
    fonts=(
        _tk("bs", "bootstrap.ttf", "bootstrap", folder="assets"),
        _tk("ion", "ionicons.ttf", "ionicons"),
        _tk("eva", "eva-icons.ttf", "eva"),
        _tk("typicons", "typicons.ttf", "typicons"),
        _tk("lucide", "lucide.ttf", "lucide"),
        _tk("gmi", "MaterialIcons-Regular.ttf", "google-material", "glyphmap-baseline", "baseline"),
        _tk("gmi", "MaterialIconsOutlined-Regular.otf", "google-material", "glyphmap-outlined", "outlined"),
        _tk("fluent", "FluentSystemIcons-Filled.ttf", "fluent", "glyphmap-filled", "filled"),
        _tk("fluent", "FluentSystemIcons-Regular.ttf", "fluent", "glyphmap-regular", "regular"),
    ),
)
