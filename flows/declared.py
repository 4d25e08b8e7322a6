"""What is declared of each flow: time limits, retries, schedules, triggers. `make serve` and prefect.yaml follow it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect import flow
from prefect.exceptions import FailedRun
from prefect.states import Completed

from flows.common import failed, tie_to_runner
from flows.triggers import RETRAIN_WHEN_DUE
from tans_core.errors import TansError

ADMITTED = "tans.zoo.model-admitted"
HOUR_S = 3600
DAY_S = 24 * HOUR_S


@dataclass(frozen=True)
class Declared:
    """One flow.

    Attributes:
        name: of the flow.
        module: of `flows`, with a function of the same name.
        description: what it does, in one sentence.
        timeout_s: a run that takes longer fails. It is a limit for runs that hang, not a budget.
        retries: how often a run that failed starts again; never after an error that a user has to act on.
        cron: when it runs, in UTC; None means by hand or by a trigger.
        triggers: events that start a run, each as in prefect.yaml. All automations of the service are declared here.
    """

    name: str
    module: str
    description: str
    timeout_s: int
    retries: int = 0
    cron: str | None = None
    triggers: tuple[Mapping[str, Any], ...] = ()

    @property
    def function(self) -> str:
        """The name of the flow's function."""
        return self.name.replace("-", "_")


RETRY_DELAY_S = 10
# None has a limit of concurrent runs: lock files order those that write, and end with their process.
DECLARED = (
    Declared(
        "build",
        "build",
        "Build what params.yaml describes, and publish it if it is better.",
        timeout_s=7 * DAY_S,
        retries=1,
    ),
    Declared("retrieve", "retrieve", "Find the networks to start from for a data set.", timeout_s=HOUR_S),
    Declared("finetune", "finetune", "Fine-tune one network on a data set.", timeout_s=DAY_S),
    Declared(
        "zoo-refresh",
        "zoo_refresh",
        "Admit newcomers from the inbox.",
        timeout_s=HOUR_S,
        retries=1,
        cron="*/5 * * * *",
    ),
    Declared(
        "retrain",
        "retrain",
        "Rebuild what depends on new models, and publish it if it is better.",
        timeout_s=7 * DAY_S,
        retries=1,
        triggers=(RETRAIN_WHEN_DUE,),
    ),
)


def declared(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Make a function the flow that is declared under a name.

    What the function returns is the message of the completed run, so that a list of runs shows it. A `TansError` fails
    the run with its message, without a stack trace. A run of `tans serve` ends with its runner.
    """
    one = next(one for one in DECLARED if one.name == name)

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            tie_to_runner()
            logging.getLogger("prefect.flow_runs").addFilter(_says_more)
            try:
                said = function(*args, **kwargs)
            except TansError as error:
                return failed(error)
            return Completed(message=str(said), data=said)

        return flow(
            name=one.name,
            description=one.description,
            retries=one.retries,
            retry_delay_seconds=RETRY_DELAY_S,
            timeout_seconds=one.timeout_s,
        )(run)

    return decorate


def _says_more(record: logging.LogRecord) -> bool:
    """Return False for the stack trace that Prefect logs of a failed state that a flow returned on purpose."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))
