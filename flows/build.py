"""Flow `build`: the whole pipeline, gate by gate, then a release."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.common import failed, project, rebuild_and_publish
from tans_core.errors import TansError


@flow(name="build", description="Build what params.yaml describes, and publish it.")
def build() -> Any:
    """Run what is out of date, and publish the result as a release. A release that was rolled back is not published."""
    try:
        release, _ = rebuild_and_publish(project())
    except TansError as error:
        return failed(error)
    return release


if __name__ == "__main__":
    build()
