"""Gates: suites of great-expectations that data must pass before the next stage, and the runner that checks them.

The names below are imported on first use: the gate of a search needs only a small part of the modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tans_core.gates.embeddings import check_embeddings
    from tans_core.gates.index import check_index
    from tans_core.gates.query import check_query
    from tans_core.gates.tasks import check_tasks
    from tans_core.gates.transfer import check_transfer
    from tans_core.gates.zoo import check_zoo

__all__ = ["check_embeddings", "check_index", "check_query", "check_tasks", "check_transfer", "check_zoo"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"tans_core.gates.{name.removeprefix('check_')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
