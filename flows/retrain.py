"""Flow `retrain`: take newcomers in, bring everything that depends on them up to date, and publish what is better."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger

from flows.common import project
from flows.declared import declared
from flows.publishing import rebuild_and_publish


@declared("retrain")
def retrain(reason: str = "") -> Any:
    """Rebuild with all newcomers. Publish the result if it is better than what is served, or not worse and larger.

    Args:
        reason: why a trigger started this run, which then does nothing if no newcomer waits any more.
    """
    if reason:
        get_run_logger().info("started since %s", reason)
    return rebuild_and_publish(project(), "retrain", if_waiting=bool(reason))


if __name__ == "__main__":
    retrain()
