"""One declaration, two ways to serve it: what `make serve` registers, and prefect.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.cli.deploy._triggers import _initialize_deployment_triggers
from prefect.utilities.schema_tools import validate
from prefect.utilities.schema_tools.validation import ValidationError

from flows.declared import DECLARED
from flows.deployments import FILE, POOLS, deployments, prefect_yaml

ROOT = Path(__file__).resolve().parents[3]
MADE = {one.flow_name: one for one in deployments()}


def parameters(flow: str) -> dict[str, Any]:
    return MADE[flow]._parameter_openapi_schema.model_dump()


def test_committed_file_is_the_generated_one() -> None:
    assert (ROOT / FILE).read_text(encoding="utf-8") == prefect_yaml(), (
        f"python -m flows.deployments --write renews {FILE}"
    )


@pytest.mark.parametrize("kind", POOLS)
def test_each_pool_gets_what_make_serve_serves(kind: str) -> None:
    entries = [one for one in yaml.safe_load(prefect_yaml())["deployments"] if one["name"] == kind]
    assert len(entries) == len(MADE) == len(DECLARED) == 5
    for entry in entries:
        file, _, function = entry["entrypoint"].partition(":")
        assert (ROOT / file).is_file()
        one = MADE[function.replace("_", "-")]
        assert one.name == "local" and one.entrypoint == f"{file[:-3].replace('/', '.')}.{function}"
        assert one.description == entry["description"]
        crons = [schedule.schedule.cron for schedule in one.schedules or []]
        assert crons == [schedule["cron"] for schedule in entry.get("schedules", [])]
        events = [sorted(trigger.expect) for trigger in one.triggers]
        assert events == [trigger["expect"] for trigger in entry.get("triggers", [])]


def test_prefect_deploy_reads_the_file() -> None:
    read = PrefectYamlModel.model_validate(yaml.safe_load(prefect_yaml()))
    assert [one.name for one in read.deployments] == [kind for kind in POOLS for _ in DECLARED]
    triggers = [_initialize_deployment_triggers("any", one.triggers) for one in read.deployments if one.triggers]
    names = [trigger.name for some in triggers for trigger in some]
    assert len(names) == len(set(names)) == len(POOLS)


def test_schedule_that_a_person_paused_is_not_made_active_by_the_next_start() -> None:
    (schedule,) = MADE["zoo-refresh"].schedules or []
    assert schedule.model_dump(exclude_unset=True).keys() == {"schedule", "slug"}


@pytest.mark.parametrize("flow", ["retrieve", "finetune"])
def test_every_parameter_has_a_description(flow: str) -> None:
    undescribed = [name for name, one in parameters(flow)["properties"].items() if not one.get("description")]
    assert undescribed == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dataset": "x", "epochs": 0}, "0 is less than the minimum of 1"),
        ({"dataset": "x", "rank": "first"}, "'first' is not of type 'integer'"),
        ({"dataset": "x", "seed": -1}, "-1 is less than the minimum of 0"),
        ({"dataset": "x", "max_params_m": 0}, "0 is less than or equal to the minimum of 0"),
        ({}, "'dataset' is a required property"),
    ],
)
def test_bad_parameters_are_refused_by_the_server_before_there_is_a_run(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        validate(values, parameters("finetune"), raise_on_error=True)


@pytest.mark.parametrize("name", ["leaves", 2024])
def test_folder_may_have_a_number_for_its_name(name: str | int) -> None:
    validate({"dataset": name}, parameters("retrieve"), raise_on_error=True)


def test_runs_that_hang_end_and_only_builds_are_tried_again() -> None:
    assert all(one.timeout_s > 0 for one in DECLARED)
    assert {one.name for one in DECLARED if one.retries} == {"build", "retrain", "zoo-refresh"}
