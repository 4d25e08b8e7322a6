"""The gate of newcomers: the values in card and weights, whose form `tans_core.zoo.admission` has checked."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tans_core.errors import TansError, WeightsError
from tans_core.gates import expect
from tans_core.gates.runner import Check, run_gate
from tans_core.gates.zoo import weights_check
from tans_core.zoo.admission import WEIGHTS_FILE, Newcomer
from tans_core.zoo.claims import accuracies_at_home, spread_of_answers

_TOLERANCE = 0.05
"""The most by which a claimed accuracy may exceed the measured one: the splits may have been drawn again since."""
_LEAST_SPREAD = 1e-6
_HINT = "Correct the card, or save the weights again, then put the network into inbox/ again."


def check_arrival(newcomer: Newcomer, root: Path) -> None:
    """Gate one newcomer.

    Args:
        newcomer: from `read_newcomer`.
        root: the project's folder, which gets the report.

    Raises:
        GateError: accuracies are no better than chance or out of range, or differ from those measured on the home task,
            if it is here; normalisation cannot be applied; weights are not finite, or all images get one answer.
        WeightsError: the weights cannot be loaded, or the network fails on images.
    """
    name = f"arrival-{newcomer.id.removeprefix('arrival-')}"
    # The network runs only after its card and weights have passed.
    checks = [card_check(newcomer), weights_check(newcomer.folder, newcomer.id, [WEIGHTS_FILE])]
    run_gate(name, checks, root, _HINT)
    try:
        checks = answer_checks(newcomer, root / "data/tasks")
    except TansError:
        raise
    except Exception as error:  # a family from outside may fail in any way
        raise WeightsError(f"{newcomer.id}: cannot be asked about images ({type(error).__name__}: {error}).") from error
    run_gate(f"{name}-answers", checks, root, _HINT)


def answer_checks(newcomer: Newcomer, tasks: Path) -> list[Check]:
    """Return the checks of a newcomer's outputs: that they differ by image, and that the card's accuracies hold.

    Args:
        newcomer: its card and weights have passed their own checks.
        tasks: the folder of the tasks.
    """
    card, weights = newcomer.card, newcomer.folder / WEIGHTS_FILE
    checks = [
        Check(
            what="answers",
            where=newcomer.id,
            frame=pd.DataFrame({"id": [newcomer.id], "spread_of_answers": [spread_of_answers(card, weights)]}),
            key="id",
            rows=(1, 1),
            expectations=expect.number("spread_of_answers", _LEAST_SPREAD, 1e9, above=True),
        )
    ]
    measured = accuracies_at_home(card, weights, tasks)
    if measured:
        claimed = {"val": card.val_accuracy or 0.0, "test": card.test_accuracy or 0.0}
        rows = [
            {
                "split": f"{card.home_task}, {split}",
                "claimed": claimed[split],
                "measured": accuracy,
                "claimed_less_measured": claimed[split] - accuracy,
            }
            for split, accuracy in measured.items()
        ]
        checks.append(
            Check(
                what="claims",
                where=newcomer.id,
                frame=pd.DataFrame(rows),
                key="split",
                rows=(len(rows), len(rows)),
                expectations=expect.number("claimed_less_measured", -1, _TOLERANCE),
            )
        )
    return checks


def card_check(newcomer: Newcomer) -> Check:
    """Return the check of one newcomer's card."""
    card = newcomer.card
    accuracies = [
        *expect.number("val_accuracy", 1 / card.outputs, 1, above=True),
        *expect.number("test_accuracy", 0, 1),
    ]
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
            *([] if card.general else accuracies),
            *expect.number("mean_low", 0, 1),
            *expect.number("mean_high", 0, 1),
            *expect.number("std_low", 1e-6, 1),
            *expect.number("std_high", 1e-6, 1),
        ],
    )
