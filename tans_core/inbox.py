"""The inbox: newcomers into the zoo, served at once, or into quarantine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tans_core.errors import GateError, TansError, WeightsError, WithdrawnReleaseError

if TYPE_CHECKING:
    import pyarrow as pa

    from tans_core.index.release import Release
    from tans_core.space.drift import Drift
    from tans_core.zoo.admission import Newcomer

logger = logging.getLogger(__name__)
_SAME = 1e-5
"""By how much places of one network may differ that was embedded on two machines; places are of unit length."""


@dataclass
class Outcome:
    """What became of the inbox: entries by what was decided, and why."""

    admitted: dict[str, Newcomer] = field(default_factory=dict)
    errors: dict[str, TansError] = field(default_factory=dict)
    """Of those that went to quarantine."""
    release: str = ""
    withheld: str = ""
    """Why serving stays as it is, although newcomers were admitted: the release that they make was rolled back."""
    drift: dict[str, Drift] = field(default_factory=dict)
    """Of every newcomer in production, by id: those of earlier calls, too."""

    @property
    def refused(self) -> dict[str, str]:
        """Why each that is in quarantine is there."""
        return {name: str(error) for name, error in self.errors.items()}


def refresh(
    root: Path, announce: Callable[[Newcomer, str], None], settle_s: float = 2.0, only: Path | None = None
) -> Outcome:
    """Empty the inbox. Whatever ends it early, the next call takes up what is left: each step can be done twice.

    Where newcomers would bring back a release that was rolled back, serving stays as it is: they go to data/arrivals
    unannounced.

    Args:
        root: the project's folder.
        announce: is told of each admitted model, with the release that serves it.
        settle_s: entries that changed within so many seconds may still be on their way, and wait for the next call.
        only: an entry that is known to be whole; the others wait.

    Raises:
        NoReleaseError: nothing was published yet, so there is nothing to add models to.
        StoreError: the release cannot be read or written.
    """
    from tans_core.embeddings.store import read_table
    from tans_core.index.blobs import hold_lock
    from tans_core.index.releases import add_models, open_production
    from tans_core.zoo.admission import admit, discard, quarantine, waiting

    outcome, staging = Outcome(), root / ".resume/admission"
    with hold_lock(root / "inbox/.lock"):
        # What a killed run left.
        shutil.rmtree(staging, ignore_errors=True)
        release = open_production(root / "serving")
        # What is damaged there is no newcomer's fault.
        release.check("space/")
        rows: dict[str, pa.Table] = {}
        known = read_table(release.store_dir, "index")
        for entry in [only] if only else waiting(root / "inbox", settle_s):
            try:
                newcomer, placed = judge(entry, staging, release, root, [known, *rows.values()])
            except (GateError, WeightsError) as error:
                outcome.errors[entry.name] = error
                failures = list(error.failures) if isinstance(error, GateError) else []
                details = {"error": type(error).__name__, "failures": failures}
                quarantine(entry, root / "quarantine", str(error), details)
                continue
            outcome.admitted[entry.name] = newcomer
            rows[newcomer.id] = placed
        if rows:
            try:
                outcome.release = add_models(root / "serving", _joined(rows), _files(outcome)).id
            except WithdrawnReleaseError as error:
                outcome.withheld = str(error)
        # Searchable first, then in data/ for the next `dvc repro`, then out of the inbox.
        for name, newcomer in outcome.admitted.items():
            if newcomer.folder.is_dir():
                admit(newcomer, root / "data/arrivals")
            if not outcome.withheld:
                announce(newcomer, outcome.release)
            discard(root / "inbox" / name)
        shutil.rmtree(staging, ignore_errors=True)
    if rows:
        outcome.drift = _drift(root)
    return outcome


def remove(root: Path, models: Sequence[str]) -> str:
    """Take admitted newcomers out of service, then from data/arrivals to quarantine; return the release that serves without
    them. Ended early, it can be done again.

    Raises:
        StoreError: there is no such newcomer.
        WeightsError: what stays is damaged.
    """
    from tans_core.embeddings.store import read_table
    from tans_core.index.blobs import hold_lock
    from tans_core.index.releases import open_production, remove_models
    from tans_core.zoo.admission import quarantine

    with hold_lock(root / "inbox/.lock"):
        release, arrivals = open_production(root / "serving"), root / "data/arrivals"
        served = set(read_table(release.store_dir, "index")["id"].to_pylist())
        here = {path.name for path in arrivals.glob("*/")}
        # Some are not served: those that were withheld, and those that an earlier call took out already.
        if asked := [name for name in models if name in served or name not in here]:
            release = remove_models(root / "serving", asked)
        for name in models:
            if name in here:
                quarantine(arrivals / name, root / "quarantine", "removed by `tans zoo remove`")
    return release.id


def judge(
    entry: Path, staging: Path, release: Release, root: Path, others: Sequence[pa.Table]
) -> tuple[Newcomer, pa.Table]:
    """Check one entry's form and values, and place it in the live space, where it must be none of the others (tables of the
    index's schema).

    Raises:
        WeightsError, GateError: it cannot be admitted.
    """
    from tans_core.gates.arrivals import check_arrival
    from tans_core.retrieval.placement import place_models
    from tans_core.zoo.admission import read_newcomer

    newcomer = read_newcomer(entry, staging)
    try:
        check_arrival(newcomer, root)
        placed = place_models(release, [newcomer.folder])
        _check_new(newcomer.id, placed, others)
        return newcomer, placed
    except TansError:
        shutil.rmtree(newcomer.folder)
        raise


def _check_new(model: str, placed: pa.Table, others: Sequence[pa.Table]) -> None:
    """Refuse a network that answers just as one that is there already: under another name it would only crowd the answer.

    Raises:
        WeightsError: it does; says as which.
    """
    from tans_core.embeddings.store import matrix

    def places(rows: pa.Table) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        parts = [rows[name].to_numpy()[:, None] for name in ("capacity", "start")]
        return np.concatenate([matrix(rows["vector"]), *parts], axis=1).astype(np.float64)

    own = places(placed)
    for rows in others:
        same = np.abs(places(rows) - own).max(axis=1, initial=0.0) < _SAME
        twins = [name for name, found in zip(rows["id"].to_pylist(), same, strict=True) if found and name != model]
        if twins:
            raise WeightsError(
                f"{model}: answers just as {twins[0]} does, which is in the zoo: a copy of it. Nothing to add."
            )


def _drift(root: Path) -> dict[str, Drift]:
    """Measure all newcomers; none where the space is older than drift, which is no reason to keep anybody out."""
    from tans_core.index.releases import open_production
    from tans_core.retrieval.placement import measure_drift

    try:
        return {one.id: one for one in measure_drift(open_production(root / "serving"))}
    except TansError as error:
        logger.warning("drift is not known: %s", error)
        return {}


def _joined(rows: dict[str, pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(rows.values())


def _files(outcome: Outcome) -> dict[str, Path]:
    from tans_core.zoo.admission import WEIGHTS_FILE

    return {one.card.weights: one.folder / WEIGHTS_FILE for one in outcome.admitted.values()}
