"""What tests of several parts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factories.project import build_project, image_folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with a release in production. Runs may be added; whoever changes more makes one of their own."""
    return build_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A user's folder of three classes, with one file that is no image."""
    return image_folder(tmp_path / "photos")
