"""Full disks, and folders without write permission."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories.images import write_class_folders

# A limit on file sizes fails like a full disk: during a write.
_SMALL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, {bytes}));"
_RUN = """
import sys
{limit}
from tans_core.errors import StoreError
import tans_core
try:
    {call}
except StoreError as error:
    print(error)
    sys.exit(6)
"""


def _run(call: str, limit: str = "") -> subprocess.CompletedProcess[str]:
    script = _RUN.format(call=call, limit=limit)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("save", "where"), [(None, "runs/"), ("mine", "data/scanned/mine")])
def test_a_disk_that_is_full_during_a_scan_is_said_and_leaves_nothing_half(
    save: str | None, where: str, fresh_project: Path, tmp_path: Path
) -> None:
    photos = write_class_folders(tmp_path / "photos", {"ash": 30, "oak": 30}, side=64)
    limit = _SMALL.format(bytes=150_000 if save else 3_000)
    found = _run(f"tans_core.scan({str(photos)!r}, save={save!r}, root={str(fresh_project)!r})", limit)
    assert found.returncode == 6, found.stderr
    assert "cannot be written: File too large" in found.stdout and "Free some space" in found.stdout
    assert where in found.stdout or "reports/" in found.stdout or ".resume" in found.stdout
    assert not list(fresh_project.rglob("*.tmp")) and not (fresh_project / "data/scanned/mine").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_a_folder_that_may_not_be_written_into_is_said(tmp_path: Path) -> None:
    call = (
        "import os, pathlib, tans_core.io as io; os.seteuid(65534); "
        f"io.write_text('x', pathlib.Path({str(tmp_path)!r}, 'a'))"
    )
    found = _run(call)
    assert found.returncode == 6, found.stderr[-2000:]
    assert "cannot be written: Permission denied" in found.stdout and "Make the folder writable" in found.stdout


@pytest.fixture
def fresh_project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_bytes((Path(__file__).resolve().parents[2] / "params.yaml").read_bytes())
    return root
