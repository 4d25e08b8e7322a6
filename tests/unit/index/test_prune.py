"""Pruning: what is needed stays whole, whatever else runs or is killed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tans_core.errors import StoreError, WithdrawnReleaseError
from tans_core.index.blobs import store_blob
from tans_core.index.listing import list_releases
from tans_core.index.prune import prune_releases
from tans_core.index.release import Release
from tans_core.index.releases import add_models, open_production, publish, rollback
from tests.factories.releases import arrival, build, ids, rows_of

LATER = datetime.now(UTC) + timedelta(days=1)
EARLIER = LATER - timedelta(days=2)


@pytest.fixture
def releases(project: Path, serving: Path) -> list[Release]:
    """Five releases, oldest first, each with a space of its own."""
    return [publish(build(project, models=3 + number, space=f"space-{number}"), serving) for number in range(5)]


def left(serving: Path) -> list[str]:
    return [one.id for one in list_releases(serving)]


def check_all(serving: Path) -> None:
    """Every release that is listed can be opened, with all its files and its table."""
    for one in list_releases(serving):
        folder = serving / "releases" / one.id
        release = Release(one.id, folder, {}, json.loads((folder / "release.json").read_text())["files"])
        release.check()
        assert len(ids(release)) == one.models


def blobs(serving: Path) -> set[str]:
    return {path.name for path in (serving / "blobs").iterdir()}


def test_what_serves_and_what_a_rollback_returns_to_stays_whole(serving: Path, releases: list[Release]) -> None:
    wanted = prune_releases(serving, 2, LATER, dry_run=True)
    assert left(serving) == [one.id for one in releases]
    assert prune_releases(serving, 2, LATER) == wanted
    assert {one.path.name for one in wanted if one.kind == "release"} == {one.id for one in releases[:2]}
    assert left(serving) == [one.id for one in releases[2:]]
    check_all(serving)
    # The spaces of the two; the other weights are shared.
    assert [one.kind for one in wanted].count("weights") == 2
    assert blobs(serving) == {sha256 for one in releases[2:] for sha256 in one.files.values()}
    assert open_production(serving) == releases[4]
    assert [rollback(serving), rollback(serving)] == [releases[3], releases[2]]
    with pytest.raises(StoreError, match="no release was in production before"):
        rollback(serving)
    assert rollback(serving, releases[4].id) == releases[4]


def test_what_was_in_production_lately_stays(serving: Path, releases: list[Release]) -> None:
    assert prune_releases(serving, 0, EARLIER) == []
    # The clock of the history: the first was replaced long ago, the others were not.
    lines = (serving / "history.jsonl").read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), "created": "2020-01-01T00:00:00+00:00"})
    (serving / "history.jsonl").write_text("\n".join(lines) + "\n")
    prune_releases(serving, 0, EARLIER)
    assert left(serving) == [one.id for one in releases[1:]]


def test_release_that_was_rolled_back_can_be_returned_to(serving: Path, releases: list[Release]) -> None:
    rollback(serving)
    prune_releases(serving, 1, LATER)
    assert left(serving) == [releases[2].id, releases[3].id, releases[4].id]
    assert rollback(serving, releases[4].id) == releases[4]
    check_all(serving)


def test_weights_of_a_refused_release_are_removed(serving: Path, releases: list[Release], tmp_path: Path) -> None:
    (tmp_path / "challenger").write_bytes(b"weights")
    sha256 = store_blob(serving, tmp_path / "challenger")
    (removal,) = prune_releases(serving, 5, EARLIER)
    assert (removal.kind, removal.path.name, removal.size_bytes) == ("weights", sha256, 7)
    assert sha256 not in blobs(serving)
    check_all(serving)


def test_newcomer_that_was_rolled_back_stays_out_after_a_prune(project: Path, serving: Path) -> None:
    publish(project, serving)
    card, files = arrival(project / "data")
    add_models(serving, rows_of([card]), files)
    rollback(serving)
    for number in range(3):
        publish(build(project, space=f"space-{number}"), serving)
    prune_releases(serving, 0, LATER)
    assert len(left(serving)) == 3
    with pytest.raises(WithdrawnReleaseError, match="newcomer: rolled back"):
        publish(build(project, space="space-9", extra=(card,)), serving)
    publish(build(project, space="space-10"), serving)


def test_release_whose_description_is_damaged_stops_it(serving: Path, releases: list[Release]) -> None:
    (releases[0].root / "release.json").write_text("{")
    before = blobs(serving)
    with pytest.raises(StoreError, match=r"release\.json: cannot be read.*Nothing was removed"):
        prune_releases(serving, 0, LATER)
    assert blobs(serving) == before and all(one.root.is_dir() for one in releases)


def test_nothing_published_yet_is_nothing_to_prune(tmp_path: Path) -> None:
    assert prune_releases(tmp_path / "serving", 0, LATER) == []
    assert list(tmp_path.iterdir()) == []


# Killed by itself at the n-th change of the disk.
KILLED = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tans_core.index.prune import prune_releases
left = int(sys.argv[2])
def count(event, arguments):
    global left
    if event in ("os.remove", "os.rename", "os.rmdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
prune_releases(Path(sys.argv[1]), 1, datetime.now(UTC) + timedelta(days=1))
"""


def test_killed_at_any_moment_it_leaves_whole_releases_and_goes_on(
    serving: Path, releases: list[Release], tmp_path: Path
) -> None:
    codes = []
    for moment in (1, 2, 12, 40, 10_000):
        copy = tmp_path / f"killed-{moment}"
        shutil.copytree(serving, copy)
        done = subprocess.run([sys.executable, "-c", KILLED, copy, str(moment)], check=False)
        codes.append(done.returncode)
        check_all(copy)
        assert open_production(copy).id == releases[4].id
        prune_releases(copy, 1, LATER)
        assert left(copy) == [one.id for one in releases[3:]]
        assert blobs(copy) == {sha256 for one in releases[3:] for sha256 in one.files.values()}
        assert not list((copy / "releases").glob(".*"))
    assert codes == [-signal.SIGKILL] * 4 + [0]


PUBLISH_SIX = """
import sys
from pathlib import Path
from tans_core.index import releases
root = Path(sys.argv[1])
print("ready", flush=True)
for number in range(6):
    (root / "data/space/space.json").write_text(str(number))
    releases.publish(root, root / "serving")
"""


def test_beside_a_publish_no_release_loses_a_file(project: Path, serving: Path) -> None:
    publish(project, serving)
    writer = subprocess.Popen([sys.executable, "-c", PUBLISH_SIX, project], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    pruned = 0
    with writer.stdout:
        assert writer.stdout.readline() == "ready\n"
        while writer.poll() is None:
            pruned += len(prune_releases(serving, 0, LATER))
            open_production(serving).check()
            time.sleep(0.1)
    assert writer.returncode == 0
    assert pruned > 0
    prune_releases(serving, 0, LATER)
    assert left(serving) == [open_production(serving).id]
    check_all(serving)
