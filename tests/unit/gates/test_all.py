"""Every gate at once, on a project that was built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tans_core.gates.__main__ import main


def test_all_gates_pass_on_a_built_project_and_leave_pages_of_both_kinds(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    shutil.rmtree(root / "reports")
    assert main(["--root", str(root), "--data-docs"]) == 0
    reports = {path.stem for path in (root / "reports/gates").glob("*.md")}
    assert {"tasks", "zoo", "embeddings", "transfer", "index"} == reports
    page = (root / "reports/gates/data-docs/zoo-1.html").read_text()
    assert "models of stripes" in page


def test_failed_gate_does_not_hide_the_others(project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    (root / "data/zoo/bars/elastic-residual.calibration.safetensors").write_bytes(b"torn")
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("subnets: 4", "subnets: 5"))
    assert main(["--root", str(root)]) == 3
    assert "gate tasks: passed" in caplog.text
    assert "gate zoo: 7 expectations not met" in caplog.text
    assert "models of stripes (data/zoo/stripes/models.parquet): got 4 rows, want exactly 5" in caplog.text


def test_missing_part_is_named(project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    shutil.rmtree(root / "data/zoo/bars")
    assert main(["--root", str(root)]) == 4
    assert "tans build zoo@bars" in caplog.text
