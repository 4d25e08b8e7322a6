"""What kills leave behind, put in order: runs without a process, processes without a run.

The runner (`flows.runner`) looks once before it serves, and then every few seconds. It only touches runs of its own
deployments. A process belongs to a run if its environment has the run's id and this project's folder: programs that a
run starts inherit both.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled, Crashed, Scheduled

from flows.common import RUNNER

EVERY_S = 10.0
# A run is Pending while its process starts.
PENDING_S = 60.0
# Prefect's runner may miss that a run is cancelled, or not ask it to end for half a minute: its processes are killed
# after this time. Ten seconds then are enough in all.
CANCELLING_S, CANCELLED_EVERY_S = 5.0, 2.0
# In the environment of the runner's processes: the project's folder, and Prefect's id of the run.
PROJECT, FLOW_RUN = "TANS_SERVED_PROJECT", "PREFECT__FLOW_RUN_ID"
AGAIN = "Finished stages and checkpoints are kept: run it again with `prefect deployment run`."

logger = logging.getLogger(__name__)


def mark_this_process(root: Path) -> None:
    """Let all that this process starts be found as its own."""
    os.environ[RUNNER], os.environ[PROJECT] = str(os.getpid()), str(root)


def processes_of_runs(root: Path) -> dict[str, list[psutil.Process]]:
    """Return the processes of this project's runs by the run's id: the run, and what it started.

    Processes of another user or project are never among them.
    """
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(PROJECT) == str(root) and (run := environment.get(FLOW_RUN)):
                found[run].append(process)
    return dict(found)


class Healer:
    """Looks after the runs of the deployments of one name.

    Attributes:
        root: the project's folder.
        deployments: the name that the deployments have, such as `local` in `build/local`.
    """

    def __init__(self, root: Path, deployments: str) -> None:
        self.root, self.deployments = root, deployments
        self._dead_before: set[UUID] = set()

    def begin(self) -> None:
        """Put in order what earlier services left. No run of this runner has started yet."""
        with get_client(sync_client=True) as client:
            self._look(client, at_start=True)

    def watch(self) -> None:
        """Look every few seconds, in a thread that ends with this process."""

        def look() -> None:
            looked = time.monotonic()
            while True:
                try:
                    with get_client(sync_client=True) as client:
                        while True:
                            time.sleep(CANCELLED_EVERY_S)
                            self.end_cancelled(client)
                            if time.monotonic() - looked >= EVERY_S:
                                looked = time.monotonic()
                                self._look(client)
                except Exception as error:  # the server restarts, for example: the next look finds the same
                    logger.warning("looking for dead runs: %s", error)
                    time.sleep(CANCELLED_EVERY_S)

        threading.Thread(target=look, name="healer", daemon=True).start()

    def end_cancelled(self, client: SyncPrefectClient) -> None:
        """Kill the processes of runs that were cancelled and do not end."""
        runs = self._runs(client, StateType.CANCELLING)
        late = [run for run in runs if run.state and _age_s(run.state) > CANCELLING_S]
        processes = processes_of_runs(self.root) if late else {}
        for run in late:
            if found := processes.get(str(run.id)):
                message = "It was cancelled, and did not end by itself: its processes were killed."
                client.set_flow_run_state(run.id, Cancelled(message=message), force=True)
                self._end(found, "which was cancelled")

    def _look(self, client: SyncPrefectClient, at_start: bool = False) -> None:
        # Runs first: one that starts after this line is no business of this look.
        runs = self._runs(client, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
        processes = processes_of_runs(self.root)
        alive = {run for run, them in processes.items() if any(_is_child(one) for one in them)}
        for orphaned in processes.keys() - alive:
            self._end(processes[orphaned], "which a dead run left behind")
        dead = {run.id for run in runs if str(run.id) not in alive}
        # Its runner reports a run's death at once, and says more: only what it missed is reported here.
        for run_id in dead if at_start else dead & self._dead_before:
            self._report(client, client.read_flow_run(run_id), at_start)
        self._dead_before = dead

    def _report(self, client: SyncPrefectClient, run: FlowRun, at_start: bool) -> None:
        if run.state is None or run.state.is_final() or run.state.is_scheduled():
            return  # it ended, or waits for its retry, since it was read
        state: State
        if not run.state.is_pending():
            why = "the service that ran it was stopped or killed" if at_start else "it was killed, or lacked memory"
            state = Crashed(message=f"The process of this run ended without a word: {why}. {AGAIN}")
        elif at_start or _age_s(run.state) > PENDING_S:
            state = Scheduled(message="Its process ended before it began, so it starts again.")
        else:
            return
        client.set_flow_run_state(run.id, state, force=True)
        flow_run_logger(run).warning(state.message)
        logger.warning("%s (%s): %s", run.name, run.id, state.message)

    def _end(self, processes: list[psutil.Process], why: str) -> None:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
                logger.warning("ended process %s, %s", process.pid, why)

    def _runs(self, client: SyncPrefectClient, *states: StateType) -> list[FlowRun]:
        found: list[FlowRun] = []
        wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))))
        while True:  # page by page
            page = client.read_flow_runs(
                flow_run_filter=wanted, deployment_filter=self._filter(), limit=200, offset=len(found)
            )
            found += page
            if len(page) < 200:
                return found

    def _filter(self) -> DeploymentFilter:
        return DeploymentFilter(name=DeploymentFilterName(any_=[self.deployments]))


def _is_child(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.ppid() == os.getpid() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _age_s(state: State) -> float:
    return float((datetime.now(UTC) - state.timestamp).total_seconds())
