"""The history of serving: the live release, a rollback's target, withdrawn releases, and the state after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tans_core.errors import StoreError
from tans_core.index.history import History, production_id, read_history


def forward(serving: Path, *releases: str) -> None:
    for release in releases:
        read_history(serving).forward(release, "publish")


def back(serving: Path, release: str) -> None:
    read_history(serving).back(release)


def chain(serving: Path) -> list[str]:
    return [event.release for event in read_history(serving).chain()]


def lines(serving: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (serving / "history.jsonl").read_text().splitlines()]


def describe(serving: Path, release: str, parent: str | None, created: str = "2026-11-29T10:00:00+00:00") -> None:
    """Write the parts of a release's description that the history reads."""
    folder = serving / "releases" / release
    folder.mkdir(parents=True)
    (folder / "release.json").write_text(json.dumps({"id": release, "parent": parent, "created": created}))


def test_empty_folder_has_no_history(tmp_path: Path) -> None:
    history = read_history(tmp_path)
    assert history == History(tmp_path, ())
    assert (history.live, history.releases, history.chain(), history.withdrawn()) == (None, [], [], {})


def test_event_is_one_line_with_its_parent(tmp_path: Path) -> None:
    forward(tmp_path, "a", "b")
    read_history(tmp_path).forward("c", "admit")
    back(tmp_path, "b")
    found = [{key: value for key, value in line.items() if key != "created"} for line in lines(tmp_path)]
    assert found == [
        {"event": 1, "release": "a", "parent": None, "action": "publish"},
        {"event": 2, "release": "b", "parent": 1, "action": "publish"},
        {"event": 3, "release": "c", "parent": 2, "action": "admit"},
        {"event": 4, "release": "b", "parent": 1, "action": "rollback"},
    ]
    assert all(str(line["created"]).endswith("+00:00") for line in lines(tmp_path))
    assert production_id(tmp_path) == "b"


def test_making_the_live_release_live_is_no_event(tmp_path: Path) -> None:
    forward(tmp_path, "a", "b", "b")
    back(tmp_path, "b")
    assert chain(tmp_path) == ["b", "a"]
    assert len(lines(tmp_path)) == 2


def test_rollback_goes_to_the_nearest_time_of_its_target(tmp_path: Path) -> None:
    forward(tmp_path, "a", "x", "b", "x")
    assert chain(tmp_path) == ["x", "b", "x", "a"]
    back(tmp_path, "b")
    back(tmp_path, "x")
    # Not to its latest time, which came after b: the next rollback would then return to b.
    assert chain(tmp_path) == ["x", "a"]
    assert set(read_history(tmp_path).withdrawn()) == {"b"}


def test_rollback_to_another_branch_takes_that_branch(tmp_path: Path) -> None:
    forward(tmp_path, "a", "b")
    back(tmp_path, "a")
    forward(tmp_path, "c", "d")
    back(tmp_path, "b")
    assert chain(tmp_path) == ["b", "a"]
    assert set(read_history(tmp_path).withdrawn()) == {"d"}


def test_withdrawn_release_tells_when_and_is_welcome_once_it_is_live_again(tmp_path: Path) -> None:
    forward(tmp_path, "a", "b", "c")
    back(tmp_path, "a")
    withdrawn = read_history(tmp_path).withdrawn()
    assert {release: event.event for release, event in withdrawn.items()} == {"b": 4, "c": 4}
    forward(tmp_path, "c")
    assert set(read_history(tmp_path).withdrawn()) == {"b"}
    back(tmp_path, "b")
    assert set(read_history(tmp_path).withdrawn()) == {"c"}


@pytest.mark.parametrize("before", [[], ["a"], ["a", "b"], ["a", "b", "a"]], ids=len)
def test_last_event_counts_only_with_its_pointer(tmp_path: Path, before: list[str]) -> None:
    forward(tmp_path, *before)
    pointer = production_id(tmp_path)
    # "a" after "a", "b" names the release that also was live before the last.
    forward(tmp_path, "b" if before[-1:] == ["a"] else "a")
    if pointer is None:
        (tmp_path / "production").unlink()
    else:
        (tmp_path / "production").write_text(pointer)
    assert chain(tmp_path) == before[::-1]
    forward(tmp_path, "c")
    assert chain(tmp_path) == ["c", *before[::-1]]
    assert [line["event"] for line in lines(tmp_path)] == list(range(1, len(before) + 2))


def test_rollback_without_its_pointer_withdraws_nothing(tmp_path: Path) -> None:
    forward(tmp_path, "a", "b")
    back(tmp_path, "a")
    (tmp_path / "production").write_text("b")
    assert read_history(tmp_path).withdrawn() == {}
    assert chain(tmp_path) == ["b", "a"]


def test_pointer_that_was_moved_by_hand_is_followed(tmp_path: Path) -> None:
    forward(tmp_path, "a", "b", "c", "d")
    (tmp_path / "production").write_text("b\n")
    assert chain(tmp_path) == ["b", "a"]
    assert set(read_history(tmp_path).withdrawn()) == {"c", "d"}
    describe(tmp_path, "e", parent="d")
    (tmp_path / "production").write_text("e\n")
    assert chain(tmp_path) == ["e", "d", "c", "b", "a"]
    assert read_history(tmp_path).withdrawn() == {}


def test_lost_pointer_leaves_the_history_whole(tmp_path: Path) -> None:
    forward(tmp_path, "a", "b")
    back(tmp_path, "a")
    (tmp_path / "production").unlink()
    assert set(read_history(tmp_path).withdrawn()) == {"b"}
    forward(tmp_path, "a")
    assert production_id(tmp_path) == "a"


def test_folder_from_before_the_history_gives_the_chain_of_recorded_parents(tmp_path: Path) -> None:
    # The clock was set back, and one release of the chain was deleted.
    describe(tmp_path, "a", parent="deleted", created="2026-11-29T12:00:00+00:00")
    describe(tmp_path, "b", parent="a", created="2026-11-29T11:00:00+00:00")
    describe(tmp_path, "aside", parent="b", created="2026-11-29T11:30:00+00:00")
    describe(tmp_path, "c", parent="b", created="2026-11-29T10:00:00+00:00")
    (tmp_path / "production").write_text("c\n")
    assert chain(tmp_path) == ["c", "b", "a"]
    back(tmp_path, "aside")
    assert chain(tmp_path) == ["aside", "b", "a"]
    assert [line["release"] for line in lines(tmp_path)] == ["a", "b", "c", "aside"]
    assert set(read_history(tmp_path).withdrawn()) == {"c"}


def test_recorded_parents_in_a_circle_end(tmp_path: Path) -> None:
    describe(tmp_path, "a", parent="b")
    describe(tmp_path, "b", parent="a")
    (tmp_path / "production").write_text("b\n")
    assert chain(tmp_path) == ["b", "a"]


GOOD = {"event": 1, "release": "a", "parent": None, "action": "publish", "created": "2026-11-29T10:00:00+00:00"}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        "",
        json.dumps({**GOOD, "event": 3}),
        json.dumps({**GOOD, "event": 2, "parent": 2}),
        json.dumps({**GOOD, "event": 2, "parent": "1"}),
        json.dumps({**GOOD, "event": 2, "parent": 0}),
        json.dumps({**GOOD, "event": 2, "release": None}),
        json.dumps({**GOOD, "event": 2, "action": "forget"}),
        json.dumps({"event": 2}),
    ],
)
def test_line_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "history.jsonl").write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(StoreError, match=r"history\.jsonl: line 2 is not an event of serving.*Move the file away"):
        read_history(tmp_path)
