"""The gate after `zoo`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from tans_core.errors import GateError
from tans_core.gates.runner import run_gate
from tans_core.gates.zoo import card_check, weights_check
from tans_core.zoo.card import ModelCard
from tests.factories.embeddings import card

SIZE = 16
FILES = ("elastic-residual.safetensors", "elastic-residual.calibration.safetensors")
Replace = Callable[[pa.Table, str, int, object], pa.Table]


def make_card(index: int, **changes: Any) -> ModelCard:
    fields = {"params_m": 0.1 + index / 100, "macs_m": 1.0 + index, "val_accuracy": 0.8, "test_accuracy": 0.75}
    return card(f"leaves-{index}", "leaves", "made").model_copy(update={**fields, **changes})


def nested(part: str, **changes: Any) -> dict[str, Any]:
    """Return a change of `make_card` inside one of the card's parts."""
    return {part: getattr(make_card(0), part).model_copy(update=changes)}


def card_table(cards: list[ModelCard]) -> pa.Table:
    """Return cards as `models.parquet` has them, one a row."""
    beside = ("id", "params_m", "macs_m", "val_accuracy", "test_accuracy")
    columns = {name: [getattr(card, name) for card in cards] for name in beside}
    return pa.table({**columns, "card": [json.dumps(card.to_dict()) for card in cards]})


def gate(cards: pa.Table, root: Path, count: int = 6) -> None:
    check = card_check(
        cards, where="models.parquet", task="leaves", count=count, sizes_px=[SIZE, 24], min_val_accuracy=0.4
    )
    run_gate("zoo-leaves", [check], root)


def test_good_cards_pass(tmp_path: Path) -> None:
    gate(card_table([make_card(index) for index in range(6)]), tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "leaves-1"}, "id: 2 of 6 not unique, for example leaves-1"),
        ({"home_task": "other"}, "home_task: 1 of 6 not in leaves, for example leaves-0 (other)"),
        ({"family": " "}, "family: 1 of 6 not of the form"),
        (nested("licences", data=""), "unreadable_licence: 1 of 6 not in , for example leaves-0 ('')"),
        (
            nested("licences", weights="MIT or so"),
            "unreadable_licence: 1 of 6 not in , for example leaves-0 ('MIT or so')",
        ),
        (nested("preprocess", image_size_px=8), "image_size_px: 1 of 6 not in 16, 24, for example leaves-0 (8)"),
        ({"params_m": 0.0}, "params_m: 1 of 6 not above 0"),
        ({"macs_m": -1.0}, "macs_m: 1 of 6 not above 0"),
        ({"val_accuracy": 1.2}, "val_accuracy: 1 of 6 not at least 0 and at most 1, for example leaves-0 (1.2)"),
        ({"val_accuracy": math.nan}, "problem: 1 of 6 not in "),
        ({"test_accuracy": math.inf}, "problem: 1 of 6 not in "),
        ({"val_accuracy": math.nan}, "for example leaves-0"),
    ],
)
def test_bad_card_fails(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(GateError) as caught:
        gate(card_table([make_card(0, **changes), *[make_card(index) for index in range(1, 6)]]), tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(("count", "allowed", "share"), [(2, 1, "50%"), (5, 1, "20%"), (20, 3, "15%")])
def test_one_network_or_few_of_many_may_fail_to_learn(tmp_path: Path, count: int, allowed: int, share: str) -> None:
    def cards(weak: int) -> pa.Table:
        return card_table([make_card(i, **({"val_accuracy": 0.34} if i < weak else {})) for i in range(count)])

    gate(cards(allowed), tmp_path, count)
    words = f"val_accuracy: {allowed + 1} of {count} not at least 0.4 (allowed: {share}), for example leaves-0 (0.34)"
    with pytest.raises(GateError, match=re.escape(words)):
        gate(cards(allowed + 1), tmp_path, count)


def test_missing_models_fail(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"models of leaves .*: got 5 rows, want exactly 6"):
        gate(card_table([make_card(index) for index in range(5)]), tmp_path)


def test_no_models_at_all_fail(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="got 0 rows, want exactly 6"):
        gate(card_table([]), tmp_path)


@pytest.mark.parametrize("text", ["no json", "{}", "[]"])
def test_unreadable_card_fails(tmp_path: Path, replace: Replace, text: str) -> None:
    table = replace(card_table([make_card(index) for index in range(6)]), "card", 2, text)
    with pytest.raises(GateError, match=r"problem: 1 of 6 not in .*leaves-2"):
        gate(table, tmp_path)


def test_columns_that_contradict_the_card_fail(tmp_path: Path, replace: Replace) -> None:
    table = replace(card_table([make_card(index) for index in range(6)]), "params_m", 3, 9.0)
    with pytest.raises(GateError, match="columns_match: 1 of 6 not True, for example leaves-3"):
        gate(table, tmp_path)


def test_cards_of_several_sizes_pass_where_families_differ_in_size(tmp_path: Path) -> None:
    others = [make_card(index, **nested("preprocess", image_size_px=24)) for index in range(3, 6)]
    gate(card_table([*[make_card(index) for index in range(3)], *others]), tmp_path)


def write_weights(folder: Path, **changed: Any) -> None:
    tensors = {"stem.weight": np.ones((2, 3), np.float32), "stem.bias": np.zeros(2, np.float32)}
    save_file({**tensors, **changed}, folder / FILES[0])
    save_file({"leaves-0/mean": np.zeros(2, np.float32)}, folder / FILES[1])


def gate_weights(folder: Path) -> None:
    run_gate("weights", [weights_check(folder, "data/zoo/leaves", FILES)], folder)


def test_finite_weights_pass(tmp_path: Path) -> None:
    write_weights(tmp_path)
    gate_weights(tmp_path)


def test_weights_that_are_not_finite_fail(tmp_path: Path) -> None:
    write_weights(tmp_path, **{"head.weight": np.array([1, np.nan], np.float32)})
    with pytest.raises(
        GateError, match=r"finite: 1 of 4 not True, for example elastic-residual.safetensors:head.weight"
    ):
        gate_weights(tmp_path)


def test_damaged_and_missing_weights_fail(tmp_path: Path) -> None:
    (tmp_path / FILES[0]).write_bytes(b"torn")
    with pytest.raises(GateError) as caught:
        gate_weights(tmp_path)
    assert "problem: 2 of 2" in str(caught.value)
    assert all(name in str(caught.value) for name in FILES)


def test_file_without_tensors_fails(tmp_path: Path) -> None:
    write_weights(tmp_path)
    save_file({}, tmp_path / FILES[1])
    with pytest.raises(GateError, match=r"problem: 1 of 3 .*elastic-residual.calibration.safetensors"):
        gate_weights(tmp_path)


@pytest.mark.parametrize("field", ["licences", "source", "weights", "home_task", "architecture", "id", "family"])
def test_a_field_of_a_card_that_is_null_or_missing_is_named(tmp_path: Path, field: str) -> None:
    for change in ({field: None}, {}):
        table = card_table([make_card(index) for index in range(6)])
        raw = json.loads(table["card"][0].as_py())
        del raw[field]
        cards = [json.dumps({**raw, **change}), *table["card"].to_pylist()[1:]]
        with pytest.raises(GateError, match=rf"problem: 1 of 6 .*{field}"):
            gate(table.set_column(table.schema.get_field_index("card"), "card", [cards]), tmp_path)
