"""What was rolled back and stays out of production: releases, and the networks that came with them."""

from __future__ import annotations

from collections.abc import Iterable

from tans_core.embeddings.store import read_table
from tans_core.errors import WithdrawnReleaseError
from tans_core.index.built import fingerprints
from tans_core.index.history import Event, History
from tans_core.io import read_json

Network = tuple[str, str]
"""An id, and the fingerprint of the network's architecture and weights."""


def check_withdrawn(history: History, release_id: str, next_command: str) -> None:
    """Raise WithdrawnReleaseError if a release was rolled back and not requested since."""
    rolled_back = history.withdrawn().get(release_id)
    if rolled_back is not None:
        raise WithdrawnReleaseError(
            f"release {release_id} was rolled back at {rolled_back.created}, and stays out of production. "
            f"{next_command}"
        )


def withdrawn_networks(history: History) -> dict[Network, Event]:
    """Return the networks that came with a release that was rolled back, each with the rollback.

    Those of the live release are not among them. Nor are those of releases that were deleted by hand: they are unknown.
    """
    withdrawn: dict[Network, Event] = {}
    rollbacks = history.withdrawn()
    for before, after in history.withdrawn_additions():
        withdrawn |= dict.fromkeys(_networks(history, after) - _networks(history, before), rollbacks[after])
    if withdrawn and history.live is not None:
        for network in _networks(history, history.live):
            withdrawn.pop(network, None)
    return withdrawn


def rolled_back(history: History) -> dict[str, str]:
    """Return the ids of `withdrawn_networks`, each with the reason why it stays out and the way back in."""
    return {
        name: f"{name}: was in production, and was rolled back at {rollback.created}. To admit it all the same, "
        "move it from quarantine/ to inbox/ and run `tans zoo admit --again`."
        for (name, _), rollback in withdrawn_networks(history).items()
    }


def check_networks(history: History, networks: Iterable[Network], next_command: str) -> None:
    """Raise WithdrawnReleaseError if networks came with a release that was rolled back."""
    withdrawn = withdrawn_networks(history)
    if returning := sorted(withdrawn.keys() & set(networks)):
        more = f" and {len(returning) - 5} more" if len(returning) > 5 else ""
        names = ", ".join(name for name, _ in returning[:5]) + more
        raise WithdrawnReleaseError(
            f"{names}: rolled back at {withdrawn[returning[0]].created}, and kept out of production. {next_command}"
        )


def _networks(history: History, release: str) -> set[Network]:
    folder = history.serving / "releases" / release
    if not (folder / "release.json").is_file():
        return set()
    return set(fingerprints(read_table(folder / "store", "index"), read_json(folder / "release.json")["files"]).items())
