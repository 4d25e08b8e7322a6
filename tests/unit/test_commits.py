"""What a retraining changed is committed beside the user's work, and never over it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tans_core.commits import CommitError, commit_recorded, push_branch


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@localhost"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "metrics").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    for name in ("params.yaml", "dvc.lock", "metrics/space.json"):
        (root / name).write_text("first\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def state(root: Path) -> tuple[str, bytes, str]:
    """Branch, index and status, as the user has them."""
    return git(root, "symbolic-ref", "HEAD"), (root / ".git/index").read_bytes(), git(root, "status", "--porcelain")


def test_what_changed_is_committed_to_its_branch_and_the_work_tree_stays(root: Path) -> None:
    (root / "dvc.lock").write_text("second\n")
    (root / "metrics/releases.jsonl").write_text("{}\n")
    (root / "notes.txt").write_text("mine")
    before = state(root)
    commit = commit_recorded(root, "tans/releases", "Release one")
    assert state(root) == before
    assert git(root, "rev-parse", "tans/releases") == commit and git(root, "rev-parse", f"{commit}^") == git(
        root, "rev-parse", "main"
    )
    changed = git(root, "diff", "--name-status", "main", commit).split()
    assert changed == ["M", "dvc.lock", "A", "metrics/releases.jsonl"]
    assert git(root, "log", "-1", "--format=%s %an", commit) == "Release one TANS"
    assert commit_recorded(root, "tans/releases", "Release one") == ""


def test_commit_has_the_files_of_head_also_after_the_user_went_on(root: Path) -> None:
    (root / "dvc.lock").write_text("second\n")
    first = commit_recorded(root, "releases", "one")
    (root / "params.yaml").write_text("changed\n")
    git(root, "commit", "-qm", "params", "params.yaml")
    (root / "metrics/space.json").unlink()
    second = commit_recorded(root, "releases", "two")
    assert git(root, "rev-list", "--parents", "-1", second).split()[1:] == [first, git(root, "rev-parse", "main")]
    assert git(root, "show", f"{second}:params.yaml") == "changed"
    assert git(root, "ls-tree", "-r", "--name-only", second).split() == ["dvc.lock", "params.yaml"]


def test_dirty_work_tree_and_a_branch_in_use_are_left_alone(root: Path, tmp_path: Path) -> None:
    (root / "params.yaml").write_text("mine\n")
    before = state(root)
    with pytest.raises(CommitError, match=r"changes that are not committed: params\.yaml\. It is left as it is"):
        commit_recorded(root, "releases", "one")
    assert state(root) == before and git(root, "branch", "--format=%(refname:short)") == "main"
    git(root, "checkout", "-q", "params.yaml")
    with pytest.raises(CommitError, match=r"branch main is checked out\. Set `release\.branch`"):
        commit_recorded(root, "main", "one")
    with pytest.raises(CommitError, match="check-ref-format"):
        commit_recorded(root, "a..b", "one")
    with pytest.raises(CommitError, match="`git rev-parse` failed"):
        commit_recorded(tmp_path, "releases", "one")


def test_branch_is_pushed_and_never_forced(root: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    git(tmp_path, "init", "-q", "--bare", str(remote))
    (root / "dvc.lock").write_text("second\n")
    commit = commit_recorded(root, "releases", "one")
    push_branch(root, "releases", str(remote))
    assert git(remote, "rev-parse", "releases") == commit
    git(root, "branch", "-f", "releases", "main")
    (root / "dvc.lock").write_text("third\n")
    commit_recorded(root, "releases", "other")
    with pytest.raises(CommitError, match="`git push` failed"):
        push_branch(root, "releases", str(remote))
    assert git(remote, "rev-parse", "releases") == commit
