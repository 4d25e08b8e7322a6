"""The gate that newcomers pass."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tans_core.errors import GateError
from tans_core.gates.arrivals import check_arrival
from tans_core.zoo.admission import Newcomer
from tests.factories.embeddings import card


def newcomer(folder: Path, weights: list[float], preprocess: dict[str, Any] | None = None, **changes: Any) -> Newcomer:
    made = card("arrival-0123", "leaves", **{"val_accuracy": 0.8, "test_accuracy": 0.7, **changes})
    made = made.model_copy(update={"preprocess": made.preprocess.model_copy(update=preprocess or {})})
    save_file({"stem": np.array(weights, np.float32)}, folder / "weights.safetensors")
    return Newcomer("arrival-0123", made, folder)


def test_good_newcomer_passes_and_leaves_a_report(tmp_path: Path) -> None:
    check_arrival(newcomer(tmp_path, [1.0, 2.0]), tmp_path)
    assert (tmp_path / "reports/gates/arrival-0123.md").is_file()


@pytest.mark.parametrize(
    ("weights", "changes", "words"),
    [
        ([1.0, math.nan], {}, "finite: 1 of 1 not in True, for example weights.safetensors:stem"),
        ([math.inf], {}, "finite: 1 of 1"),
        ([1.0], {"val_accuracy": 0.5}, "val_accuracy: 1 of 1 not above 0.5 and at most 1"),
        ([1.0], {"val_accuracy": 1.5}, "val_accuracy: 1 of 1 not"),
        ([1.0], {"test_accuracy": -0.1}, "test_accuracy: 1 of 1 not"),
        ([1.0], {"preprocess": {"std": (0.2, 0.0, 0.2)}}, "std_low: 1 of 1 not"),
        ([1.0], {"preprocess": {"mean": (0.5, 128.0, 0.5)}}, "mean_high: 1 of 1 not"),
    ],
)
def test_bad_values_fail(tmp_path: Path, weights: list[float], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(GateError) as caught:
        check_arrival(newcomer(tmp_path, weights, **changes), tmp_path)
    assert words in str(caught.value)
