"""What tests of several parts share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is imported, here and in what tests start: two threads beside another busy process wait for each other, and
# make the suite twice as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# pytest-xdist tells its workers of a terminal that they have not.
os.environ.pop("COLUMNS", None)

from tests.factories.project import build_project, image_folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with a release in production. Runs may be added; whoever changes more makes one of their own."""
    return build_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A user's folder of three classes, with one file that is no image."""
    return image_folder(tmp_path / "photos")
