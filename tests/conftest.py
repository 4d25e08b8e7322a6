"""Fixtures that tests of several parts share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

# Set before torch is imported, here and in processes that tests start: beside another busy process, two threads wait
# for each other, and the suite takes twice as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# pytest-xdist sets variables of a terminal for its workers, which have none.
os.environ.pop("COLUMNS", None)

from tests.factories.project import build_project, image_folder
from tests.factories.runs import Run, make_run, write_pictures


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with a release in production. Tests may add runs; tests that change more copy it."""
    root = tmp_path_factory.mktemp("project")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return build_project(root)
    # Of several processes of tests, the first builds it, and each has a copy.
    built = tmp_path_factory.getbasetemp().parent / "project"
    with FileLock(f"{built}.lock"):
        if not built.exists():
            build_project(tmp_path_factory.mktemp("staged")).rename(built)
    subprocess.run(["cp", "-a", f"{built}/.", root], check=True)  # releases share files by hard links
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A user's folder of three classes, with one file that is not an image."""
    return image_folder(tmp_path / "photos")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder of three classes, of pictures of many sizes; tests that change it copy it."""
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Run:
    """A run of fine-tuning on `pictures`; tests that change it copy it."""
    return make_run(tmp_path_factory.mktemp("project") / "runs/run", pictures)
