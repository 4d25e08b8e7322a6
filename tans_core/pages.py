"""Shared parts of all HTML pages. Each page is one file: pictures, styles and script are inside, nothing is fetched."""

from __future__ import annotations

import base64

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def page_environment(package: str) -> Environment:
    """Return the Jinja environment of `package`/templates. They may include `house.css`; all values are escaped."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("tans_core", "templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def png_uri(png: bytes) -> str:
    """Return a picture as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
