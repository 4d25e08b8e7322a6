"""Newcomers that are refused: hostile files, and cards with false statements."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tans_core.errors import WeightsError
from tans_core.networks.elastic import FAMILY
from tans_core.zoo.admission import read_newcomer
from tests.factories.hostile_newcomers import BAD_CARDS, SPOILED
from tests.factories.newcomers import (
    CLASSES,
    LICENCES,
    PREPROCESS,
    card_fields,
    drop,
)


@pytest.mark.parametrize(
    ("spoil", "words"),
    SPOILED,
)
def test_hostile_files_are_refused(inbox: Path, staging: Path, spoil: Callable[[Path], None], words: str) -> None:
    folder = drop(inbox)
    spoil(folder)
    with pytest.raises(WeightsError) as caught:
        read_newcomer(folder, staging)
    assert words in str(caught.value)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    BAD_CARDS,
)
def test_bad_card_is_refused_by_what_is_wrong_with_it(
    inbox: Path, staging: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        read_newcomer(drop(inbox, **changes), staging)
    assert words in str(caught.value)


def test_infinite_kernel_is_refused(inbox: Path, staging: Path) -> None:
    folder = drop(inbox)
    (folder / "card.json").write_text(json.dumps(card_fields()).replace('"kernel": 3', '"kernel": 1e999'))
    with pytest.raises(WeightsError, match=r"card\.json: .*Out of range float"):
        read_newcomer(folder, staging)


@pytest.mark.parametrize(
    ("place", "twice", "words"),
    [
        ('{"version": 1', '{"params_m": 1e-9, "version": 1', "given twice: 'params_m'"),
        ('"weights": "CC0-1.0 AND MIT"', '"weights": "MIT", "weights": "CC0-1.0 AND MIT"', "given twice: 'weights'"),
        ('"kernel": 5', '"kernel": 5, "k\\u0065rnel": 5', "given twice: 'kernel'"),
    ],
)
def test_key_given_twice_is_refused_by_name(inbox: Path, staging: Path, place: str, twice: str, words: str) -> None:
    folder = drop(inbox)
    text = json.dumps(card_fields())
    assert text.count(place) == 1
    (folder / "card.json").write_text(text.replace(place, twice))
    with pytest.raises(WeightsError) as caught:
        read_newcomer(folder, staging)
    assert words in str(caught.value)


def test_card_of_very_many_keys_is_refused_in_no_time(inbox: Path, staging: Path) -> None:
    folder = drop(inbox)
    (folder / "card.json").write_text("{" + ",".join(f'"{number}":0' for number in range(25_000)) + "}")
    begun = time.process_time()
    with pytest.raises(WeightsError, match=r"missing \["):
        read_newcomer(folder, staging)
    assert time.process_time() - begun < 2


def test_card_of_a_huge_network_costs_no_memory(inbox: Path, staging: Path) -> None:
    """At 4 bytes a weight this one would take 10 TB."""
    block = {"kernel": 7, "ratio": 8.0}
    huge = {"stem_width": 4096, "widths": [4096] * 6, "strides": [1] * 6, "stages": [[block] * 8] * 6}
    cost = FAMILY.cost(huge, 512, len(CLASSES))
    assert cost.params_m > 300_000
    preprocess = {**PREPROCESS, "image_size_px": 512}
    folder = drop(inbox, architecture=huge, preprocess=preprocess, params_m=cost.params_m, macs_m=cost.macs_m)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match="largest layer gives"):
        read_newcomer(folder, staging)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 100_000


def test_network_that_would_take_all_memory_to_ask_is_refused(inbox: Path, staging: Path) -> None:
    wide = {"stem_width": 64, "widths": [8], "strides": [2], "stages": [[{"kernel": 3, "ratio": 1.0}]]}
    cost = FAMILY.cost(wide, 512, len(CLASSES))
    preprocess = {**PREPROCESS, "image_size_px": 512}
    folder = drop(inbox, architecture=wide, preprocess=preprocess, params_m=cost.params_m, macs_m=cost.macs_m)
    with pytest.raises(WeightsError, match=r"largest layer gives 16\.8 M values an image, want at most 4 M"):
        read_newcomer(folder, staging)


def test_several_problems_of_a_card_come_together(inbox: Path, staging: Path) -> None:
    with pytest.raises(WeightsError, match=r"home_task.*class_names.*lineage.*licence 'x y'"):
        changes = {"licences": {**LICENCES, "data": "x y"}, "class_names": ["one"], "lineage": [], "home_task": "/"}
        read_newcomer(drop(inbox, **changes), staging)
