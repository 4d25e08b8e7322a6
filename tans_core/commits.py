"""Commits what a retraining changed in git's files to a branch of its own. Work tree and index stay as they are."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tans_core.errors import TansError

RECORDED = ("dvc.lock", "metrics", "plots")
"""What stages and publishing write into git's files."""
_AUTHOR = {"NAME": "TANS", "EMAIL": "tans@localhost"}
_SHOWN = 5
_PUSH_TIMEOUT_S = 60.0


class CommitError(TansError):
    """Nothing was committed or pushed; the message says why."""


def commit_recorded(root: Path, branch: str, message: str) -> str:
    """Commit `RECORDED` as they are in the work tree, on top of HEAD's other files.

    Args:
        root: the project's folder.
        branch: made if there is none; HEAD becomes a parent unless the branch contains it.
        message: of the commit.

    Returns:
        The commit; empty if the branch has the same content already.

    Raises:
        CommitError: other files of git were changed, the branch is checked out, or git fails.
    """
    head, name = _git(root, "rev-parse", "--verify", "HEAD^{commit}"), f"refs/heads/{branch}"
    _git(root, "check-ref-format", name)
    if f"branch {name}" in _git(root, "worktree", "list", "--porcelain").splitlines():
        raise CommitError(f"branch {branch} is checked out. Set `release.branch` in params.yaml to another one.")
    excluded = [f":(exclude){path}" for path in RECORDED]
    if changed := _git(root, "diff", "--name-only", "HEAD", "--", ".", *excluded).splitlines():
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise CommitError(
            f"the work tree has changes that are not committed: {', '.join(changed[:_SHOWN])}{more}. It is left as it "
            "is: what was built follows from them. Commit them; the next retraining that publishes is committed then."
        )
    tip = _git(root, "for-each-ref", "--format=%(objectname)", name)
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(root, "read-tree", head, environment=index)
        paths = [path for path in RECORDED if (root / path).exists() or _git(root, "ls-files", path, environment=index)]
        _git(root, "add", "--all", "--", *paths, environment=index)
        tree = _git(root, "write-tree", environment=index)
    if tip and _git(root, "rev-parse", f"{tip}^{{tree}}") == tree:
        return ""
    parents = [tip] if tip else []
    if not tip or _git(root, "rev-list", "--max-count=1", head, f"^{tip}"):
        parents.append(head)
    commit = _git(root, "commit-tree", tree, *(part for one in parents for part in ("-p", one)), "-m", message)
    # Only if nobody else moved the branch meanwhile.
    _git(root, "update-ref", "-m", "tans: a release", name, commit, tip or "0" * len(commit))
    return commit


def push_branch(root: Path, branch: str, remote: str) -> None:
    """Push the branch.

    Raises:
        CommitError: the remote does not take it; it is never forced.
    """
    _git(root, "push", "--quiet", remote, f"refs/heads/{branch}:refs/heads/{branch}", timeout_s=_PUSH_TIMEOUT_S)


def _git(root: Path, *arguments: str, environment: dict[str, str] | None = None, timeout_s: float | None = None) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own |= {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in _AUTHOR.items()}
    # Neither the user's index is refreshed nor a password asked for.
    own |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", **(environment or {})}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            env=own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise CommitError("git: not found on PATH. Install git, or leave `release.branch` empty.") from None
    except subprocess.TimeoutExpired:
        raise CommitError(f"`git {arguments[0]}` did not end within {timeout_s:.0f} s.") from None
    if done.returncode:
        reason = " ".join(done.stderr.split())[:500] or f"exit code {done.returncode}"
        raise CommitError(f"`git {arguments[0]}` failed: {reason}")
    return done.stdout.strip()
