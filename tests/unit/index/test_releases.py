"""Releases: complete, shared, and safe with several writers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pytest
from safetensors.numpy import save_file

from tans_core.embeddings.store import read_table
from tans_core.errors import NoReleaseError, ParamsError, StoreError, WeightsError
from tans_core.index.listing import list_releases
from tans_core.index.releases import (
    FORMAT,
    add_models,
    open_pipeline,
    open_production,
    publish,
    rollback,
)
from tans_core.io import read_json, write_json
from tests.factories.releases import arrival, build, ids, make_card, rows_of


def test_nothing_published_yet_says_what_to_run(serving: Path) -> None:
    with pytest.raises(NoReleaseError, match="tans publish"):
        open_production(serving)


def test_published_release_holds_all_that_answering_needs(project: Path, serving: Path) -> None:
    published = publish(project, serving)
    release = open_production(serving)
    assert release == published
    assert ids(release) == ["m0", "m1", "m2"]
    assert release.resolve("zoo/leaves/supernet.safetensors").is_file()
    assert release.resolve("zoo/leaves/calibration.safetensors").is_file()
    assert (release.space_dir / "space.json").is_file()
    assert (release.base_dir / "base.safetensors").is_file()
    assert release.params["finetune"] == {"from": "finetune"}
    assert read_table(release.store_dir, "index").equals(
        read_table(project / "data/store", "index"), check_metadata=True
    )


def test_release_does_not_change_with_the_pipeline(project: Path, serving: Path) -> None:
    release = publish(project, serving)
    before = release.resolve("zoo/leaves/supernet.safetensors").read_bytes()
    save_file({"stem": np.zeros(6, np.float32)}, project / "data/zoo/leaves/supernet.safetensors")
    build(project, models=5)
    assert ids(release) == ["m0", "m1", "m2"]
    assert release.resolve("zoo/leaves/supernet.safetensors").read_bytes() == before


def test_publishing_twice_gives_one_release(project: Path, serving: Path) -> None:
    first = publish(project, serving)
    assert publish(project, serving) == first
    assert [one.id for one in list_releases(serving)] == [first.id]


def test_releases_share_weights(project: Path, serving: Path) -> None:
    first = publish(project, serving)
    second = publish(build(project, models=4), serving)
    assert first.id != second.id
    name = "zoo/leaves/supernet.safetensors"
    assert first.resolve(name).samefile(second.resolve(name))


@pytest.mark.parametrize("number", [None, FORMAT + 1])
def test_release_of_another_format_is_listed_and_replaced_but_not_read(
    project: Path, serving: Path, number: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish(project, serving)
    described = {**read_json(first.root / "release.json"), "format": number}
    write_json({key: value for key, value in described.items() if value is not None}, first.root / "release.json")
    with pytest.raises(StoreError, match=r"of format \d.*reads 2\. Run `tans build`, then `tans publish`"):
        open_production(serving)
    assert [(one.id, one.production) for one in list_releases(serving)] == [(first.id, True)]
    second = publish(build(project, models=4), serving)
    assert open_production(serving) == second
    assert "admitted since the last build" in caplog.text
    with pytest.raises(StoreError, match="Run `tans build`"):
        rollback(serving)
    assert open_production(serving) == second


def test_list_counts_models_and_marks_production(project: Path, serving: Path) -> None:
    publish(project, serving)
    publish(build(project, models=4), serving)
    assert [(one.models, one.production) for one in list_releases(serving)] == [(3, False), (4, True)]
    created = [one.created for one in list_releases(serving)]
    assert created == sorted(created)


def test_pipeline_view_reads_data(project: Path) -> None:
    view = open_pipeline(project)
    assert ids(view) == ["m0", "m1", "m2"]
    assert view.resolve("zoo/leaves/supernet.safetensors") == project / "data/zoo/leaves/supernet.safetensors"
    assert view.params["retrieval"] == {"from": "retrieval"}


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "zoo/../../x", "", "..\\x"])
def test_no_path_leads_out_of_a_release(project: Path, serving: Path, path: str) -> None:
    with pytest.raises(WeightsError, match="below data/"):
        publish(project, serving).resolve(path)


def test_missing_weights_are_named(project: Path, serving: Path) -> None:
    (project / "data/zoo/leaves/supernet.safetensors").unlink()
    with pytest.raises(StoreError, match=r"supernet\.safetensors: no such file"):
        publish(project, serving)
    assert not (serving / "production").exists()


def test_index_that_does_not_match_its_digest_is_refused(project: Path, serving: Path) -> None:
    (project / "data/store/index.digest").write_text("0" * 64)
    with pytest.raises(StoreError, match=r"index\.digest"):
        publish(project, serving)


def test_index_of_another_space_is_refused(project: Path, serving: Path) -> None:
    (project / "data/space/space.safetensors").write_text("space-2")
    with pytest.raises(StoreError, match="another space"):
        publish(project, serving)


def test_missing_params_are_named(project: Path, serving: Path) -> None:
    (project / "params.yaml").unlink()
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        publish(project, serving)


def test_added_model_is_served_at_once(project: Path, serving: Path, tmp_path: Path) -> None:
    first = publish(project, serving)
    card, files = arrival(tmp_path / "elsewhere")
    second = add_models(serving, rows_of([card]), files)
    assert open_production(serving) == second
    assert ids(second) == ["m0", "m1", "m2", "newcomer"]
    assert ids(first) == ["m0", "m1", "m2"]
    assert second.resolve(card.weights).read_bytes() == files[card.weights].read_bytes()
    assert second.resolve("zoo/leaves/supernet.safetensors").is_file()
    assert (second.space_dir / "space.json").is_file()
    assert second.params == first.params


def test_adding_the_same_model_again_changes_nothing(project: Path, serving: Path, tmp_path: Path) -> None:
    publish(project, serving)
    card, files = arrival(tmp_path / "elsewhere")
    second = add_models(serving, rows_of([card]), files)
    assert add_models(serving, rows_of([card]), files) == second
    assert len(list_releases(serving)) == 2


def test_model_of_another_space_or_card_or_without_weights_is_refused(
    project: Path, serving: Path, tmp_path: Path
) -> None:
    release = publish(project, serving)
    card, files = arrival(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="another space"):
        add_models(serving, rows_of([card], space="space-2"), files)
    with pytest.raises(StoreError, match="other models with the ids m1"):
        add_models(serving, rows_of([make_card("m1", card.weights)]), files)
    with pytest.raises(StoreError, match=r"arrivals/newcomer/weights\.safetensors"):
        add_models(serving, rows_of([card]), {})
    assert open_production(serving) == release


def test_publish_keeps_models_that_wait_for_the_next_build(project: Path, serving: Path) -> None:
    publish(project, serving)
    card, files = arrival(project / "data")
    add_models(serving, rows_of([card]), files)
    assert "newcomer" in ids(publish(build(project, models=4), serving))
    for path in files.values():
        path.unlink()
    assert "newcomer" not in ids(publish(build(project, models=5), serving))


def test_publish_of_another_space_places_waiting_models_anew_while_others_are_admitted(
    project: Path, serving: Path
) -> None:
    publish(project, serving)
    arrived = {name: arrival(project / "data", name) for name in ("newcomer", "late")}
    placed: list[list[str]] = []

    def admit(name: str) -> None:
        card, files = arrived[name]
        add_models(serving, rows_of([card]), files)

    def place(found: Sequence[Path]) -> pa.Table:
        placed.append([folder.name for folder in found])
        if len(placed) == 1:
            admit("late")  # which needs the lock
        return rows_of([arrived[name][0] for name in placed[-1]], "space-2")

    admit("newcomer")
    release = publish(build(project, models=4, space="space-2"), serving, place=place)
    assert {"newcomer", "late"} <= set(ids(release))
    assert placed == [["newcomer"], ["late"]]


def test_publish_of_another_space_leaves_waiting_models_out(
    project: Path, serving: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(project, serving)
    card, files = arrival(project / "data")
    add_models(serving, rows_of([card]), files)
    assert ids(publish(build(project, space="space-2"), serving)) == ["m0", "m1", "m2"]
    assert "newcomer" in caplog.text


ADD = """
import sys
from pathlib import Path
import pyarrow.feather as feather
from tans_core.index import releases
serving, elsewhere, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
path = f"arrivals/{name}/weights.safetensors"
releases.add_models(serving, feather.read_table(elsewhere / f"{name}.feather"), {path: elsewhere / path})
"""


def test_several_writers_lose_nothing(project: Path, serving: Path, tmp_path: Path) -> None:
    publish(project, serving)
    elsewhere = tmp_path / "elsewhere"
    names = ["a", "bb", "ccc"]
    for name in names:
        card, _ = arrival(elsewhere, name)
        feather.write_feather(rows_of([card]), elsewhere / f"{name}.feather")
    writers = [subprocess.Popen([sys.executable, "-c", ADD, serving, elsewhere, name]) for name in names]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert ids(open_production(serving)) == ["a", "bb", "ccc", "m0", "m1", "m2"]


PUBLISH_FOREVER = """
import sys
from pathlib import Path
from tans_core.index import releases
root = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    (root / "data/space/space.json").write_text(str(number))
    releases.publish(root, root / "serving")
"""


def test_killed_writer_leaves_a_whole_release_and_no_rubbish(project: Path, serving: Path) -> None:
    publish(project, serving)
    for delay_s in (0.02, 0.05, 0.11):
        process = subprocess.Popen([sys.executable, "-c", PUBLISH_FOREVER, project], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            time.sleep(delay_s)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        release = open_production(serving)
        assert ids(release) == ["m0", "m1", "m2"]
        assert release.resolve("zoo/leaves/supernet.safetensors").is_file()
    publish(build(project, models=6), serving)
    assert not list((serving / "releases").glob(".*"))
    assert [path.name for path in serving.glob("**/.*")] == [".lock"]


@pytest.mark.parametrize("damage", ["empty manifest", "no versions"])
def test_a_damaged_table_is_said_and_publish_mends_it(project: Path, serving: Path, damage: str) -> None:
    release = publish(project, serving)
    versions = release.store_dir / "index.lance/_versions"
    if damage == "no versions":
        shutil.rmtree(versions)
    else:
        min(versions.glob("*.manifest")).write_bytes(b"")
    with pytest.raises(StoreError, match=r"table 'index' is damaged .* `tans publish`"):
        read_table(release.store_dir, "index")
    assert publish(project, serving) == release
    assert ids(release) == ["m0", "m1", "m2"]
