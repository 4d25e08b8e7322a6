"""The runner: registers the deployments, puts in order what kills left, and runs what is due.

`flows.serve` starts this as a program beside a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

from prefect.exceptions import TerminationSignal
from prefect.runner import Runner

from flows.deployments import LOCAL, deployments
from flows.healing import Healer, mark_this_process

RUNS_AT_ONCE = 4


def main() -> None:
    """Register the deployments, create the file named by TANS_READY_FILE, and serve until a signal to stop."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    root = Path.cwd()
    mark_this_process(root)
    healer = Healer(root, LOCAL)
    healer.begin()
    runner = Runner(limit=RUNS_AT_ONCE, pause_on_shutdown=False)
    for deployment in deployments():
        runner.add_deployment(deployment)
    if ready := os.environ.get("TANS_READY_FILE"):
        Path(ready).touch()
    healer.watch()
    with contextlib.suppress(KeyboardInterrupt, TerminationSignal):
        asyncio.run(runner.start())


if __name__ == "__main__":
    main()
