"""The deployments of `make serve`, and prefect.yaml with the same ones for work pools. `flows.declared` says what.

python -m flows.deployments --write
"""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.types.entrypoint import EntrypointType
from ruamel.yaml import YAML

from flows.declared import DECLARED, Declared

LOCAL = "local"
FILE = "prefect.yaml"
# The image holds TANS; the project's folder is mounted at the same path in every container.
IN_CONTAINERS = "/project"
POOLS: dict[str, dict[str, Any]] = {
    "process": {"name": "tans-process"},
    "docker": {
        "name": "tans-docker",
        "job_variables": {"image": "{{ $TANS_IMAGE }}", "volumes": [f"{{{{ $PWD }}}}:{IN_CONTAINERS}"]},
    },
    "kubernetes": {"name": "tans-kubernetes", "job_variables": {"image": "{{ $TANS_IMAGE }}"}},
}
HEAD = """\
# Written by `python -m flows.deployments --write` from flows/declared.py, as what `make serve` serves: change it there.
# From this folder, for the pool of one kind (process, docker, kubernetes); docs/serving.md has the details:
#   prefect work-pool create tans-process --type process
#   prefect --no-prompt deploy --name '*/process'
#   prefect worker start --pool tans-process
"""


def deployments() -> list[RunnerDeployment]:
    """Return one deployment per flow, each named `<flow>/local`."""
    return [_deployment(one) for one in DECLARED]


def _deployment(one: Declared) -> RunnerDeployment:
    flow = getattr(importlib.import_module(f"flows.{one.module}"), one.function)
    # With a slug and without `active`, a schedule that a person paused stays paused at the next start.
    schedules = one.cron and [
        DeploymentScheduleCreate(schedule=CronSchedule(cron=one.cron, timezone="UTC"), slug=one.name)
    ]
    made = flow.to_deployment(
        LOCAL,
        schedules=schedules or None,
        triggers=[DeploymentEventTrigger(**_named(trigger, LOCAL)) for trigger in one.triggers],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    # Its type also covers the awaitables that asynchronous callers get.
    return cast(RunnerDeployment, made)


def _named(trigger: Any, deployment: str) -> dict[str, Any]:
    return {**trigger, "name": f"tans-{deployment}-{trigger['name']}"}


def prefect_yaml() -> str:
    """Return the text of prefect.yaml: each flow once per kind of pool, named `<flow>/<kind>`."""
    document = {
        "name": "tans",
        "deployments": [_entry(one, kind) for kind in POOLS for one in DECLARED],
    }
    text = io.StringIO()
    yaml = YAML()
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda data: True
    yaml.dump(document, text)
    return HEAD + text.getvalue().replace("\n  - name:", "\n\n  - name:")


def _entry(one: Declared, kind: str) -> dict[str, Any]:
    folder = "{{ $PWD }}" if kind == "process" else IN_CONTAINERS
    entry: dict[str, Any] = {
        "name": kind,
        "description": one.description,
        "entrypoint": f"flows/{one.module}.py:{one.function}",
        "work_pool": POOLS[kind],
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": folder}}],
    }
    if one.cron:
        entry["schedules"] = [{"cron": one.cron, "timezone": "UTC", "slug": one.name}]
    if one.triggers:
        entry["triggers"] = [{"type": "event", "enabled": True, **_named(one_, kind)} for one_ in one.triggers]
    return entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Print prefect.yaml, or write it."""
    parser = argparse.ArgumentParser(prog="python -m flows.deployments", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {FILE} in this folder")
    if parser.parse_args(arguments).write:
        Path(FILE).write_text(prefect_yaml(), encoding="utf-8")
    else:
        sys.stdout.write(prefect_yaml())
    return 0


if __name__ == "__main__":
    sys.exit(main())
