"""Flow `build`: the whole pipeline, gate by gate, then a release."""

from __future__ import annotations

from typing import Any

from flows.common import project
from flows.declared import declared
from flows.publishing import rebuild_and_publish


@declared("build")
def build() -> Any:
    """Run what is out of date. Publish the result if it is better than what is served, or not worse and larger."""
    return rebuild_and_publish(project(), "build")


if __name__ == "__main__":
    build()
