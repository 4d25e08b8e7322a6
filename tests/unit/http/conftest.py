from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tans_core.gates import query
from tests.factories.http_service import Served, served
from tests.unit.cli.conftest import tans as command  # noqa: F401  a fixture


@pytest.fixture(scope="module", autouse=True)
def gate_in_this_process() -> Iterator[None]:
    """The service has imported great-expectations here: what it is compared with needs no process for that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query, "start_query_gate", lambda: query.QueryGate(None))
        yield


@pytest.fixture(scope="session")
def service(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service of the small project, without a token."""
    with served(project, tmp_path_factory.mktemp("service"), max_mb=8, patience_s=5.0) as running:
        yield running
