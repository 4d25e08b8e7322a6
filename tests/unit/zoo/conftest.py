"""Folders of newcomers."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    return tmp_path / "staging"
