"""Rules of the project that no linter checks."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tans_core.networks import registry
from tans_core.networks.registry import get_family, known_families
from tans_core.params import load_params

PROJECT = Path(__file__).resolve().parents[2]
MAX_LINES = 350
MAX_BYTES = 1_000_000


def program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def tracked() -> list[Path]:
    if shutil.which("git") is None or not (PROJECT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    return [PROJECT / name for name in listed.split("\0") if name and (PROJECT / name).is_file()]


def test_imports_go_down_and_each_library_has_one_importer() -> None:
    done = subprocess.run(
        [program("lint-imports"), "--no-cache"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_module_outside_networks_names_a_family() -> None:
    shorts = {get_family(name).short for name in known_families()}
    quoted = (rf"[\"'`]{re.escape(name)}[\"'`-]" for name in {*known_families(), *shorts})
    named = re.compile("|".join([r"networks\.(elastic|mbconv|packaged|ofa)\b", *quoted]))
    naming = [
        path.relative_to(PROJECT).as_posix()
        for folder in ("tans_core", "flows", "benchmarks")
        for path in (PROJECT / folder).rglob("*.py")
        if "networks" not in path.parts and named.search(path.read_text(encoding="utf-8"))
    ]
    assert naming == []
    # Neither by a constant.
    texts = {value for value in vars(registry).values() if isinstance(value, str)}
    assert texts.isdisjoint(known_families())


def test_git_holds_no_data_no_weights_and_no_runs() -> None:
    strays = [
        path.relative_to(PROJECT).as_posix()
        for path in tracked()
        if path.suffix in {".safetensors", ".parquet", ".lance", ".pt", ".ckpt", ".npz"}
        or path.relative_to(PROJECT).parts[0] in {"runs", "serving", "inbox", "quarantine", ".venv"}
        or (
            path.relative_to(PROJECT).parts[0] == "data"
            and path.name not in {".gitignore", "README.md"}
            and path.suffix != ".dvc"
        )
    ]
    assert strays == []


def test_files_in_git_are_small() -> None:
    large = {path.name: path.stat().st_size for path in tracked() if path.stat().st_size > MAX_BYTES}
    assert large == {}


def test_modules_stay_short() -> None:
    long = {
        path.relative_to(PROJECT).as_posix(): count
        for path in [*PROJECT.glob("tans_core/**/*.py"), *PROJECT.glob("flows/**/*.py")]
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def stages() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml; of a `foreach`, its template."""
    read: dict[str, dict[str, Any]] = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in read.items()}


def paths(stage: dict[str, Any], kind: str) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in stage.get(kind, [])]


def test_data_folder_explains_each_folder_that_a_stage_writes() -> None:
    readme = (PROJECT / "data/README.md").read_text(encoding="utf-8")
    written = {
        Path(out).parts[1] for stage in stages().values() for out in paths(stage, "outs") if out.startswith("data/")
    }
    assert {"tasks", "base", "zoo", "store", "space"} <= written
    for folder in written | {"arrivals"}:
        assert f"`{folder}/" in readme, folder


def test_base_stage_depends_on_the_tasks_that_params_list_for_it() -> None:
    tasks = [path for path in paths(stages()["base"], "deps") if path.startswith("data/tasks/")]
    assert sorted(tasks) == sorted(f"data/tasks/{name}" for name in load_params(PROJECT).base.tasks)


@pytest.mark.parametrize("kind", ["deps", "outs"])
def test_code_of_a_stage_exists_and_no_stage_writes_where_serving_does(kind: str) -> None:
    for name, stage in stages().items():
        for path in paths(stage, kind):
            if kind == "deps" and path.startswith("tans_core"):
                assert (PROJECT / path).exists(), f"{name}: {path}"
            if kind == "outs":
                assert Path(path).parts[0] not in {"serving", "runs", "inbox", "quarantine", "flows"}, f"{name}: {path}"


def test_ci_runs_what_the_readme_names() -> None:
    script = (PROJECT / ".ci/run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    for target in ("make check", "make run", "make test"):
        assert target in script, target
