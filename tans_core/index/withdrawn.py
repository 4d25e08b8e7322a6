"""What was rolled back and stays out of production: releases, and newcomers whose admission was rolled back."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tans_core.embeddings.store import read_table
from tans_core.errors import WithdrawnReleaseError
from tans_core.index.history import History


def check_withdrawn(history: History, release_id: str, next_command: str) -> None:
    """Raise WithdrawnReleaseError if a release was rolled back and not requested since."""
    rolled_back = history.withdrawn().get(release_id)
    if rolled_back is not None:
        raise WithdrawnReleaseError(
            f"release {release_id} was rolled back at {rolled_back.created}, and stays out of production. "
            f"{next_command}"
        )


def check_newcomers(serving: Path, history: History, index: pa.Table) -> None:
    """Raise WithdrawnReleaseError if an index contains newcomers whose admission was rolled back."""
    withdrawn: set[str] = set()
    for before, after in history.withdrawn_admissions():
        withdrawn |= _ids(serving, after) - _ids(serving, before)
    if history.live is not None:
        withdrawn -= _ids(serving, history.live)
    if returning := sorted(withdrawn & set(index["id"].to_pylist())):
        raise WithdrawnReleaseError(
            f"{', '.join(returning[:5])}: admitted, then rolled back; data/ contains them again. "
            "Delete them from data/arrivals and run `tans build`, or run `tans publish --again`."
        )


def _ids(serving: Path, release: str) -> set[str]:
    store = serving / "releases" / release / "store"
    # Of a release that was deleted by hand, the models are unknown.
    return set(read_table(store, "index")["id"].to_pylist()) if store.is_dir() else set()
