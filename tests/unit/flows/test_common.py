"""Shared parts of the flows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.common import artifact_key, json_block, markdown_table, rebuild
from flows.finetune import hand_in
from tans_core.embeddings.store import read_table
from tans_core.errors import GateError
from tests.factories.repository import init_repository


def test_artifact_key_is_what_prefect_takes() -> None:
    assert artifact_key("retrieve", "My Leaves (2026)_v1.0") == "retrieve-my-leaves-2026-v1-0"


def test_table_cells_cannot_break_out() -> None:
    table = markdown_table({"a": "A", "b": "B"}, [{"a": "x|y\nz <img>", "b": 0.123456}])
    assert table.splitlines() == ["| A | B |", "|-|-|", "| x\\|y z &lt;img> | 0.1235 |"]


def test_json_block_takes_paths() -> None:
    assert json.loads(json_block({"folder": Path("runs/x")}).strip("`").removeprefix("json")) == {"folder": "runs/x"}


def test_handed_in_run_is_in_the_inbox_with_two_files(tmp_path: Path) -> None:
    run = tmp_path / "runs/one"
    run.mkdir(parents=True)
    for name in ("card.json", "weights.safetensors", "curve.csv"):
        (run / name).write_text(name)
    hand_in(run, tmp_path / "inbox")
    assert [path.name for path in (tmp_path / "inbox").iterdir()] == ["one"]
    assert sorted(path.name for path in (tmp_path / "inbox/one").iterdir()) == ["card.json", "weights.safetensors"]


# A stage that embeds the arrivals it sees, while another one comes in on its first run.
EMBED = """
import json, pathlib
import pyarrow as pa
from tans_core.embeddings.store import write_table
arrivals = pathlib.Path("data/arrivals")
cards = [json.loads(path.read_text()) for path in sorted(arrivals.glob("*/card.json"))]
table = pa.table({"id": [card["id"] for card in cards], "card": [json.dumps(card) for card in cards]})
write_table(pathlib.Path("data/store"), "models", table)
late = arrivals / "late"
if not late.exists():
    late.mkdir()
    (late / "card.json").write_text(json.dumps({"id": "late", "weights": "arrivals/late/weights.safetensors"}))
    FAIL
"""
DVC_YAML = """
stages:
  embed:
    cmd: python embed.py
    deps: [data/arrivals]
    outs: [data/store/models.lance, data/store/models.digest]
"""


def under_dvc(root: Path, on_late: str) -> Path:
    early = root / "data/arrivals/early"
    early.mkdir(parents=True)
    (early / "card.json").write_text(json.dumps({"id": "early", "weights": "arrivals/early/weights.safetensors"}))
    (root / "embed.py").write_text(EMBED.replace("FAIL", on_late))
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text("{}")
    init_repository(root)
    return root


@pytest.mark.parametrize("on_late", ["pass", "raise SystemExit(3)"], ids=["unnoticed", "refused by the gate"])
def test_arrival_that_comes_while_its_stage_runs_is_built_in(tmp_path: Path, on_late: str) -> None:
    root = under_dvc(tmp_path, on_late)
    rebuild(root, lambda line: None, ["embed"])
    assert read_table(root / "data/store", "models")["id"].to_pylist() == ["early", "late"]


def test_gate_that_fails_without_newcomers_is_reported(tmp_path: Path) -> None:
    root = under_dvc(tmp_path, "pass")
    (root / "embed.py").write_text("raise SystemExit(3)")
    with pytest.raises(GateError, match="embed"):
        rebuild(root, lambda line: None, ["embed"])
