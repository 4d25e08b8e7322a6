"""The history of serving: which release went live when, after which one, and which were rolled back.

    serving/production       the id of the live release: all that a reader needs
    serving/history.jsonl    one event a line, oldest first; the last one is live

An event's parent is the event that a rollback returns to. Lines and parents define the order, not times: a clock may be
set back. The history is written before `production`. Two events in a row never have the same release, so `production`
shows whether the last event took effect. Writers hold the lock of `blobs.writers_lock`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from tans_core.errors import StoreError
from tans_core.io import read_json, write_text

Action = Literal["publish", "admit", "remove", "rollback"]


@dataclass(frozen=True)
class Event:
    """A line of the history.

    Attributes:
        event: its number, from 1.
        release: the id of the release that went live.
        parent: number of the event that a rollback returns to, or None.
        action: the command that made it live.
        created: UTC, ISO 8601.
    """

    event: int
    release: str
    parent: int | None
    action: Action
    created: str


@dataclass(frozen=True)
class History:
    """The events that took effect, oldest first."""

    serving: Path
    events: tuple[Event, ...]

    @property
    def live(self) -> str | None:
        """The id of the live release; None before the first."""
        return self.events[-1].release if self.events else None

    @property
    def releases(self) -> list[str]:
        """The ids of all releases that ever were live, by their first time."""
        return list(dict.fromkeys(event.release for event in self.events))

    def chain(self, event: Event | None = None) -> list[Event]:
        """Return an event, by default the live one, and its ancestors, newest first."""
        events = [event] if event else list(self.events[-1:])
        while events and (parent := events[-1].parent) is not None:
            events.append(self.events[parent - 1])
        return events

    def withdrawn(self) -> dict[str, Event]:
        """Return the releases that were rolled back and not made live since, each with the rollback."""
        rollbacks: dict[str, Event] = {}
        for before, event in pairwise(self.events):
            if event.action == "rollback":
                chain = [ancestor.release for ancestor in self.chain(before)]
                # If the target is not an ancestor, only the live release was rolled back.
                count = chain.index(event.release) if event.release in chain else 1
                rollbacks |= dict.fromkeys(chain[:count], event)
            rollbacks.pop(event.release, None)
        return rollbacks

    def withdrawn_additions(self) -> list[tuple[str, str]]:
        """Return the releases before and after each addition that was rolled back and not made live since.

        An addition is an admission, or the publication of a built release.
        """
        withdrawn = self.withdrawn()
        return [
            (self.events[event.parent - 1].release, event.release)
            for event in self.events
            if event.release in withdrawn and event.action in ("publish", "admit") and event.parent is not None
        ]

    def forward(self, release: str, action: Literal["publish", "admit", "remove"]) -> None:
        """Make a release live, as the child of the live one."""
        self._go_live(release, self.events[-1].event if self.events else None, action)

    def back(self, release: str) -> None:
        """Make an earlier release live, with its old parent, so that repeated rollbacks go further back."""
        self._go_live(release, self._parent_of(release), "rollback")

    def _go_live(self, release: str, parent: int | None, action: Action) -> None:
        history = self if release == self.live else self._with(release, parent, action)
        lines = [json.dumps(asdict(event)) + "\n" for event in history.events]
        write_text("".join(lines), self.serving / "history.jsonl")
        write_text(release + "\n", self.serving / "production")

    def _with(self, release: str, parent: int | None, action: Action) -> History:
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        return replace(self, events=(*self.events, Event(len(self.events) + 1, release, parent, action, now)))

    def _parent_of(self, release: str) -> int | None:
        """Return the parent of a release's event: the nearest on the live chain, else the latest."""
        latest_first = [*self.chain(), *reversed(self.events)]
        for event in latest_first:
            if event.release == release:
                return event.parent
        # It never was live here: its parent is its nearest recorded ancestor that was.
        ancestors = [record.get("parent") for record in _recorded(self.serving, release)]
        numbers = {event.release: event.event for event in self.events}
        return next((numbers[ancestor] for ancestor in ancestors if ancestor in numbers), None)


def production_id(serving: Path) -> str | None:
    """Return the id of the live release; None if nothing was published yet."""
    pointer = serving / "production"
    return pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None


def read_history(serving: Path) -> History:
    """Read the events that took effect. A folder without a history gets one from its releases' parents.

    Raises:
        StoreError: a line is not an event.
    """
    path, pointer = serving / "history.jsonl", production_id(serving)
    if not path.is_file():
        chain = enumerate(reversed(_recorded(serving, pointer)), 1)
        return History(
            serving,
            tuple(
                Event(number, record["id"], number - 1 or None, "publish", record["created"])
                for number, record in chain
            ),
        )
    history = History(serving, _read_events(path))
    if pointer == history.live:
        return history
    if history.events and pointer == replace(history, events=history.events[:-1]).live:
        # A writer was killed after writing the history: its event never took effect.
        return replace(history, events=history.events[:-1])
    if pointer is None:
        return history
    # Something else changed `production`. Readers follow it, so the history does, too.
    action: Action = "rollback" if pointer in history.releases else "publish"
    return history._with(pointer, history._parent_of(pointer), action)


def _read_events(path: Path) -> tuple[Event, ...]:
    events = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            event = Event(**json.loads(line))
            valid = (
                event.event == number
                and isinstance(event.release, str)
                and (event.parent is None or 0 < event.parent < number)
                and event.action in get_args(Action)
            )
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise StoreError(
                f"{path}: line {number} is not an event of serving: {line[:80]!r}. Move the file away, then run the "
                "command again: the order is then read from the releases, and none counts as rolled back."
            )
        events.append(event)
    return tuple(events)


def _recorded(serving: Path, release: str | None) -> list[dict[str, Any]]:
    """Return the release.json of a release and of its ancestors, newest first."""
    records: dict[str, dict[str, Any]] = {}
    while release and release not in records:
        path = serving / "releases" / release / "release.json"
        if not path.is_file():
            break
        records[release] = read_json(path)
        release = records[release].get("parent")
    return list(records.values())
