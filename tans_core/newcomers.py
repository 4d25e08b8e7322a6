"""Newcomers on their way into the pipeline: admitted at any time, taken in when a build starts.

data/admitted/<id>/      admitted and served; no stage reads it
data/arrivals/<id>/      taken in by a build; the stages read it
.resume/taken-in.json    ids taken in by builds whose result was not published or refused yet
.resume/retraining.json  when a retraining was asked for that has not published or refused its result yet
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from tans_core.io import write_json

ADMITTED, ARRIVALS = "admitted", "arrivals"
ASKED = ".resume/retraining.json"
_TAKEN_IN = ".resume/taken-in.json"
_CARD = "card.json"
_CARDS = f"[!.]*/{_CARD}"


def newcomer_folder(data: Path, model: str) -> Path | None:
    """Return the folder of a newcomer in data/, or None if there is none of that id."""
    # In this order, since a build may take it in meanwhile.
    folders = [data / place / model for place in (ADMITTED, ARRIVALS)]
    return next((folder for folder in folders if folder.is_dir()), None)


def newcomer_folders(data: Path) -> list[Path]:
    """Return the folders of all newcomers in data/, admitted or taken in."""
    return [folder for place in (ARRIVALS, ADMITTED) for folder in sorted((data / place).glob("[!.]*/"))]


def take_in(root: Path) -> list[str]:
    """Move what was admitted to where the stages read it, and return the ids. The caller holds the pipeline's lock.

    If interrupted, the next call continues: each newcomer is in one of the two folders, whole.
    """
    admitted, arrivals = root / "data" / ADMITTED, root / "data" / ARRIVALS
    taken = [card.parent.name for card in sorted(admitted.glob(_CARDS))]
    if taken:
        # Written first: what a killed build took in still waits for a retraining.
        _write_taken_in(root, {*_taken_in(root), *taken})
        arrivals.mkdir(parents=True, exist_ok=True)
    for name in taken:
        if (arrivals / name).is_dir():
            shutil.rmtree(admitted / name)
        else:
            (admitted / name).rename(arrivals / name)
    return taken


def waiting(root: Path) -> dict[str, float]:
    """Return the newcomers that wait for a retraining, each with the time of its admission (epoch, seconds).

    They are those admitted, and those taken in by builds whose result was not published or refused yet.
    """
    data, moments = root / "data", {}
    cards = [*(data / ADMITTED).glob(_CARDS), *(data / ARRIVALS / name / _CARD for name in _taken_in(root))]
    for card in cards:
        with contextlib.suppress(FileNotFoundError):  # taken in this moment, or removed
            moments[card.parent.name] = card.stat().st_mtime
    return moments


def settle(root: Path, built: Collection[str]) -> None:
    """Record that the result of a build was published or refused.

    Args:
        root: the project's folder.
        built: ids of the models that it contains.
    """
    (root / ASKED).unlink(missing_ok=True)
    before = _taken_in(root)
    if before & set(built):
        _write_taken_in(root, before - set(built))


def _taken_in(root: Path) -> set[str]:
    try:
        return set(json.loads((root / _TAKEN_IN).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return set()


def _write_taken_in(root: Path, names: Iterable[str]) -> None:
    write_json(sorted(names), root / _TAKEN_IN)
