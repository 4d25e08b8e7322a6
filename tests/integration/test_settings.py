"""Every setting of params.yaml has an effect: a change of it changes what its stage writes or prints.

`gates.query.*` is tested with scans in tests/unit/gates/test_query_limits.py, `evaluate.longer` with a zoo of published
networks in test_real_networks.py.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from pydantic import BaseModel

from tans_core import yaml_file
from tans_core.errors import TansError
from tans_core.gates import query
from tans_core.params import Params
from tans_core.stages import gate
from tests.factories.processes import one_core
from tests.factories.project import PARAMS, TASKS, build_project
from tests.factories.stage_runs import (
    run_base,
    run_commit,
    run_due,
    run_embed,
    run_evaluate,
    run_finetune,
    run_finetune_fitted,
    run_push,
    run_release,
    run_retrieve,
    run_scan,
    run_space,
    run_task,
    run_task_beside_threads,
    run_transfer,
    run_zoo,
)
from tests.factories.started import CHANGES, STARTED, run_started

pytestmark = pytest.mark.slow

SOURCES = {name: f"made-of-{name}" for name in TASKS}
FAMILY = next(iter(PARAMS["networks"]))
# Of the project's own params.yaml: each setting of each family needs a case.
NETWORKS = yaml_file.read_yaml(Path(__file__).resolve().parents[2] / "params.yaml")["networks"]
# A task from a package beside those that are made here: `tasks` reads its settings.
READ = {"source": "scikit-learn-photos", "options": {"patch_px": 18, "grey": True}}

Run = Callable[[Path], Any]


class Case(NamedTuple):
    run: Run
    value: Any


CASES: dict[str, Case] = {
    "seed": Case(run_base, 1),
    "data.stored_size_px": Case(run_task, 24),
    "data.max_train": Case(run_task, 30),
    "data.max_val": Case(run_task, 10),
    "data.max_test": Case(run_task, 10),
    "data.min_images_per_class": Case(run_task, 5000),
    "data.max_bad_share": Case(run_scan, 0.01),
    "data.workers": Case(run_task_beside_threads, 2),
    "tasks.meta_train": Case(run_task, {"regions": {**READ, "options": {"patch_px": 20, "grey": True}}}),
    "tasks.meta_test": Case(run_evaluate, {"stripes": {"source": "made"}}),
    f"networks.{FAMILY}.image_size_px": Case(run_base, 24),
    f"networks.{FAMILY}.stem_width": Case(run_base, 16),
    f"networks.{FAMILY}.widths": Case(run_base, [8, 24]),
    f"networks.{FAMILY}.strides": Case(run_base, [2, 1]),
    f"networks.{FAMILY}.max_depth": Case(run_base, 1),
    f"networks.{FAMILY}.kernels": Case(run_base, [3]),
    f"networks.{FAMILY}.ratios": Case(run_base, [1.0]),
    **{f"networks.{STARTED}.{name}": Case(run_started, value) for name, value in CHANGES.items()},
    "base.tasks": Case(run_base, list(TASKS)[:2]),
    "base.steps": Case(run_base, 10),
    "base.batch_size": Case(run_base, 8),
    "base.optimizer": Case(run_base, "adamw"),
    "base.lr": Case(run_base, 0.01),
    "base.head_factor": Case(run_base, 5.0),
    "base.warmup": Case(run_base, 0.5),
    "base.head": Case(run_base, "fresh"),
    "base.lr_floor": Case(run_base, 1.0),
    "base.families": Case(run_base, {FAMILY: {"steps": 20}}),
    "base.momentum": Case(run_base, 0.5),
    "base.weight_decay": Case(run_base, 0.1),
    "base.precision": Case(run_base, "bf16"),
    "base.start_share": Case(run_base, 0.5),
    "base.subnets": Case(run_base, 3),
    "zoo.steps": Case(run_zoo, 10),
    "zoo.batch_size": Case(run_zoo, 8),
    "zoo.optimizer": Case(run_zoo, "adamw"),
    "zoo.lr": Case(run_zoo, 0.01),
    "zoo.head_factor": Case(run_zoo, 5.0),
    "zoo.warmup": Case(run_zoo, 0.5),
    "zoo.head": Case(run_zoo, "fresh"),
    "zoo.lr_floor": Case(run_zoo, 1.0),
    "zoo.families": Case(run_zoo, {FAMILY: {"subnets": 6}}),
    "zoo.momentum": Case(run_zoo, 0.5),
    "zoo.weight_decay": Case(run_zoo, 0.1),
    "zoo.subnets": Case(run_zoo, 5),
    "zoo.select_from": Case(run_zoo, 6),
    "zoo.calibration_images": Case(run_zoo, 12),
    "embed.anchors_per_task": Case(run_embed, 2),
    "embed.projection_dim": Case(run_embed, 8),
    "embed.projection_seed": Case(run_embed, 2),
    "embed.backbone": Case(run_embed, "resnet81"),
    "embed.images_per_class": Case(run_embed, 3),
    "transfer.networks_per_task": Case(run_transfer, 5),
    "transfer.general_per_task": Case(run_transfer, 2),
    "transfer.cover": Case(run_transfer, False),
    "transfer.probes_per_home": Case(run_transfer, 3),
    "transfer.seeds": Case(run_transfer, 2),
    "transfer.steps": Case(run_transfer, 8),
    "transfer.probe_images": Case(run_transfer, 16),
    "transfer.probe_images_per_class": Case(run_transfer, 4),
    "space.dim": Case(run_space, 4),
    "space.steps": Case(run_space, 5),
    "space.lr": Case(run_space, 0.05),
    "space.weight_decay": Case(run_space, 0.5),
    "space.temperature": Case(run_space, 0.5),
    "space.positives": Case(run_space, 1),
    "space.pairs_per_step": Case(run_space, 8),
    "space.samples": Case(run_space, 2),
    "space.images_per_sample": Case(run_space, 6),
    "space.topology_noise": Case(run_space, 0.0),
    "space.functional_noise": Case(run_space, 0.0),
    "space.query_noise": Case(run_space, 0.0),
    "space.matching_weight": Case(run_space, 2.0),
    "space.home_weight": Case(run_space, 2.0),
    "space.tuned_weight": Case(run_space, 0.1),
    "space.probed_weight": Case(run_space, 0.1),
    "space.rank_weight": Case(run_space, 2.0),
    "space.frechet_weight": Case(run_space, 2.0),
    "space.heldout_share": Case(run_space, 0.5),
    "space.log_every": Case(run_space, 5),
    "space.folds": Case(run_space, 3),
    "space.precision": Case(run_space, "bf16"),
    "retrieval.top_k": Case(run_retrieve, 2),
    "finetune.epochs": Case(run_finetune, 1),
    "finetune.batch_size": Case(run_finetune, 4),
    "finetune.optimizer": Case(run_finetune, "adamw"),
    "finetune.lr": Case(run_finetune, 0.1),
    "finetune.head_factor": Case(run_finetune, 5.0),
    "finetune.warmup": Case(run_finetune, 0.5),
    "finetune.head": Case(run_finetune, "fitted"),
    "finetune.lr_floor": Case(run_finetune_fitted, 0.1),
    "finetune.frozen_steps": Case(run_finetune, 2),
    "finetune.families": Case(run_finetune, {FAMILY: {"lr": 0.1}}),
    "finetune.momentum": Case(run_finetune, 0.1),
    "finetune.weight_decay": Case(run_finetune, 0.5),
    "evaluate.steps": Case(run_evaluate, 3),
    "evaluate.points": Case(run_evaluate, 3),
    "evaluate.seeds": Case(run_evaluate, 3),
    "evaluate.random_draws": Case(run_evaluate, 4),
    "release.margin": Case(run_release, 1.0),
    "release.regret_margin": Case(run_release, 100.0),
    "release.recall_margin": Case(run_release, 1.0),
    "release.confidence": Case(run_release, 0.9),
    "release.branch": Case(run_commit, "records"),
    "release.remote": Case(run_push, "remote.git"),
    "retrain.admissions": Case(run_due, 3),
    "retrain.days": Case(run_due, 3.0),
    "retrain.drift": Case(run_due, False),
    "gates.min_images_per_task": Case(lambda root: gate.main(root, "tasks"), 1000),
    "gates.min_val_accuracy_over_chance": Case(lambda root: gate.main(root, "zoo"), 0.9),
}


def keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")
        elif name == "networks":
            yield from (f"networks.{family}.{key}" for family, own in NETWORKS.items() for key in own)
        else:
            yield f"{prefix}{name}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project of four sources, and short enough fits."""
    fitted = {"head": "fitted", "lr_floor": 0.1}
    sections = {name: {**PARAMS[name], **fitted} for name in ("base", "zoo")}
    sections["base"]["subnets"] = 2
    sections["space"] = {**PARAMS["space"], "steps": 10, "log_every": 10}
    root = build_project(tmp_path_factory.mktemp("settings"), sources=SOURCES, **sections)
    shutil.rmtree(root / "serving")
    return root


@pytest.fixture(scope="module")
def unchanged() -> dict[Run, Any]:
    """The outcome of each run with unchanged settings."""
    return {}


def outcome(built: Path, root: Path, run: Run, key: str = "", value: Any = None) -> Any:
    """Run on a copy of the project, with one setting changed. An error that stops the run is an outcome, too."""
    shutil.copytree(built, root)
    params: dict[str, Any] = yaml.safe_load((root / "params.yaml").read_text())
    params["tasks"]["meta_train"]["regions"] = READ
    if run is not run_task and run is not run_task_beside_threads:
        del params["tasks"]["meta_train"]["regions"]
    if run is run_started:
        params["networks"] = copy.deepcopy(NETWORKS)
    if key:
        *parents, last = key.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = {**section[last], **copy.deepcopy(value)} if key == "tasks.meta_train" else copy.deepcopy(value)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    try:
        return run(root)
    except TansError as error:
        return type(error)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stages and the gate work in this process alone: starting others takes longer than these runs."""
    monkeypatch.setattr(query, "start_query_gate", lambda: query.QueryGate(None))
    with one_core():
        yield


def test_every_setting_has_a_case_here() -> None:
    known = {key for key in keys(Params) if not key.startswith(("gates.query.", "evaluate.longer"))}
    assert known == set(CASES)


@pytest.mark.parametrize("key", CASES)
def test_setting_changes_what_is_made(key: str, built: Path, unchanged: dict[Run, Any], tmp_path: Path) -> None:
    run, value = CASES[key]
    if run not in unchanged:
        unchanged[run] = outcome(built, tmp_path / "before", run)
    assert outcome(built, tmp_path / "after", run, key, value) != unchanged[run]
    # A run that always differs would hide a setting without effect.
    if run in (run_base, run_zoo, run_space) and key.endswith("steps"):
        assert outcome(built, tmp_path / "again", run) == unchanged[run]
