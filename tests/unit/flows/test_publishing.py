"""The end of the flows that build: the decision in one line, as an artifact and as an event."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from flows.publishing import EVENTS, payload, publish, push_outputs, report, summary
from tans_core.errors import WithdrawnReleaseError
from tans_core.index.history import production_id
from tans_core.index.releases import open_production, rollback
from tests.factories.challenges import REVERSED, RIGHT, built
from tests.factories.releases import build


def test_refused_challenger_is_reported_with_both_tables_and_the_picture(tmp_path: Path) -> None:
    first = publish(built(tmp_path)).production
    found = publish(built(tmp_path, REVERSED, name="space-2", models=9))
    assert open_production(tmp_path / "serving").id == first
    assert summary(found) == f"not published; {first} stays in production. {found.reason}"
    text = report(found)
    assert text.startswith("# Refused\n\nnot published")
    assert "| weighted tau | 1 | -1 | -2 | 1 |" in text
    assert "| task-03 | 5 | 1 | -1 | 0 | 40 |" in text
    assert str(found.plot) in text and "`tans publish` publishes it all the same" in text
    assert EVENTS[found.outcome] == "tans.space.refused"
    assert payload(found) == {
        "release": found.built,
        "champion": first,
        "production": first,
        "reason": found.reason,
        "next": "tans publish",
    }


def test_published_challenger_is_reported_with_the_way_back(tmp_path: Path) -> None:
    first = publish(built(tmp_path))
    assert report(first).startswith("# Published\n\npublished ")
    found = publish(built(tmp_path, RIGHT, name="space-2", models=9))
    assert summary(found).startswith(f"published {found.production}; it is in production. Not worse, and larger")
    assert EVENTS[found.outcome] == "tans.space.published"
    assert payload(found)["next"] == "tans rollback"
    assert payload(found)["champion"] == first.production


def test_what_was_decided_before_emits_no_event(tmp_path: Path) -> None:
    publish(built(tmp_path))
    assert EVENTS.get(publish(tmp_path).outcome) is None
    publish(built(tmp_path, REVERSED, name="space-2"))
    again = publish(tmp_path)
    assert again.outcome == "refused before" and EVENTS.get(again.outcome) is None
    assert "Its content has not changed." in report(again)


def test_what_was_rolled_back_stays_out_and_is_no_error(tmp_path: Path) -> None:
    first = publish(build(tmp_path)).production
    second = publish(build(tmp_path, models=4)).production
    rollback(tmp_path / "serving")
    found = publish(tmp_path)
    assert (found.outcome, found.production) == ("refused before", first)
    assert f"release {second} was rolled back" in summary(found)
    # With its networks, another content does not come back, either.
    assert "m3: rolled back" in publish(build(tmp_path, models=5)).reason
    assert publish(build(tmp_path, space="space-2")).outcome == "published"


def test_only_what_was_rolled_back_is_an_error_while_nothing_is_served(tmp_path: Path) -> None:
    publish(build(tmp_path))
    publish(build(tmp_path, models=4))
    rollback(tmp_path / "serving")
    (tmp_path / "serving/production").unlink()
    assert production_id(tmp_path / "serving") is None
    with pytest.raises(WithdrawnReleaseError):
        publish(tmp_path)


def test_outputs_are_pushed_where_dvc_has_a_default_remote_and_a_failure_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, remote, log = tmp_path / "project", tmp_path / "remote", logging.getLogger("test")
    (root / ".dvc").mkdir(parents=True)
    config = "[core]\n    no_scm = true\n    analytics = false\n"
    (root / ".dvc/config").write_text(config)
    (root / "dvc.yaml").write_text("stages: {one: {cmd: echo done > made, outs: [made]}}\n")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, check=True)
    with caplog.at_level(logging.INFO, "test"):
        push_outputs(root, log)
        assert not caplog.records
        (root / ".dvc/config").write_text(f"{config}    remote = shared\n['remote \"shared\"']\n    url = {remote}\n")
        push_outputs(root, log)
        assert caplog.messages[-1] == "pushed the outputs of the stages to shared"
        assert [path.read_text() for path in remote.rglob("*") if path.is_file()] == ["done\n"]
        remote.rename(tmp_path / "lost")
        remote.touch()  # no folder
        push_outputs(root, log)
        assert caplog.messages[-1].startswith("`dvc push` to shared failed, see above.")
        assert caplog.records[-1].levelname == "WARNING"
