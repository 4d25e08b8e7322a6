"""The gate that newcomers pass: the values on a card, and in weights whose form `tans_core.zoo.admission` has checked."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tans_core.gates import expect
from tans_core.gates.runner import Check, run_gate
from tans_core.gates.zoo import weights_check
from tans_core.zoo.admission import WEIGHTS_FILE, Newcomer


def check_arrival(newcomer: Newcomer, root: Path) -> None:
    """Gate one newcomer.

    Args:
        newcomer: as `read_newcomer` gives it.
        root: the project's folder, where the report goes.

    Raises:
        GateError: accuracies are no better than chance or out of range, normalisation cannot be applied, weights are not finite.
    """
    checks = [card_check(newcomer), weights_check(newcomer.folder, newcomer.id, [WEIGHTS_FILE])]
    run_gate(f"arrival-{newcomer.id.removeprefix('arrival-')}", checks, root)


def card_check(newcomer: Newcomer) -> Check:
    """Return the check of one newcomer's card."""
    card = newcomer.card
    frame = pd.DataFrame(
        {
            "id": [card.id],
            "params_m": [card.params_m],
            "macs_m": [card.macs_m],
            "val_accuracy": [card.val_accuracy],
            "test_accuracy": [card.test_accuracy],
            "mean_low": [min(card.preprocess.mean)],
            "mean_high": [max(card.preprocess.mean)],
            "std_low": [min(card.preprocess.std)],
            "std_high": [max(card.preprocess.std)],
        }
    )
    return Check(
        what="card",
        where=newcomer.id,
        frame=frame,
        key="id",
        rows=(1, 1),
        expectations=[
            *expect.number("params_m", 0, 1e4, above=True),
            *expect.number("macs_m", 0, 1e7, above=True),
            *expect.number("val_accuracy", 1 / len(card.class_names), 1, above=True),
            *expect.number("test_accuracy", 0, 1),
            *expect.number("mean_low", 0, 1),
            *expect.number("mean_high", 0, 1),
            *expect.number("std_low", 1e-6, 1),
            *expect.number("std_high", 1e-6, 1),
        ],
    )
