"""Flow `retrain`: after admissions, bring everything that depends on them up to date, and publish it."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.events import emit_event

from flows.common import failed, project, rebuild_and_publish
from tans_core.errors import TansError

PUBLISHED = "tans.space.published"


@flow(name="retrain", description="Rebuild what depends on new models, and publish it.")
def retrain(model_id: str | None = None) -> Any:
    """Rebuild with all arrivals, and publish. A release that was rolled back is not published.

    Args:
        model_id: the model whose admission started this run; for the log only.
    """
    if model_id:
        get_run_logger().info("started by the admission of %s", model_id)
    try:
        release, published = rebuild_and_publish(project())
    except TansError as error:
        return failed(error)
    if published:
        emit_event(PUBLISHED, resource={"prefect.resource.id": f"tans.release.{release}"}, payload={"release": release})
    return release


if __name__ == "__main__":
    retrain()
