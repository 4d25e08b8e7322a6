"""Several networks under one budget of time: successive halving (Jamieson & Talwalkar 2016).

All networks train for a share of their runs. The better half by validation goes on from its checkpoints, twice as far,
until one is left. A learning rate falls over the whole run, so each share is that of a whole run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tans_core.errors import DivergedError, ParamsError
from tans_core.runtime import clock

logger = logging.getLogger(__name__)

Curve = list[dict[str, float]]
OUT_OF_MEMORY = "out of memory"


def score(point: Mapping[str, float]) -> float:
    """Return what weights are chosen by: validation accuracy, or the balanced one where a curve has it."""
    return point.get("val_balanced", point["val_accuracy"])


@dataclass
class Entrant:
    """A network in the contest.

    Attributes:
        model: its id.
        whole_s: seconds of its whole run: estimated, then measured; infinite if a step does not fit into memory.
        curve: of its run so far; see `FinetuneResult`.
        used_s: seconds of its run so far.
        fits: whether its run fits into the budget, and goes on.
        failed: why it cannot go on, in words.
    """

    model: str
    whole_s: float
    curve: Curve = field(default_factory=list)
    used_s: float = 0.0
    fits: bool = True
    failed: str = ""

    def __post_init__(self) -> None:
        if math.isinf(self.whole_s):
            self.fits, self.failed = False, OUT_OF_MEMORY

    @property
    def accuracy(self) -> float:
        """The best validation accuracy so far (`score`); -1 before there is one."""
        return max(map(score, self.curve), default=-1.0)

    def go_on(self, curve: Curve, share: float) -> None:
        """Take the curve up to a share of the run, and the pace of its later part, which lacks the start's costs."""
        first, last = curve[0] if len(curve) > 1 else {"seconds": 0.0, "step": 0}, curve[-1]
        pace = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
        self.curve, self.used_s, self.whole_s = curve, last["seconds"], pace * last["step"] / share

    def give_up(self, error: ParamsError, seconds: float) -> None:
        """Leave the contest, some seconds after what it had reached."""
        self.fits, self.failed = False, OUT_OF_MEMORY
        self.used_s += seconds
        if isinstance(error, DivergedError):
            self.failed, self.curve = "diverged", error.curve or self.curve


def admit(entrants: Iterable[Entrant], most: int, budget_s: float) -> list[Entrant]:
    """Return entrants up to the one that is the `most`th whose run fits, beside those before it, into the budget.

    Raises:
        ParamsError: no run fits.
    """
    seen: list[Entrant] = []
    for one in entrants:
        others = [other.whole_s for other in seen if other.fits]
        one.fits &= seconds_left([*others, one.whole_s], 0, halvings_of(most)) <= budget_s
        seen.append(one)
        if len(others) + one.fits == most:
            break
    able = [one for one in seen if not one.failed]
    if able and not any(one.fits for one in able):
        fastest = min(able, key=lambda one: one.whole_s)
        raise ParamsError(
            f"--budget: got {budget_s:.0f} s, want at least {math.ceil(fastest.whole_s)} s, which the fastest of "
            f"{len(seen)} networks takes, {fastest.model}. Raise --budget, lower --epochs, or set limits such as "
            "--max-macs-m."
        )
    return seen


def contest(entrants: Sequence[Entrant], train: Callable[[Entrant, float], Curve], most: int, budget_s: float) -> None:
    """Train entrants until one is left that is to be trained to its end: the one with `fits` set.

    Args:
        entrants: from `admit`, the most promising first.
        train: trains an entrant up to a share of its run, and returns the curve up to there. One that raises
            ParamsError, diverged or out of memory, leaves the contest.
        most: as for `admit`.
        budget_s: seconds for all runs together, that of the winner included. It is checked before each round.

    Raises:
        ParamsError: all left.
    """
    halvings = halvings_of(most)
    count = sum(one.fits for one in entrants)
    for turn in range(halvings):
        left_s = budget_s - sum(one.used_s for one in entrants)
        kept: list[Entrant] = []
        for one in sorted((one for one in entrants if one.fits), key=lambda one: -one.accuracy):
            room = len(kept) < math.ceil(count / 2**turn)
            pace = [other.whole_s for other in [*kept, one]]
            one.fits = not kept or (room and seconds_left(pace, turn, halvings) <= left_s)
            kept += [one] if one.fits else []
        if len(kept) == 1:
            return
        share = 2.0 ** (turn - halvings)
        for one in kept:
            elapsed = clock()
            try:
                one.go_on(train(one, share), share)
            except ParamsError as error:
                logger.warning("%s: %s", one.model, error)
                one.give_up(error, elapsed())
    if not any(one.fits for one in entrants):
        left = ", ".join(f"{one.model} ({one.failed})" for one in entrants if one.failed)
        raise ParamsError(
            f"--top-k {most}: no network is left, want one: {left}. Lower finetune.batch_size if memory runs out, or "
            "choose others by limits such as --max-macs-m."
        )
    winner = max((one for one in entrants if one.fits), key=lambda one: one.accuracy)
    for one in entrants:
        one.fits = one is winner


def halvings_of(most: int) -> int:
    """Return how often a field of `most` networks is halved until one is left."""
    return (most - 1).bit_length()


def seconds_left(whole_s: Sequence[float], turn: int, halvings: int) -> float:
    """Return the seconds from a turn to the end of the contest, if the slowest networks win."""
    slowest = sorted(whole_s, reverse=True)
    reached = [0.0, *(2.0 ** (n - halvings) for n in range(halvings + 1))]
    return sum(
        (reached[n + 1] - reached[n]) * sum(slowest[: math.ceil(len(slowest) / 2 ** (n - turn))])
        for n in range(turn, halvings + 1)
    )
