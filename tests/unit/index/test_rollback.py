"""Rollbacks: their targets, and what is kept out of production afterwards."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tans_core.errors import StoreError, WithdrawnReleaseError
from tans_core.index import history, releases
from tans_core.index.listing import list_releases
from tans_core.index.releases import (
    add_models,
    open_production,
    publish,
    rollback,
)
from tests.factories.releases import arrival, build, ids, rows_of


def test_rollback_moves_back_and_publish_again_moves_on(project: Path, serving: Path) -> None:
    first = publish(project, serving)
    with pytest.raises(StoreError, match="There is no other release to go to"):
        rollback(serving)
    second = publish(build(project, models=4), serving)
    third = publish(build(project, models=5), serving)
    assert rollback(serving) == second
    assert open_production(serving) == second
    assert rollback(serving, first.id) == first
    assert [one.production for one in list_releases(serving)] == [True, False, False]
    assert [one.parent for one in list_releases(serving)] == [None, first.id, second.id]
    with pytest.raises(
        StoreError, match=r"no release was in production before .* `tans rollback --to ID` goes to another"
    ):
        rollback(serving)
    assert publish(project, serving, again=True) == third


def test_rollback_goes_to_the_parent_not_to_what_was_made_before(project: Path, serving: Path, tmp_path: Path) -> None:
    first = publish(project, serving)
    second = publish(build(project, models=4), serving)
    assert rollback(serving) == first
    card, files = arrival(tmp_path / "elsewhere")
    third = add_models(serving, rows_of([card]), files)
    assert rollback(serving) == first
    assert [(one.id, one.withdrawn) for one in list_releases(serving)] == [
        (first.id, False),
        (second.id, True),
        (third.id, True),
    ]


def test_rollback_of_a_release_published_twice_goes_to_the_one_between(project: Path, serving: Path) -> None:
    first = publish(project, serving)
    second = publish(build(project, models=4), serving)
    assert publish(build(project), serving) == first
    assert rollback(serving) == second
    assert rollback(serving) == first
    with pytest.raises(StoreError, match="no release was in production before"):
        rollback(serving)


def test_rollback_walks_up_and_never_bounces(project: Path, serving: Path) -> None:
    made = [publish(build(project, models=count), serving) for count in (3, 4, 5, 6)]
    assert [rollback(serving) for _ in range(3)] == made[2::-1]
    assert rollback(serving, made[2].id) == made[2]
    assert [rollback(serving) for _ in range(2)] == made[1::-1]


@pytest.mark.parametrize("hours", [-1, 0], ids=["set back", "standing still"])
def test_order_and_rollback_ignore_the_clock(
    project: Path, serving: Path, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = [datetime(2026, 11, 29, 12, tzinfo=UTC) + timedelta(hours=hours * number) for number in range(4)]
    made = []
    for moment, count in zip(moments, (5, 3, 6, 4), strict=True):

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None, moment: datetime = moment) -> datetime:  # type: ignore[override]
                return moment

        monkeypatch.setattr(releases, "datetime", Clock)
        monkeypatch.setattr(history, "datetime", Clock)
        made.append(publish(build(project, models=count), serving))
    assert [one.id for one in list_releases(serving)] == [one.id for one in made]
    assert [rollback(serving) for _ in range(3)] == made[2::-1]


def test_what_was_rolled_back_stays_out_until_someone_says_so(project: Path, serving: Path) -> None:
    first = publish(project, serving)
    second = publish(build(project, models=4), serving)
    rollback(serving)
    with pytest.raises(WithdrawnReleaseError, match=rf"{second.id} was rolled back at 20.*`tans publish --again`"):
        publish(project, serving)
    assert open_production(serving) == first
    assert publish(project, serving, again=True) == second
    assert not any(one.withdrawn for one in list_releases(serving))
    rollback(serving)
    assert rollback(serving, second.id) == second
    publish(build(project, models=5), serving)
    assert publish(build(project, models=4), serving) == second


def test_changed_content_is_published_after_a_rollback(project: Path, serving: Path) -> None:
    publish(project, serving)
    publish(build(project, space="space-2"), serving)
    rollback(serving)
    assert len(ids(publish(build(project, models=5, space="space-3"), serving))) == 5


def test_networks_of_a_rolled_back_release_do_not_come_back_with_a_newcomer(
    project: Path, serving: Path, tmp_path: Path
) -> None:
    publish(project, serving)
    publish(build(project, models=4), serving)
    rollback(serving)
    card, files = arrival(project / "data")
    admitted = add_models(serving, rows_of([card]), files)
    # Rebuilt with the newcomer: another content, of all of the networks that were rolled back.
    build(project, models=4, space="space-2", extra=(card,))
    with pytest.raises(WithdrawnReleaseError, match=r"^m3: rolled back at 20.*params\.yaml.*`tans publish --again`"):
        publish(project, serving)
    assert open_production(serving) == admitted
    assert ids(publish(project, serving, again=True)) == ["m0", "m1", "m2", "m3", "newcomer"]
    # A person said so: from now on it may stay.
    publish(build(project, models=4, space="space-3", extra=(card,)), serving)


def test_network_that_was_trained_anew_is_another_one(project: Path, serving: Path) -> None:
    publish(project, serving)
    publish(build(project, models=4), serving)
    rollback(serving)
    build(project, models=4, space="space-2")
    save_file({"stem": np.ones(6, dtype=np.float32)}, project / "data/zoo/leaves/supernet.safetensors")
    assert len(ids(publish(project, serving))) == 4


def test_rollback_to_a_release_withdraws_all_on_the_way(project: Path, serving: Path) -> None:
    first, *later = (publish(build(project, models=count), serving) for count in (3, 4, 5))
    rollback(serving, first.id)
    for count in (4, 5):
        with pytest.raises(WithdrawnReleaseError):
            publish(build(project, models=count), serving)
    # Another branch: only the release that was live is turned down.
    rollback(serving, later[0].id)
    withdrawn = {one.id for one in list_releases(serving) if one.withdrawn}
    assert withdrawn == {first.id, later[1].id}


def test_what_was_rolled_back_stays_out_when_its_folder_is_deleted(project: Path, serving: Path) -> None:
    publish(project, serving)
    second = publish(build(project, models=4), serving)
    rollback(serving)
    shutil.rmtree(second.root)
    with pytest.raises(WithdrawnReleaseError, match=second.id):
        publish(project, serving)
    assert publish(project, serving, again=True) == second


def test_newcomer_of_a_rolled_back_release_does_not_come_back(project: Path, serving: Path) -> None:
    first = publish(project, serving)
    card, files = arrival(project / "data")
    second = add_models(serving, rows_of([card]), files)
    rollback(serving)
    assert publish(project, serving) == first
    with pytest.raises(WithdrawnReleaseError, match=r"^newcomer: rolled back at 20.*Nothing was admitted"):
        add_models(serving, rows_of([card]), files)
    assert open_production(serving) == first
    assert publish(project, serving, again=True) == first
    assert add_models(serving, rows_of([card]), files, again=True) == second


def test_newcomer_that_was_rolled_back_does_not_come_back_by_a_rebuild(project: Path, serving: Path) -> None:
    first = publish(project, serving)
    card, files = arrival(project / "data")
    add_models(serving, rows_of([card]), files)
    rollback(serving)
    # Retrained with what lies in data/arrivals: another space, and so another content, of the same networks.
    build(project, space="space-2", extra=(card,))
    with pytest.raises(WithdrawnReleaseError, match=r"^newcomer: rolled back at 20"):
        publish(project, serving)
    assert open_production(serving) == first
    assert "newcomer" in ids(publish(project, serving, again=True))
    build(project, space="space-3", extra=(card,))
    publish(project, serving)
    # Without it, nothing is held back.
    rollback(serving, first.id)
    publish(build(project, space="space-4"), serving)


def test_what_was_rolled_back_does_not_come_back_beside_a_newcomer(project: Path, serving: Path) -> None:
    publish(project, serving)
    second = publish(build(project, models=4), serving)
    rollback(serving)
    card, files = arrival(project / "data")
    third = add_models(serving, rows_of([card]), files)
    with pytest.raises(WithdrawnReleaseError, match=second.id):
        publish(project, serving)
    assert open_production(serving) == third
    assert ids(publish(project, serving, again=True)) == ["m0", "m1", "m2", "m3", "newcomer"]
    publish(project, serving)


def test_event_without_its_pointer_never_happened(project: Path, serving: Path) -> None:
    first = publish(project, serving)
    second = publish(build(project, models=4), serving)
    for live in (first, second):
        # Killed between history and pointer: once forward, once backward, each to where it came from before.
        publish(build(project, models=len(ids(live))), serving)
        before = (serving / "production").read_text()
        rollback(serving)
        (serving / "production").write_text(before)
        assert open_production(serving) == live
        assert not any(one.withdrawn for one in list_releases(serving))
    third = publish(build(project, models=5), serving)
    assert [rollback(serving) for _ in range(3)] == [second, first, second]
    assert third.id in {one.id for one in list_releases(serving) if one.withdrawn}


def test_release_whose_writer_was_killed_before_the_history_is_listed_first(project: Path, serving: Path) -> None:
    first = publish(project, serving)
    before = [(serving / name).read_text() for name in ("history.jsonl", "production")]
    second = publish(build(project, models=4), serving)
    for name, text in zip(("history.jsonl", "production"), before, strict=True):
        (serving / name).write_text(text)
    assert [one.id for one in list_releases(serving)] == [second.id, first.id]
    assert rollback(serving, second.id) == second
    assert rollback(serving) == first


def test_serving_folder_without_a_history_goes_by_recorded_parents(project: Path, serving: Path) -> None:
    made = [publish(build(project, models=count), serving) for count in (3, 4, 5)]
    (serving / "history.jsonl").unlink()
    assert {one.id for one in list_releases(serving)} == {one.id for one in made}
    assert [rollback(serving) for _ in range(2)] == made[1::-1]
    with pytest.raises(WithdrawnReleaseError):
        publish(project, serving)


def test_rollback_to_an_unknown_release_lists_the_known(project: Path, serving: Path) -> None:
    release = publish(project, serving)
    for wrong in ("nothing", "../releases", ""):
        with pytest.raises(StoreError, match=release.id):
            rollback(serving, wrong)
    assert open_production(serving) == release
