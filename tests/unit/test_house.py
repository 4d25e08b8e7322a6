"""The rules of the house that no linter keeps."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_data_folder_explains_each_folder_that_a_stage_writes() -> None:
    readme = (PROJECT / "data/README.md").read_text(encoding="utf-8")
    for folder in ("tasks", "base", "zoo", "arrivals", "store", "space"):
        assert f"`{folder}/" in readme, folder


def test_ci_runs_what_the_readme_names() -> None:
    script = (PROJECT / ".ci/run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    for target in ("make check", "make run", "make test"):
        assert target in script, target
