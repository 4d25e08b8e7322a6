"""Decides when a retraining is due, and asks for it once, however many newcomers arrive."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tans_core.io import read_json, write_json
from tans_core.locks import is_building
from tans_core.newcomers import ASKED, waiting

if TYPE_CHECKING:
    from tans_core.space.drift import Drift

_DAY_S = 24 * 3600.0
_START_S = 600.0
"""A retraining that was asked for and has not begun after so long was lost, with its server or its process."""


def reason_to_retrain(root: Path, admissions: int, days: float, drifts: Mapping[str, Drift] | None = None) -> str:
    """Return why a retraining is due; empty if none is.

    Args:
        root: the project's folder.
        admissions: how many newcomers may wait; 0 for any number.
        days: for how long one may wait; 0 for any time.
        drifts: of newcomers, by id, as far as they are known and count.
    """
    newcomers = waiting(root)
    if not newcomers:
        return ""
    if admissions and len(newcomers) >= admissions:
        return f"newcomers wait: {len(newcomers)} (retrain.admissions: {admissions})"
    waited = (time.time() - min(newcomers.values())) / _DAY_S
    if days and waited >= days:
        return f"a newcomer has waited for {waited:.1f} days (retrain.days: {days:g})"
    if drifts:
        return _drift(drift for name, drift in drifts.items() if name in newcomers)
    return ""


def _drift(drifts: Iterable[Drift]) -> str:
    from tans_core.space.drift import judge_drift

    verdict = judge_drift(list(drifts))
    far = f"{verdict.far} of {verdict.newcomers} newcomers that wait are far from the networks of the space"
    return f"{far} (retrain.drift)" if verdict.due else ""


def ask(root: Path) -> bool:
    """Record that a retraining is asked for. Return False if one was asked for before and may still begin or end.

    One that failed is asked for again after a day, one that was lost after ten minutes.
    """
    asked = _read(root)
    if asked is not None:
        age_s = time.time() - float(asked["asked"])
        # Not of the future: a clock may be set back.
        if 0 <= age_s < (_DAY_S if asked.get("failed") else _START_S) or is_building(root):
            return False
    write_json({"asked": time.time(), "failed": ""}, root / ASKED)
    return True


def record_failure(root: Path, reason: str) -> None:
    """Record that a retraining failed, so that it is not asked for again soon."""
    write_json({"asked": time.time(), "failed": reason}, root / ASKED)


def failure(root: Path) -> str:
    """Return why the last retraining failed; empty if it did not."""
    return str((_read(root) or {}).get("failed", ""))


def _read(root: Path) -> dict[str, Any] | None:
    try:
        asked = read_json(root / ASKED)
        float(asked["asked"])
    except (FileNotFoundError, json.JSONDecodeError, LookupError, TypeError, ValueError):
        return None
    return dict(asked)
