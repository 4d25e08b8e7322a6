"""How many stages a build has."""

from __future__ import annotations

from pathlib import Path

import yaml

from flows.progress import count_stages


def test_each_item_of_a_foreach_counts(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("tasks: {seen: {a: {}, b: {}, c: {}}}")
    stages = {"base": {}, "zoo": {"foreach": "${tasks.seen}"}, "two": {"foreach": [1, 2]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    assert count_stages(tmp_path) == 6


def test_broken_file_is_left_to_dvc(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: [")
    assert count_stages(tmp_path) == 1
