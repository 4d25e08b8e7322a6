"""What every page of ours shares: one file each, with its pictures, styles and script inside, nothing fetched."""

from __future__ import annotations

import base64

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def page_environment(package: str) -> Environment:
    """Return what renders `package`/templates, which may include `house.css`; whatever is filled in is escaped."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("tans_core", "templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def png_uri(png: bytes) -> str:
    """Return a picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
