"""All deployments, and the runner that serves them. `flows.serve` starts this as a program beside a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import cast

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import TerminationSignal
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows.build import build
from flows.finetune import finetune
from flows.retrain import retrain
from flows.retrieve import retrieve
from flows.triggers import RETRAIN_WHEN_DUE
from flows.zoo_refresh import zoo_refresh

NAME = "local"
RUNS_AT_ONCE = 4
_MODULE = EntrypointType.MODULE_PATH


def deployments() -> list[RunnerDeployment]:
    """Return one deployment per flow, each named `<flow>/local`."""
    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    # `build` and `retrain` need no limit here: a lock file orders them, and dies with its process.
    when_due = DeploymentEventTrigger(**{**RETRAIN_WHEN_DUE, "name": "tans-local-retrain-when-due"})
    made = [
        build.to_deployment(NAME, entrypoint_type=_MODULE),
        retrieve.to_deployment(NAME, entrypoint_type=_MODULE),
        finetune.to_deployment(NAME, entrypoint_type=_MODULE),
        zoo_refresh.to_deployment(NAME, cron="*/5 * * * *", concurrency_limit=alone, entrypoint_type=_MODULE),
        retrain.to_deployment(NAME, triggers=[when_due], entrypoint_type=_MODULE),
    ]
    # Its type also covers the awaitables that asynchronous callers get.
    return cast("list[RunnerDeployment]", made)


def main() -> None:
    """Register the deployments, create the file named by TANS_READY_FILE, and serve until a signal to stop."""
    runner = Runner(limit=RUNS_AT_ONCE, pause_on_shutdown=False)
    for deployment in deployments():
        runner.add_deployment(deployment)
    if ready := os.environ.get("TANS_READY_FILE"):
        Path(ready).touch()
    with contextlib.suppress(KeyboardInterrupt, TerminationSignal):
        asyncio.run(runner.start())


if __name__ == "__main__":
    main()
