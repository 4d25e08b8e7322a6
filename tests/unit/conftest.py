"""Fixtures of all unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tans_core.gates import query


@pytest.fixture(scope="module", autouse=True)
def gate_in_this_process() -> Iterator[None]:
    """The gate's process would import great-expectations anew for each request; tests of that process start it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query, "start_query_gate", lambda: query.QueryGate(None))
        yield
