from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories.http_service import Served, served
from tests.unit.cli.conftest import tans as command  # noqa: F401  a fixture


@pytest.fixture(scope="session")
def service(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service of the small project, without a token."""
    with served(project, tmp_path_factory.mktemp("service"), max_mb=8, patience_s=5.0) as running:
        yield running
