"""Publishing by the rule, and on request: what goes into production, what stays out, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import tans_core as tans
from tans_core.errors import ParamsError, RefusedReleaseError, WithdrawnReleaseError
from tans_core.index.releases import add_models, open_production
from tans_core.io import sha256_file
from tans_core.publishing import LOG_FILE, publish_built, read_decisions
from tests.factories.challenges import REVERSED, SWAPPED, built
from tests.factories.releases import arrival, build, ids, rows_of


def state(root: Path) -> dict[str, Any]:
    """All that readers and rollbacks see."""
    serving = root / "serving"
    files = {
        str(path.relative_to(serving)): sha256_file(path)
        for path in sorted((serving / "releases").rglob("*"))
        if path.is_file()
    }
    return {
        **files,
        "production": (serving / "production").read_text(),
        "history": (serving / "history.jsonl").read_text(),
    }


def test_first_release_is_published_and_recorded(tmp_path: Path) -> None:
    found = publish_built(built(tmp_path), judged=True)
    assert (found.outcome, found.champion, found.reason) == ("published", None, "There was none before.")
    (entry,) = read_decisions(tmp_path)
    assert entry["release"] == found.production == open_production(tmp_path / "serving").id
    assert entry["release"].endswith(entry["digest"][:12])
    assert (entry["decision"], entry["by"], entry["champion"]) == ("published", "rule", None)


def test_refused_challenger_leaves_serving_as_it_was_and_is_recorded_with_a_picture(tmp_path: Path) -> None:
    first = publish_built(built(tmp_path)).production
    before = state(tmp_path)
    found = publish_built(built(tmp_path, REVERSED, name="space-2", models=9), judged=True)
    assert state(tmp_path) == before
    assert (found.outcome, found.production, found.champion) == ("refused", first, first)
    assert found.reason.startswith("Worse: weighted tau fell from 1.000 to -1.000")
    assert found.plot == tmp_path / f"reports/releases/{found.built}.png" and found.plot.is_file()
    entry = read_decisions(tmp_path)[-1]
    assert (entry["decision"], entry["release"], entry["champion"]) == ("refused", found.built, first)
    assert entry["measures"]["weighted_tau"] == pytest.approx(
        {"champion": 1, "challenger": -1, "difference": -2, "p": 1}
    )
    assert entry["measures"]["heldout_recall_at_1"]["p"] is None
    assert (entry["tasks"], entry["reason"]) == (4, found.reason)
    assert (tmp_path / entry["plot"]).is_file()


def test_what_was_refused_is_not_compared_again_until_its_content_changes(tmp_path: Path) -> None:
    publish_built(built(tmp_path))
    refused = publish_built(built(tmp_path, REVERSED, name="space-2"), judged=True)
    again = publish_built(tmp_path, judged=True)
    assert (again.outcome, again.built, again.decision) == ("refused before", refused.built, None)
    assert refused.reason in again.reason
    assert len(read_decisions(tmp_path)) == 2
    with pytest.raises(RefusedReleaseError, match=r"was not published.*\n.*`tans publish`"):
        tans.publish(tmp_path, judged=True)
    # Changed content, also if only a little.
    assert publish_built(built(tmp_path, REVERSED, name="space-3"), judged=True).outcome == "refused"


def test_looser_rule_counts_only_on_request(tmp_path: Path) -> None:
    publish_built(built(tmp_path))
    assert publish_built(built(tmp_path, SWAPPED, name="space-2", models=6), judged=True).outcome == "refused"
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    loose = {"margin": 1, "regret_margin": 100}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**params, "release": loose}))
    assert publish_built(tmp_path, judged=True).outcome == "refused before"
    assert publish_built(tmp_path, judged=True, again=True).outcome == "published"


def test_request_publishes_what_the_rule_refuses_with_the_comparison(tmp_path: Path) -> None:
    publish_built(built(tmp_path))
    refused = publish_built(built(tmp_path, REVERSED, name="space-2"), judged=True)
    found = publish_built(tmp_path)
    assert found.outcome == "published" and found.decision is not None and not found.decision.publish
    assert open_production(tmp_path / "serving").id == found.production
    assert found.production.endswith(refused.built.rpartition("-")[2])
    entry = read_decisions(tmp_path)[-1]
    assert (entry["decision"], entry["by"]) == ("published", "request")
    # Published since it was refused: no longer turned away.
    publish_built(built(tmp_path))
    assert publish_built(built(tmp_path, REVERSED, name="space-2"), judged=True).outcome == "refused"


def test_as_good_and_larger_is_published_by_the_rule(tmp_path: Path) -> None:
    publish_built(built(tmp_path))
    found = publish_built(built(tmp_path, name="space-2", models=6), judged=True)
    assert found.outcome == "published" and found.reason.startswith(
        "Not worse, and larger: 6 networks trained on, not 5"
    )
    assert len(ids(open_production(tmp_path / "serving"))) == 6
    assert tans.publish(tmp_path, judged=True) == found.production


def test_space_that_learned_from_newcomers_that_are_served_already_is_larger(tmp_path: Path) -> None:
    publish_built(built(tmp_path))
    card, files = arrival(tmp_path / "elsewhere")
    add_models(tmp_path / "serving", rows_of([card]), files)
    found = publish_built(built(tmp_path, name="space-2", models=6), judged=True)
    assert found.outcome == "published"


def test_what_is_in_production_is_not_recorded_again(tmp_path: Path) -> None:
    first = publish_built(built(tmp_path))
    for judged in (True, False):
        found = publish_built(tmp_path, judged=judged)
        assert (found.outcome, found.production) == ("in production already", first.production)
    assert len(read_decisions(tmp_path)) == 1


def test_release_of_an_earlier_version_is_replaced(tmp_path: Path) -> None:
    build(tmp_path)
    publish_built(tmp_path)
    assert tans.publish(built(tmp_path, REVERSED, name="space-2"), judged=True)
    entry = read_decisions(tmp_path)[-1]
    assert entry["reason"].startswith("Nothing to judge by: the release in production has no elsewhere.json")
    assert (entry["measures"], entry["tasks"], entry["plot"]) == ({}, 0, None)


def test_rolled_back_release_stays_out_whatever_the_rule_says(tmp_path: Path) -> None:
    publish_built(built(tmp_path))
    tans.publish(built(tmp_path, name="space-2", models=9), judged=True)
    first = tans.rollback(root=tmp_path)
    with pytest.raises(WithdrawnReleaseError):
        publish_built(tmp_path, judged=True)
    assert open_production(tmp_path / "serving").id == first
    assert publish_built(tmp_path, judged=True, again=True).outcome == "published"


def test_half_a_line_of_a_killed_run_loses_no_other(tmp_path: Path) -> None:
    publish_built(built(tmp_path))
    log = tmp_path / LOG_FILE
    log.write_text(log.read_text() + '{"decision": "refu')
    publish_built(built(tmp_path, name="space-2", models=6), judged=True)
    assert [entry["decision"] for entry in read_decisions(tmp_path)] == ["published", "published"]
    assert [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] == read_decisions(tmp_path)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"margin": -1}, r"release\.margin: got -1"),
        ({"confidence": 1}, r"release\.confidence: got 1"),
        ({"recall_margin": 2}, r"release\.recall_margin: got 2"),
        ({"regret_margin": 101}, r"release\.regret_margin: got 101"),
        ({"margn": 0.1}, r"release\.margn: unknown key \(did you mean 'margin'\?\)"),
    ],
)
def test_invalid_rule_is_refused_before_anything_is_published(
    tmp_path: Path, section: dict[str, Any], words: str
) -> None:
    params = yaml.safe_load((built(tmp_path) / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**params, "release": section}))
    with pytest.raises(ParamsError, match=words):
        publish_built(tmp_path)
    assert not (tmp_path / "serving/production").exists()
