"""Has a Prefect server fine-tune for the HTTP service: creates the flow run, and waits for its end.

`python -m flows.watch JOB PARAMETERS` takes the job's folder, and the flow's parameters as JSON. The folder's file
`progress` gets the id of the flow run; started again with it, the program goes on waiting. It cancels the flow run once
`job.json` says so. It exits with 0 if the run succeeded, with 130 if it was cancelled, else with 1 and the reason on
stderr. Without PARAMETERS it only cancels the flow run, unless that has ended.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tans_core.errors import TansError
from tans_core.io import read_json
from tans_core.reporting import Progress, Report

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State

CANCELLED = 130
_LOOK_S = 1.0
_OURS = re.compile(r"[A-Z]\w+Error: ")  # as a flow of ours says why it failed
_ANSWER_WITHIN_S = 600.0


def main() -> int:
    """Create the flow run that the arguments describe, or find it again, and wait for its end."""
    job, given = Path(sys.argv[1]), sys.argv[2:]
    report, flow_run = Report(job / "progress"), Progress.read(job / "progress").flow_run
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        if not given:
            if flow_run is not None and not _has_ended(client.read_flow_run(UUID(flow_run)).state):
                _cancel(client, UUID(flow_run))
            return 0
        if flow_run is None:
            if _is_cancelled(job):
                return CANCELLED
            flow_run = _create(client, job.name, json.loads(given[0]))
            report(flow_run=flow_run)
        return _wait(client, UUID(flow_run), report, job)


def _is_cancelled(job: Path) -> bool:
    return bool(read_json(job / "job.json")["cancelled"])


def _has_ended(state: State | None) -> bool:
    return state is not None and state.is_final()


def _cancel(client: SyncPrefectClient, flow_run: UUID) -> None:
    from prefect.states import Cancelling

    client.set_flow_run_state(flow_run, Cancelling())


def _create(client: SyncPrefectClient, job: str, parameters: dict[str, Any]) -> str:
    import httpx
    from prefect.exceptions import ObjectNotFound

    from flows.deployments import LOCAL, POOLS

    address = os.environ.get("PREFECT_API_URL", "")
    for kind in (LOCAL, *POOLS):  # the first that there is gets the run
        try:
            deployment = client.read_deployment_by_name(f"finetune/{kind}")
            # A second request with the same key, such as after a lost answer, gets the first one's run.
            run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters, idempotency_key=job)
            return str(run.id)
        except ObjectNotFound:
            continue
        except httpx.HTTPError as error:
            raise TansError(
                f"the Prefect server at {address} does not take the flow run ({error}). Is it running?"
            ) from error
    raise TansError(f"the Prefect server at {address} has no deployment of finetune. `tans serve` makes one.")


def _wait(client: SyncPrefectClient, flow_run: UUID, report: Report, job: Path) -> int:
    import httpx
    from prefect.exceptions import ObjectNotFound

    told: str | None = "nothing yet"
    sent, answered = False, time.monotonic()
    while True:
        try:
            run = client.read_flow_run(flow_run)
            if not sent and _is_cancelled(job):
                _cancel(client, flow_run)
                sent = True
            answered = time.monotonic()
        except ObjectNotFound:
            raise TansError("the flow run was deleted.") from None
        except httpx.HTTPError as error:  # a server that starts again
            if time.monotonic() - answered > _ANSWER_WITHIN_S:
                raise TansError(f"the Prefect server does not answer any more ({error}).") from error
            time.sleep(_LOOK_S)
            continue
        state = run.state
        if state is not None and state.is_final():
            if state.is_completed():
                return 0
            if state.is_cancelled() or sent:  # a run that is cancelled in its training has crashed at first
                return CANCELLED
            raise TansError(state.message or f"the flow run is {state.name}")
        working = state is not None and state.is_running()
        waits = None if working else f"the Prefect server: {run.name} is {state.name if state else 'new'}"
        if waits != told:
            report(waiting_for=waits)
            told = waits
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TansError as error:
        text = str(error)
        sys.stderr.write(text if _OURS.match(text) else f"TansError: {text}")
        sys.exit(error.exit_code)
