"""The profiles that come with the project are valid, and keep what makes an evaluation honest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tans_core.edits import apply_profile, list_profiles
from tans_core.params import Params, TaskParams, load_params
from tans_core.sources import get_source
from tans_core.sources.base import licence_of

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml as committed: the working copy may have a profile applied."""
    root = tmp_path_factory.mktemp("default")
    committed = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=PROJECT, capture_output=True, check=False)
    text = committed.stdout if committed.returncode == 0 else (PROJECT / "params.yaml").read_bytes()
    (root / "params.yaml").write_bytes(text)
    shutil.copytree(PROJECT / "profiles", root / "profiles")
    return root


@pytest.fixture(scope="module")
def full(default: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose params.yaml has the profile `full` applied."""
    root = tmp_path_factory.mktemp("full") / "project"
    shutil.copytree(default, root)
    apply_profile(root, "full")
    return root


def packages(tasks: dict[str, TaskParams]) -> list[str]:
    return [get_source(task.source).package for task in tasks.values()]


def everything(params: Params) -> dict[str, TaskParams]:
    return {**params.tasks.meta_train, **params.tasks.meta_test}


def test_full_is_large(full: Path) -> None:
    tasks = load_params(full).tasks
    every = everything(load_params(full))
    assert len(every) >= 40
    assert len({task.source for task in every.values()}) >= 10
    assert len(tasks.meta_test) >= 8


def test_no_package_gives_images_to_both_roles(full: Path) -> None:
    tasks = load_params(full).tasks
    assert not set(packages(tasks.meta_train)) & set(packages(tasks.meta_test))


def test_every_task_has_a_source_with_a_licence(full: Path) -> None:
    for name, task in everything(load_params(full)).items():
        assert licence_of(get_source(task.source), task.options).strip(), name


@pytest.mark.parametrize("profile", list_profiles(PROJECT))
def test_a_profile_keeps_comments_and_lines_and_is_applied_once(profile: str, default: Path, tmp_path: Path) -> None:
    shutil.copytree(default, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "params.yaml").read_text(encoding="utf-8").splitlines()
    assert apply_profile(tmp_path, profile)
    after = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    rest = iter(after.splitlines())
    assert all(line in rest for line in before if "#" in line or line.strip().endswith(":"))
    assert apply_profile(tmp_path, profile) == []
    assert (tmp_path / "params.yaml").read_text(encoding="utf-8") == after


def test_full_reuses_the_base_and_the_zoos_of_the_default(default: Path, full: Path) -> None:
    ours, theirs = load_params(default), load_params(full)
    for section in ("seed", "data", "networks", "base", "zoo"):
        assert getattr(theirs, section) == getattr(ours, section)
    both = everything(ours)
    assert {name: everything(theirs)[name] for name in both} == both


def test_the_default_needs_nothing_but_pip(default: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANS_PACKAGES", str(tmp_path / "none"))
    for name, task in everything(load_params(default)).items():
        assert get_source(task.source).missing(task.options) is None, name


def test_tasks_of_a_profile_say_what_they_lack_in_one_sentence(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANS_PACKAGES", str(tmp_path / "none"))
    said = {get_source(task.source).missing(task.options) for task in everything(load_params(full)).values()}
    assert len(said) > 3
    assert all("\n" not in sentence for sentence in said if sentence)


def test_profiles_are_yaml_mappings_of_known_sections() -> None:
    for name in list_profiles(PROJECT):
        overlay = yaml.safe_load((PROJECT / "profiles" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert set(overlay) <= set(Params.model_fields)
