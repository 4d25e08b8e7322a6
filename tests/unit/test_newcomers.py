"""Newcomers between admission and build, when a retraining is due, and that it is asked for once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tans_core import newcomers
from tans_core.io import read_json, write_json
from tans_core.locks import pipeline_lock
from tans_core.newcomers import ASKED, newcomer_folders, settle, take_in, waiting
from tans_core.retraining import ask, failure, reason_to_retrain, record_failure
from tans_core.space.drift import Drift

DAY_S = 24 * 3600


def admit(root: Path, *names: str, age_s: float = 0.0) -> None:
    for name in names:
        card = root / "data/admitted" / name / "card.json"
        write_json({"id": name}, card)
        os.utime(card, (time.time() - age_s,) * 2)


def places(root: Path) -> dict[str, str]:
    return {folder.name: folder.parent.name for folder in newcomer_folders(root / "data")}


def test_newcomer_waits_until_what_contains_it_was_published_or_refused(tmp_path: Path) -> None:
    admit(tmp_path, "a", "b")
    assert set(waiting(tmp_path)) == {"a", "b"}
    assert take_in(tmp_path) == ["a", "b"]
    assert places(tmp_path) == {"a": "arrivals", "b": "arrivals"}
    admit(tmp_path, "late")
    assert set(waiting(tmp_path)) == {"a", "b", "late"}
    settle(tmp_path, ["m0", "a"])
    # The build that contains b has not ended, or failed.
    assert set(waiting(tmp_path)) == {"b", "late"}
    take_in(tmp_path)
    settle(tmp_path, ["m0", "a", "b", "late"])
    assert waiting(tmp_path) == {} and len(places(tmp_path)) == 3


def test_build_that_is_killed_while_it_takes_in_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit(tmp_path, "a", "b", "c")
    moved: list[Path] = []
    rename = Path.rename

    def die_at_the_second(self: Path, target: Any) -> Path:
        # Temporary files of `write_json` are replaced, not renamed.
        moved.append(self)
        if len(moved) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(newcomers.Path, "rename", die_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            take_in(tmp_path)
    assert sorted(places(tmp_path).values()) == ["admitted", "admitted", "arrivals"]
    assert set(waiting(tmp_path)) == {"a", "b", "c"}
    # An admission that was killed and is repeated finds it taken in already.
    admit(tmp_path, "a")
    take_in(tmp_path)
    assert places(tmp_path) == dict.fromkeys("abc", "arrivals")
    assert not list((tmp_path / "data/admitted").iterdir())
    assert set(waiting(tmp_path)) == {"a", "b", "c"}


def test_retraining_is_due_by_number_by_age_and_by_drift(tmp_path: Path) -> None:
    assert reason_to_retrain(tmp_path, 1, 1) == ""
    admit(tmp_path, *"abcd")
    far = {name: Drift(name, f"task {name}", False, 2.0, 1.0, 0) for name in "abcdxyz"}
    assert reason_to_retrain(tmp_path, 5, 1) == ""
    assert reason_to_retrain(tmp_path, 4, 1) == "newcomers wait: 4 (retrain.admissions: 4)"
    assert "4 of 4 newcomers that wait are far" in reason_to_retrain(tmp_path, 5, 1, far)
    near = {name: Drift(name, f"task {name}", False, 0.5, 0.2, 0) for name in "abcd"} | {"x": far["x"]}
    assert reason_to_retrain(tmp_path, 5, 1, near) == ""
    admit(tmp_path, "old", age_s=1.5 * DAY_S)
    assert reason_to_retrain(tmp_path, 6, 1) == "a newcomer has waited for 1.5 days (retrain.days: 1)"
    assert reason_to_retrain(tmp_path, 0, 0) == ""


def test_retraining_is_asked_for_once_and_again_if_it_was_lost(tmp_path: Path) -> None:
    admit(tmp_path, "a")
    assert [ask(tmp_path) for _ in range(50)] == [True] + [False] * 49

    def age(seconds: float) -> None:
        write_json({**read_json(tmp_path / ASKED), "asked": time.time() - seconds}, tmp_path / ASKED)

    age(700)
    assert [ask(tmp_path), ask(tmp_path)] == [True, False]
    record_failure(tmp_path, "GateError: no")
    age(DAY_S - 60)
    assert not ask(tmp_path) and failure(tmp_path) == "GateError: no"
    age(DAY_S + 60)
    assert ask(tmp_path) and failure(tmp_path) == ""
    age(-DAY_S)  # the clock was set back
    assert ask(tmp_path)
    (tmp_path / ASKED).write_text("{")
    assert ask(tmp_path)
    settle(tmp_path, [])
    assert ask(tmp_path)


def test_retraining_that_runs_for_long_is_not_asked_for_again(tmp_path: Path) -> None:
    import threading

    ask(tmp_path)
    write_json({"asked": time.time() - 2 * DAY_S, "failed": ""}, tmp_path / ASKED)
    asked: list[bool] = []
    with pipeline_lock(tmp_path, "the flow `retrain`"):
        # From another thread: the one that holds the lock may always enter it.
        other = threading.Thread(target=lambda: asked.append(ask(tmp_path)))
        other.start()
        other.join(30)
    assert asked == [False]
    assert ask(tmp_path)
