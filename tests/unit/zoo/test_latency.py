"""Stored timings: those of one profile, and of networks as they are now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tans_core.errors import StoreError
from tans_core.zoo.card import ModelCard
from tans_core.zoo.latency import Latency, Profile, add_latencies, medians, network_key
from tests.factories.embeddings import ARCHITECTURE, card

PROFILE = Profile(device="cpu", processor="one", threads=1, batch=1, torch="2")
OTHER = PROFILE.model_copy(update={"batch": 8})


def timed(one: ModelCard, median_ms: float) -> Latency:
    return Latency(network=network_key(one), image_size_px=16, median_ms=median_ms, iqr_ms=0.1, runs=9)


def test_timings_are_those_of_the_profile_that_was_named(tmp_path: Path) -> None:
    first = card("a", "t")
    add_latencies(tmp_path, PROFILE, {"a": timed(first, 3.0)})
    add_latencies(tmp_path, OTHER, {"a": timed(first, 20.0)})
    assert medians(tmp_path, PROFILE.name, {"a": first}) == {"a": 3.0}
    assert medians(tmp_path, OTHER.name, {"a": first}) == {"a": 20.0}
    assert medians(tmp_path, "cpu-2-threads-batch-1", {"a": first}) == {}
    (tmp_path / f"{OTHER.name}.json").rename(tmp_path / "cpu-2-threads-batch-1.json")
    with pytest.raises(StoreError, match="holds timings of the profile cpu-1-threads-batch-8"):
        medians(tmp_path, "cpu-2-threads-batch-1", {"a": first})


def test_another_network_under_the_same_id_was_not_timed_and_other_weights_were(tmp_path: Path) -> None:
    first = card("a", "t")
    add_latencies(tmp_path, PROFILE, {"a": timed(first, 3.0)})
    deeper = {**ARCHITECTURE, "stages": [[{"kernel": 3, "ratio": 1.0}] * 2]}
    larger = first.preprocess.model_copy(update={"image_size_px": 32})
    changed = {
        "weights only": card("b", "elsewhere", val_accuracy=0.9),
        "a": card("a", "t", architecture=deeper),
        "size": first.model_copy(update={"preprocess": larger}),
        "classes": card("c", "t", class_names=("a", "b", "c")),
        "family": card("d", "t", family="elastic-mbconv"),
    }
    assert medians(tmp_path, PROFILE.name, changed) == {"weights only": 3.0}
    # Its own timing comes before that of its like.
    add_latencies(tmp_path, PROFILE, {"b": timed(first, 4.0)})
    assert medians(tmp_path, PROFILE.name, {"a": first, "b": card("b", "t")}) == {"a": 3.0, "b": 4.0}


@pytest.mark.parametrize("contents", ["", "[]", "{}", '{"profile": 1, "networks": []}', "median", "NaN", "-1", "1e999"])
def test_file_that_holds_no_timings_is_an_error(tmp_path: Path, contents: str) -> None:
    path = add_latencies(tmp_path, PROFILE, {"a": timed(card("a", "t"), 3.0)})
    stored = json.loads(path.read_text())
    if contents in ("median", "NaN", "-1", "1e999"):
        contents = json.dumps(stored).replace("3.0", contents)
    path.write_text(contents)
    with pytest.raises(StoreError, match="not a file of `tans zoo profile`"):
        medians(tmp_path, PROFILE.name, {})


def test_timings_of_earlier_versions_count_for_no_network(tmp_path: Path) -> None:
    first = card("a", "t")
    path = add_latencies(tmp_path, PROFILE, {"a": timed(first, 3.0)})
    stored = json.loads(path.read_text())
    del stored["networks"]["a"]["network"]
    path.write_text(json.dumps(stored))
    assert medians(tmp_path, PROFILE.name, {"a": first}) == {}
    add_latencies(tmp_path, PROFILE, {"a": timed(first, 2.0)})
    assert medians(tmp_path, PROFILE.name, {"a": first}) == {"a": 2.0}
