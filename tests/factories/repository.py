"""A git and DVC repository; both programs run once a test process, since importing DVC takes seconds."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def init_repository(root: Path) -> None:
    """Do as `git init` and `dvc init` in a folder."""
    shutil.copytree(_template(), root, dirs_exist_ok=True)


@functools.cache
def _template() -> Path:
    root = Path(tempfile.mkdtemp(prefix="tans-repository-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=root, check=True)
    return root
