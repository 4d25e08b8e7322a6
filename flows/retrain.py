"""Flow `retrain`: after admissions, bring everything that depends on them up to date, and publish what is better."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger

from flows.common import failed, project
from flows.declared import declared
from flows.publishing import rebuild_and_publish
from tans_core.errors import TansError


@declared("retrain")
def retrain(model_id: str | None = None) -> Any:
    """Rebuild with all arrivals. Publish the result if it is better than what is served, or not worse and larger.

    Args:
        model_id: the model whose admission started this run; for the log only.
    """
    if model_id:
        get_run_logger().info("started by the admission of %s", model_id)
    try:
        return rebuild_and_publish(project(), "retrain")
    except TansError as error:
        return failed(error)


if __name__ == "__main__":
    retrain()
