"""The gate that newcomers pass."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tans_core.errors import GateError, WeightsError
from tans_core.gates.arrivals import check_arrival
from tans_core.networks.elastic import ElasticNetwork
from tans_core.tasks.task import write_task
from tans_core.zoo.admission import Newcomer, read_newcomer
from tests.factories.newcomers import PREPROCESS, drop, tensors
from tests.factories.project import make_task

CLASSES = ["dark", "middle", "bright"]
HOME = {"kind": "task", "name": "stripes", "source": "made", "licence": "MIT"}


def newcomer(root: Path, own: dict[str, torch.Tensor] | None = None, **changes: Any) -> Newcomer:
    entry = drop(root / "inbox", **changes)
    save_file({**tensors(), **(own or {})}, entry / "weights.safetensors")
    return read_newcomer(entry, root / "staging")


def poisoned(name: str, value: float) -> dict[str, torch.Tensor]:
    found = tensors()[name].clone()
    found.view(-1)[0] = value
    return {name: found}


def at_home(root: Path, **changes: Any) -> Newcomer:
    """A newcomer whose home task is here."""
    write_task(make_task("stripes", "made", "meta-train", 0), root / "data/tasks/stripes")
    said = {"home_task": "stripes", "source": "made", "class_names": CLASSES, "lineage": [HOME]}
    return newcomer(root, **said, **changes)


def test_good_newcomer_passes_and_leaves_a_report(tmp_path: Path) -> None:
    found = newcomer(tmp_path)
    check_arrival(found, tmp_path)
    assert (tmp_path / f"reports/gates/{found.id}.md").is_file()
    assert (tmp_path / f"reports/gates/{found.id}-answers.md").is_file()


@pytest.mark.parametrize(
    ("own", "changes", "words"),
    [
        (poisoned("stem.weight", math.nan), {}, "not True, for example weights.safetensors:stem.weight"),
        (poisoned("stem.norm.bias", math.inf), {}, "finite: 1 of"),
        (poisoned("stem.norm.running_var", -1.0), {}, "a variance below zero"),
        ({name: value * 0 for name, value in tensors().items()}, {}, "spread_of_answers: 1 of 1 not"),
        (None, {"val_accuracy": 0.3}, "val_accuracy: 1 of 1 not above 0.333"),
        (None, {"val_accuracy": 1.5}, "val_accuracy: 1 of 1 not"),
        (None, {"test_accuracy": -0.1}, "test_accuracy: 1 of 1 not"),
        (None, {"preprocess": {**PREPROCESS, "std": [0.2, 0.0, 0.2]}}, "std_low: 1 of 1 not"),
        (None, {"preprocess": {**PREPROCESS, "mean": [0.5, 128.0, 0.5]}}, "mean_high: 1 of 1 not"),
    ],
)
def test_bad_values_fail(
    tmp_path: Path, own: dict[str, torch.Tensor] | None, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(GateError) as caught:
        check_arrival(newcomer(tmp_path, own, **changes), tmp_path)
    assert words in str(caught.value)


def test_what_a_card_claims_is_measured_again_where_the_home_task_is_here(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"claimed_less_measured: 2 of 2 not .*stripes, val"):
        check_arrival(at_home(tmp_path, val_accuracy=0.99, test_accuracy=0.99), tmp_path)


def test_an_honest_card_of_a_home_task_that_is_here_passes(tmp_path: Path) -> None:
    found = at_home(tmp_path, val_accuracy=0.34, test_accuracy=0.0)
    # A network that predicts one class is right on a third of the images, yet its outputs for noise differ.
    check_arrival(found, tmp_path)


def test_finite_weights_with_answers_that_are_not_are_refused(tmp_path: Path) -> None:
    exploding = {name: value * 1e30 for name, value in tensors().items() if name.endswith("weight")}
    with pytest.raises(WeightsError, match="on random images its outputs are NaN or infinite"):
        check_arrival(newcomer(tmp_path, exploding), tmp_path)


@pytest.mark.parametrize("damage", ["images.parquet", "task.json"])
def test_a_home_task_that_cannot_be_read_keeps_nobody_out(tmp_path: Path, damage: str) -> None:
    found = at_home(tmp_path, val_accuracy=0.99, test_accuracy=0.99)
    (tmp_path / "data/tasks/stripes" / damage).write_text("{")
    check_arrival(found, tmp_path)
    (tmp_path / "data/tasks/stripes" / damage).unlink()
    check_arrival(found, tmp_path)


def test_a_network_that_fails_on_images_is_told_by_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    found = newcomer(tmp_path)
    monkeypatch.setattr(ElasticNetwork, "features", fail)
    with pytest.raises(WeightsError, match=r"cannot be asked about images \(RuntimeError: shapes do not match\)"):
        check_arrival(found, tmp_path)


def test_a_task_of_the_same_name_and_other_classes_is_not_its_home(tmp_path: Path) -> None:
    write_task(make_task("my leaves", "made", "meta-train", 0), tmp_path / "data/tasks/my leaves")
    check_arrival(newcomer(tmp_path, val_accuracy=0.99), tmp_path)
