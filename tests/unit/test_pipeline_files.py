"""dvc.yaml and params.yaml agree."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from tans_core.errors import ParamsError
from tans_core.params import FinetuneParams, load_params
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


@pytest.mark.parametrize("stage", ["transfer", "evaluate"])
def test_stages_that_fine_tune_depend_on_every_setting_of_the_recipe(stage: str) -> None:
    settings = {f"finetune.{name}" for name in FinetuneParams.model_fields} - {"finetune.epochs"}
    assert settings <= set(STAGES[stage]["params"])


def test_default_zoo_has_twenty_tasks_of_five_sources_and_five_unseen_ones() -> None:
    tasks = load_params(ROOT).tasks
    seen = {task.source for task in tasks.meta_train.values()}
    unseen = {task.source for task in tasks.meta_test.values()}
    assert len(tasks.meta_train) >= 20
    assert len(seen) >= 5
    assert len(tasks.meta_test) >= 5
    assert not seen & unseen


# What cannot change what a stage writes: its places, errors, settings (which DVC follows by value), the machine.
NEVER = {"errors", "imports", "io", "leash", "pages", "params", "runtime", "stages._main", "yaml_file"}
# What a stage imports, and why a change there reaches it in another way, or not at all.
THROUGH_DATA = {
    # The settings of training know of recipes, whoever reads the others.
    "tasks": ("recipe",),
    "base": ("licences", "spdx"),  # the tasks' licences are written down in their task.json
    "embed": ("licences", "spdx", "recipe"),
    "gate": (
        "classes",
        "embeddings",
        "licences",
        "spdx",
        "recipe",
        "networks",
        "tasks",
        "zoo",
    ),  # a gate writes "passed", from what others wrote
    "transfer": ("licences", "spdx"),
    "space": (
        "licences",
        "spdx",
        "recipe",
        "networks",
        "tasks",
        "zoo",
    ),  # of models it reads the table that `embed` wrote
    "index": ("recipe", "networks", "tasks", "zoo", "embeddings.scores"),
    # It looks at releases as a reader; the plan of the trials plays no part in it.
    "evaluate": (
        "licences",
        "spdx",
        "index.releases",
        "index.listing",
        "index.release",
        "index.built",
        "index.history",
        "index.blobs",
        "index.settings",
        "index.schema",
        "index.withdrawn",
        "newcomers",
        "locks",
    ),
}


@pytest.mark.parametrize("name", STAGES)
def test_stage_depends_on_all_code_that_makes_what_it_writes(name: str) -> None:
    import grimp

    body = STAGES[name].get("do", STAGES[name])
    module = body["cmd"].split()[6]
    stage = module.rpartition(".")[2]
    graph = grimp.build_graph("tans_core", cache_dir=None)
    if stage != "gate":  # a gate passes what was written, or does not: it changes none of it
        for one in [one for one in graph.modules if one.startswith("tans_core.gates")]:
            graph.remove_module(one)
    imported = {one.removeprefix("tans_core.") for one in graph.find_upstream_modules(module)} - NEVER
    covered = [
        Path(dep).with_suffix("").as_posix().replace("/", ".") for dep in body["deps"] if dep.startswith("tans_core")
    ]
    uncovered = {
        one
        for one in imported
        if not any(f"tans_core.{one}".startswith(dep) for dep in covered)
        and not any(one == known or one.startswith(f"{known}.") for known in THROUGH_DATA.get(stage, ()))
    }
    assert uncovered == set()


def test_change_of_topology_codes_or_of_the_weights_reader_embeds_anew() -> None:
    deps = STAGES["embed"]["deps"]
    assert {"tans_core/networks", "tans_core/zoo"} <= set(deps)


@pytest.mark.parametrize("name", [name for name in STAGES if "tans_core/networks" in str(STAGES[name])])
def test_stage_that_runs_networks_depends_on_families_of_installed_packages(name: str) -> None:
    """What a family of an arrival computes reaches neither the base nor the zoo."""
    deps = STAGES[name].get("do", STAGES[name])["deps"]
    assert ("data/families/zoo" if name in ("base", "zoo") else "data/families") in deps
    assert (ROOT / "data/families/zoo/.gitignore").is_file() and (ROOT / "data/families/arrivals/.gitignore").is_file()


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_depends_on_what_others_published_or_imports_it(name: str) -> None:
    import grimp

    body = STAGES[name].get("do", STAGES[name])
    room = "tans_core/published"
    assert not [dep for dep in body["deps"] if f"{dep}/".startswith(f"{room}/") or room.startswith(f"{dep}/")]
    graph = grimp.build_graph("tans_core", cache_dir=None)
    imported = graph.find_upstream_modules(body["cmd"].split()[6])
    assert not [one for one in imported if one.startswith("tans_core.published")]
