"""The list of releases: what they hold, which one is live, and how good their spaces are."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tans_core.index.history import production_id, read_history
from tans_core.io import read_json


@dataclass(frozen=True)
class ReleaseInfo:
    """A line of the list of releases.

    Attributes:
        withdrawn: rolled back, and published again only by `--again`.
        parent: the release that was in production before it; None for the first.
        weighted_tau, regret_at_1: of its space, on sources left out (`elsewhere` in docs/metrics.md); None if unknown.
        heldout_recall_at_1: on networks held out.
    """

    id: str
    created: str
    models: int
    production: bool
    withdrawn: bool
    parent: str | None = None
    weighted_tau: float | None = None
    regret_at_1: float | None = None
    heldout_recall_at_1: float | None = None


def list_releases(serving: Path) -> list[ReleaseInfo]:
    """Return the releases that never went live, oldest first, then the others by their first time live."""
    history, current = read_history(serving), production_id(serving)
    withdrawn = history.withdrawn()
    parents = {one.release: history.events[one.parent - 1].release for one in history.events if one.parent is not None}
    descriptions, measures = {}, {}
    for path in (serving / "releases").glob("[!.]*/release.json"):
        with contextlib.suppress(FileNotFoundError):  # pruned in this moment
            measures[path.parent.name] = _measures(path.parent / "space/space.json")
            descriptions[path.parent.name] = read_json(path)
    never_live = sorted((one["created"], name) for name, one in descriptions.items() if name not in history.releases)
    ordered = [*(name for _, name in never_live), *(name for name in history.releases if name in descriptions)]
    return [
        ReleaseInfo(
            name,
            one["created"],
            one["models"],
            name == current,
            name in withdrawn,
            parents.get(name) if name in history.releases else one["parent"],
            **measures[name],
        )
        for name, one in ((name, descriptions[name]) for name in ordered)
    ]


def _measures(space: Path) -> dict[str, float | None]:
    """Return what `ReleaseInfo` shows of a space; None for what its description lacks, or if it is damaged."""
    names = {
        "weighted_tau": ("elsewhere", "weighted_tau"),
        "regret_at_1": ("elsewhere", "regret_at_1"),
        "heldout_recall_at_1": ("heldout", "recall_at_1"),
    }
    found: dict[str, float | None] = dict.fromkeys(names)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        metrics = read_json(space)["metrics"]
        found |= {name: float(metrics[part][measure]) for name, (part, measure) in names.items()}
    return found
