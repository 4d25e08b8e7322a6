"""What starts `retrain` by itself, and what keeps a schedule from catching up on runs that were missed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment, flow_run

from tans_core.newcomers import waiting
from tans_core.params import RetrainParams, read_section
from tans_core.retraining import ask, failure, reason_to_retrain

if TYPE_CHECKING:
    from tans_core.space.drift import Drift

DUE = "tans.retrain.due"
ZOO = "tans.zoo"
RETRAIN_WHEN_DUE: dict[str, Any] = {
    "name": "retrain-when-due",
    "expect": [DUE],
    "match": {"prefect.resource.id": ZOO},
    "parameters": {"reason": "{{ event.payload.reason }}"},
}
"""The trigger of `retrain`, as in prefect.yaml. Each deployment needs a name of its own for it."""


def due(root: Path, drifts: Mapping[str, Drift] | None = None) -> str:
    """Return why a retraining is due by `retrain` in params.yaml; empty if none is.

    Args:
        root: the project's folder.
        drifts: of newcomers, by id, as far as they were measured now.

    Raises:
        ParamsError: params.yaml cannot be read, or the section is invalid.
    """
    settings = read_section(root, "retrain", RetrainParams)
    return reason_to_retrain(root, settings.admissions, settings.days, drifts if settings.drift else None)


def retrain_if_due(root: Path, drifts: Mapping[str, Drift] | None = None) -> None:
    """Emit one event if a retraining is due and none was asked for yet. Arguments and errors are those of `due`."""
    log, reason = get_run_logger(), due(root, drifts)
    if not reason:
        return
    if not ask(root):
        log.info("a retraining is due: %s; it was asked for before", reason)
        if failed_since := failure(root):
            log.warning("the last retraining failed: %s", failed_since)
        return
    log.info("a retraining is due: %s", reason)
    payload = {"reason": reason, "newcomers": len(waiting(root)), "next": "prefect deployment run retrain/local"}
    emit_event(DUE, resource={"prefect.resource.id": ZOO, "prefect.resource.name": "zoo"}, payload=payload)


def skip_missed_runs() -> int:
    """Delete the scheduled runs of this run's deployment that are late. Return their number.

    After a time without a server or a worker there is one for each interval; this run does the work of all.
    """
    if not deployment.id or not flow_run.id:
        return 0
    is_scheduled = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
    )
    own = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    now, skipped = datetime.now(UTC), 0
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=is_scheduled, deployment_filter=own):
            if run.auto_scheduled and run.expected_start_time and run.expected_start_time <= now:
                try:
                    client.delete_flow_run(run.id)
                    skipped += 1
                except ObjectNotFound:  # started or deleted meanwhile
                    continue
    if skipped:
        get_run_logger().info("%d scheduled runs were missed; this one does their work", skipped)
    return skipped
