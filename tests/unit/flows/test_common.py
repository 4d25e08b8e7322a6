"""Shared parts of the flows."""

from __future__ import annotations

import json
from pathlib import Path

from flows.common import artifact_key, json_block, markdown_table


def test_artifact_key_is_what_prefect_takes() -> None:
    assert artifact_key("retrieve", "My Leaves (2026)_v1.0") == "retrieve-my-leaves-2026-v1-0"


def test_table_cells_cannot_break_out() -> None:
    table = markdown_table({"a": "A", "b": "B"}, [{"a": "x|y\nz <img>", "b": 0.123456}])
    assert table.splitlines() == ["| A | B |", "|-|-|", "| x\\|y z &lt;img> | 0.1235 |"]


def test_json_block_takes_paths() -> None:
    assert json.loads(json_block({"folder": Path("runs/x")}).strip("`").removeprefix("json")) == {"folder": "runs/x"}
