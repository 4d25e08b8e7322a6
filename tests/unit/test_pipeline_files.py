"""dvc.yaml and params.yaml say the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from tans_core.errors import ParamsError
from tans_core.params import load_params
from tans_core.stages.base import check_dependencies

ROOT = Path(__file__).resolve().parents[2]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_base_depends_on_the_tasks_that_params_list_for_it() -> None:
    check_dependencies(ROOT, load_params(ROOT).base.tasks)


def test_task_of_the_base_that_dvc_does_not_know_of_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {base: {deps: [tans_core/zoo, data/tasks/a, data/tasks/b]}}")
    with pytest.raises(ParamsError, match=r"add data/tasks/c; drop data/tasks/b"):
        check_dependencies(tmp_path, ["a", "c"])


def test_every_stage_runs_a_module_that_exists_and_depends_on_its_code() -> None:
    for name, stage in STAGES.items():
        body = stage.get("do", stage)
        module = body["cmd"].split()[6]
        assert importlib.util.find_spec(module), name
        assert module.replace(".", "/") + ".py" in body["deps"], name
        missing = [dep for dep in body["deps"] if dep.startswith("tans_core") and not (ROOT / dep).exists()]
        assert not missing, name


def test_default_zoo_has_twenty_tasks_of_five_sources_and_five_unseen_ones() -> None:
    tasks = load_params(ROOT).tasks
    seen = {task.source for task in tasks.meta_train.values()}
    unseen = {task.source for task in tasks.meta_test.values()}
    assert len(tasks.meta_train) >= 20
    assert len(seen) >= 5
    assert len(tasks.meta_test) >= 5
    assert not seen & unseen
