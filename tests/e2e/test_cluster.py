"""Clones that share a DVC remote: what one built, no other builds again. The remote is in S3."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.cluster import Built, build_and_share, inputs_digest, receive
from tans_core import api
from tests.factories.s3 import KEYS, s3_bucket

PIPELINE = """
stages:
  base:
    cmd: mkdir data/base && cp params.yaml data/base/weights
    deps: [tans_core]
    params: [seed]
    outs: [data/base]
  zoo:
    foreach: [oaks, elms]
    do:
      cmd: cp -r data/base data/${item} && date +%N > metrics/${item}.json
      deps: [data/base]
      outs: ["data/${item}"]
      metrics: [{"metrics/${item}.json": {cache: false}}]
"""


def project(root: Path, address: str = "") -> Path:
    """Make a project of three small stages, whose remote is a bucket at this address."""
    for folder in (".dvc", "tans_core", "data", "metrics"):
        (root / folder).mkdir(parents=True)
        (root / folder / ".gitignore").write_text("/config.local\n/tmp\n/cache\n" if folder == ".dvc" else "")
    (root / "tans_core/code.py").write_text("# of a stage\n")
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "params.yaml").write_text("seed: 0\n")
    remote = f"['remote \"storage\"']\n    url = s3://tans/dvc\n    endpointurl = {address}\n"
    (root / ".dvc/config").write_text(f"[core]\n    remote = storage\n    analytics = false\n{remote}")
    subprocess.run(["git", "init", "-q", root], check=True)
    commit(root)
    return root


def commit(root: Path) -> None:
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(["git", *author, "commit", "-qm", "as it is"], cwd=root, check=True)


def clone(source: Path, name: str) -> Path:
    subprocess.run(["git", "clone", "-q", source, source.parent / name], check=True)
    return source.parent / name


def build(root: Path, built: Built, *stages: str) -> tuple[list[str], Built]:
    """Build as a worker does; return the stages that ran, and what it hands on."""
    lines: list[str] = []
    own = build_and_share(root, stages, built, lines.append)
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")], own


def test_what_workers_built_is_pulled_and_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (KEYS | {"NO_PROXY": "127.0.0.1"}).items():
        monkeypatch.setenv(name, value)
    with s3_bucket("tans") as address:
        share(project(tmp_path / "origin", address))


def share(origin: Path) -> None:
    first, second, lead = (clone(origin, name) for name in ("first", "second", "lead"))
    ran, base = build(first, {}, "base", "zoo@oaks")
    assert ran == ["base", "zoo@oaks"]
    ran, elms = build(second, base, "zoo@elms")
    assert ran == ["zoo@elms"]
    assert receive(lead, base | elms)
    for worker, task in ((first, "oaks"), (second, "elms")):
        assert (lead / f"metrics/{task}.json").read_text() == (worker / f"metrics/{task}.json").read_text()
    commit(lead)
    last = clone(lead, "last")
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=last, check=True)
    assert (last / "data/elms/weights").read_text() == "seed: 0\n"
    lines: list[str] = []
    api.build("--dry", root=last, on_line=lines.append)
    assert any("up to date" in line for line in lines), lines
    assert not any(line.startswith("Running stage") for line in lines), lines


def test_clones_whose_results_cannot_be_shared_differ_by_their_digest(tmp_path: Path) -> None:
    origin = project(tmp_path / "origin")
    same = clone(origin, "same")
    assert inputs_digest(same) == inputs_digest(origin)
    (same / "metrics/oaks.json").write_text("1")
    assert inputs_digest(same) == inputs_digest(origin)
    (same / "tans_core/code.py").write_text("# changed\n")
    assert inputs_digest(same) != inputs_digest(origin)
