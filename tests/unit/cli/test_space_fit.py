"""`tans space fit`: its output, files and exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from tans_core.cli.space_fit import LossPrecision
from tans_core.published.store import import_published
from tans_core.space.training import Precision
from tests.factories.published import save, zoo_and_queries
from tests.unit.cli.conftest import Tans


@pytest.fixture
def store(tmp_path: Path) -> Path:
    import_published(*save(tmp_path / "files", *zoo_and_queries()), tmp_path / "data/published")
    return tmp_path / "data/published"


KINDS = ("tans", "paper")


@pytest.mark.parametrize("objective", KINDS)
def test_fit_says_how_it_does_and_where_the_space_is(tans: Tans, fresh: Path, store: Path, objective: str) -> None:
    store.parent.rename(fresh / "data")
    done = tans("space", "fit", "--objective", objective, "--steps", 60, "--root", fresh)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert any(line.split()[:3] == ["held", "out", "24"] for line in lines)
    assert any(line.split()[:3] == ["fitted", "on", "96"] for line in lines)
    folder = fresh / "data/published-space"
    assert str(folder) in done.out
    assert sorted(path.name for path in folder.iterdir()) == ["space.json", "space.safetensors"]
    assert json.loads((folder / "space.json").read_text())["dims"]["functional_dim"] == 24
    assert sorted(path.name for path in folder.parent.iterdir()) == ["published", "published-space"]


@pytest.mark.parametrize("objective", KINDS)
def test_json_is_all_of_stdout_and_a_seed_gives_the_same_bytes(
    tans: Tans, store: Path, tmp_path: Path, objective: str
) -> None:
    spaces, made = [], {}
    # On one thread, however many there are.
    for threads, seed in ((1, 3), (2, 3), (2, 4)):
        torch.set_num_threads(threads)
        done = tans(
            *("space", "fit", "--objective", objective, "--store", store, "--steps", 30, "--seed", seed),
            *("--out", tmp_path / "s", "--json"),
        )
        made = json.loads(done.out)
        spaces.append((tmp_path / "s/space.safetensors").read_bytes())
    assert spaces[0] == spaces[1] != spaces[2]
    assert set(made["metrics"]["heldout"]) > {"recall_at_1", "spearman", "regret", "chance_regret"}
    assert set(made["made_from"]) == {"models", "task_features"}
    assert made["recipe"]["steps"] == 30 and made["out"] == str(tmp_path / "s")


@pytest.mark.parametrize("objective", KINDS)
def test_loss_in_half_precision_is_asked_for_and_told(tans: Tans, store: Path, tmp_path: Path, objective: str) -> None:
    options = ("--objective", objective, "--store", store, "--steps", 60, "--json")
    whole, half = (
        json.loads(tans("space", "fit", *options, "--precision", name, "--out", tmp_path / name).out)
        for name in ("fp32", "bf16")
    )
    assert get_args(Precision) == tuple(LossPrecision)
    assert (whole["recipe"]["precision"], half["recipe"]["precision"]) == ("fp32", "bf16")
    weights = [(tmp_path / name / "space.safetensors").read_bytes() for name in ("fp32", "bf16")]
    assert weights[0] != weights[1]
    found = (made["metrics"]["insample"]["recall_at_1"] for made in (whole, half))
    assert abs(next(found) - next(found)) < 0.15


def test_all_networks_may_be_fitted_on(tans: Tans, store: Path) -> None:
    done = tans("space", "fit", "--store", store, "--steps", 10, "--heldout", 0)
    assert done.code == 0, done.err
    assert "held out" not in done.out
    assert json.loads((store.with_name("published-space") / "space.json").read_text())["metrics"]["heldout"] == {}


def test_without_a_store_the_import_is_named(tans: Tans, tmp_path: Path) -> None:
    done = tans("space", "fit", "--store", tmp_path / "absent")
    assert done.code == 6 and "tans space import" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}", '{"objective": "tans"}', "[]"])
def test_a_folder_that_holds_something_else_is_left_alone(
    tans: Tans, store: Path, tmp_path: Path, content: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "space.json").write_text(content)
    done = tans("space", "fit", "--store", store, "--out", other)
    assert done.code == 6 and "--out FOLDER" in done.err
    assert (other / "space.json").read_text() == content
