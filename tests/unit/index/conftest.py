"""A project that was built, and its folder of releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factories.releases import build


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return build(tmp_path)


@pytest.fixture
def serving(project: Path) -> Path:
    return project / "serving"
