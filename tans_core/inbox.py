"""The inbox: admits newcomers to the zoo, served at once, or moves them to quarantine."""

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
"""Maximum difference between places of one network embedded on two machines; places have unit length."""


@dataclass
class Outcome:
    """The result of emptying the inbox: the decision on each entry, and the reason."""

    admitted: dict[str, Newcomer] = field(default_factory=dict)
    errors: dict[str, TansError] = field(default_factory=dict)
    """Why each entry in quarantine was refused."""
    release: str = ""
    withheld: str = ""
    """Why admitted newcomers are not served: they would recreate a release that was rolled back. Else empty."""
    drift: dict[str, Drift] = field(default_factory=dict)
    """Of every newcomer in production, by id, those of earlier calls included."""

    @property
    def refused(self) -> dict[str, str]:
        """The message of each refused entry."""
        return {name: str(error) for name, error in self.errors.items()}


def refresh(
    root: Path, announce: Callable[[Newcomer, str], None], settle_s: float = 2.0, only: Path | None = None
) -> Outcome:
    """Empty the inbox. If interrupted, the next call continues: each step can be repeated.

    If adding the newcomers would recreate a release that was rolled back, serving does not change: they go to
    data/arrivals, and are not announced.

    Args:
        root: the project's folder.
        announce: called for each admitted model, with the release that serves it.
        settle_s: entries changed within this many seconds may be incomplete, and wait for the next call.
        only: process only this entry, which is known to be complete.

    Raises:
        NoReleaseError: there is no release yet to add models to.
        StoreError: the release cannot be read or written.
    """
    from tans_core.embeddings.store import read_table
    from tans_core.index.blobs import hold_lock
    from tans_core.index.releases import add_models, open_production
    from tans_core.zoo.admission import admit, discard, quarantine, waiting

    outcome, staging = Outcome(), root / ".resume/admission"
    with hold_lock(root / "inbox/.lock"):
        # Remains of a killed run.
        shutil.rmtree(staging, ignore_errors=True)
        release = open_production(root / "serving")
        # A damaged release must not put newcomers into quarantine.
        release.check("space/")
        rows: dict[str, pa.Table] = {}
        served = read_table(release.store_dir, "index")
        for entry in [only] if only else waiting(root / "inbox", settle_s):
            try:
                newcomer, placed = judge(entry, staging, release, root, [served, *rows.values()])
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
        # Now searchable. Next: into data/ for the next `dvc repro`, then out of the inbox.
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
    """Take admitted newcomers out of service, then move them from data/arrivals to quarantine.

    If interrupted, it can be repeated. Returns the id of the release without them.

    Raises:
        StoreError: there is no such newcomer.
        WeightsError: a remaining model is damaged.
    """
    from tans_core.embeddings.store import read_table
    from tans_core.index.blobs import hold_lock
    from tans_core.index.releases import open_production, remove_models
    from tans_core.zoo.admission import quarantine

    with hold_lock(root / "inbox/.lock"):
        release, arrivals = open_production(root / "serving"), root / "data/arrivals"
        served = set(read_table(release.store_dir, "index")["id"].to_pylist())
        arrived = {path.name for path in arrivals.glob("*/")}
        # Not all are served: some were withheld, or taken out by an earlier call.
        if to_remove := [name for name in models if name in served or name not in arrived]:
            release = remove_models(root / "serving", to_remove)
        for name in models:
            if name in arrived:
                quarantine(arrivals / name, root / "quarantine", "removed by `tans zoo remove`")
    return release.id


def judge(
    entry: Path, staging: Path, release: Release, root: Path, others: Sequence[pa.Table]
) -> tuple[Newcomer, pa.Table]:
    """Check one entry's form and values, and place it in the live space.

    Args:
        entry: of the inbox.
        staging: a private folder for its copy.
        release: in production.
        root: the project's folder.
        others: tables of the index's schema, with models that it must not be a copy of.

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
    """Refuse a network with the same outputs as one in the zoo: a copy would only lengthen every result.

    Raises:
        WeightsError: it is a copy; names the original.
    """
    from tans_core.embeddings.store import matrix

    def places(rows: pa.Table) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        parts = [rows[name].to_numpy()[:, None] for name in ("capacity", "start")]
        return np.concatenate([matrix(rows["vector"]), *parts], axis=1).astype(np.float64)

    newcomer = places(placed)
    for rows in others:
        is_same = np.abs(places(rows) - newcomer).max(axis=1, initial=0.0) < _SAME
        originals = [name for name, same in zip(rows["id"].to_pylist(), is_same, strict=True) if same and name != model]
        if originals:
            raise WeightsError(
                f"{model}: gives the same outputs as {originals[0]}, which is in the zoo: a copy of it. Nothing to add."
            )


def _drift(root: Path) -> dict[str, Drift]:
    """Measure the drift of all newcomers; empty if the space was fitted before drift was supported."""
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
