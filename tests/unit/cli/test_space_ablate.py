"""`tans space ablate` on the small project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.factories.processes import one_core
from tests.factories.project import TASKS
from tests.unit.cli.conftest import Tans


@pytest.fixture
def root(project: Path, tmp_path: Path) -> Path:
    """A copy of the small project."""
    shutil.copytree(project, tmp_path / "project")
    return tmp_path / "project"


@one_core()
def test_ablation_of_some_parts_gives_one_table_and_one_picture(tans: Tans, root: Path) -> None:
    only = ("noise-4", "images-5", "dim-16", "images-10")
    options = [word for name in only for word in ("--only", name)]
    done = tans("space", "ablate", "--seeds", "2", *options, "--json", "--root", root)
    assert done.code == 0, done.err
    value = json.loads(done.out)
    assert list(value["variants"]) == ["full", "dim-16", "noise-4", "images-5"]
    assert value["left_out"].pop("images-10") == "data/store holds 6 images a class"
    assert set(value["left_out"]) <= {"backbone"}
    assert (value["seeds"], value["folds"], value["tasks"], value["networks"]) == (2, 2, len(TASKS), 4 * len(TASKS))
    assert value.pop("files") == [str(root / "metrics/ablation.json"), str(root / "plots/ablation.png")]
    value["left_out"]["images-10"] = "data/store holds 6 images a class"
    assert json.loads((root / "metrics/ablation.json").read_text(encoding="utf-8")) == value
    with Image.open(root / "plots/ablation.png") as picture:
        assert picture.size[0] == 1344
    assert not (root / ".resume/ablate").exists()


@one_core()
def test_table_names_variants_and_what_was_left_out(tans: Tans, root: Path, tmp_path: Path) -> None:
    options = ("--seeds", "2", "--only", "no-predictor", "--only", "images-20", "--out", tmp_path / "shown/parts")
    done = tans("space", "ablate", *options, "--root", root)
    assert done.code == 0, done.err
    lines = [line.strip() for line in done.out.splitlines()]
    assert any(line.startswith("full ") for line in lines)
    assert any(line.startswith("no-predictor ") for line in lines)
    assert "left out: images-20: data/store holds 6 images a class" in lines
    assert (tmp_path / "shown/parts.png").is_file()
    more = tans("space", "ablate", *options[:2], "--only", "no-rank", "--json", *options[6:], "--root", root)
    assert json.loads(more.out)["variants"].keys() == {"full", "no-predictor", "no-rank"}


def test_unknown_variants_are_all_named(tans: Tans, root: Path) -> None:
    done = tans("space", "ablate", "--only", "no-topolgy", "--only", "xyz", "--root", root)
    assert done.code == 2
    assert "'no-topolgy': no such variant (did you mean 'no-topology'?)" in done.err
    assert "'xyz'" in done.err


def test_nothing_built_ends_with_6(tans: Tans, fresh: Path) -> None:
    done = tans("space", "ablate", "--root", fresh)
    assert done.code == 6
    assert "Run `tans build`" in done.err
