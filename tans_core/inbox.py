"""The inbox: admits newcomers to the zoo, served at once, or moves them to quarantine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tans_core.errors import GateError, StoreError, TansError, WeightsError, WithdrawnReleaseError
from tans_core.locks import inbox_lock, pipeline_lock
from tans_core.newcomers import ADMITTED, newcomer_folder

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
    drift: dict[str, Drift] = field(default_factory=dict)
    """Of every newcomer in production, by id, those of earlier calls included."""

    @property
    def refused(self) -> dict[str, str]:
        """The message of each refused entry."""
        return {name: str(error) for name, error in self.errors.items()}


def refresh(
    root: Path,
    announce: Callable[[Newcomer, str], None],
    settle_s: float = 2.0,
    only: Path | None = None,
    *,
    again: bool = False,
    on_wait: Callable[[str], None] = logger.warning,
) -> Outcome:
    """Empty the inbox. If interrupted, the next call continues: each step can be repeated.

    What is admitted is served at once. It is kept in data/admitted, which no stage reads, until a build takes it in.

    Args:
        root: the project's folder.
        announce: called for each admitted model, with the release that serves it.
        settle_s: entries changed within this many seconds may be incomplete, and wait for the next call.
        only: process only this entry, which is known to be complete.
        again: also admit newcomers that were rolled back.
        on_wait: called with a line that says for whom this call waits.

    Raises:
        NoReleaseError: there is no release yet to add models to.
        StoreError: the release cannot be read or written.
    """
    from tans_core.embeddings.store import read_table
    from tans_core.index.history import read_history
    from tans_core.index.releases import open_production
    from tans_core.index.withdrawn import rolled_back
    from tans_core.zoo.admission import discard, quarantine, waiting

    outcome, staging = Outcome(), root / ".resume/admission"
    with inbox_lock(root, "the admission of newcomers", on_wait):
        # Remains of a killed run.
        shutil.rmtree(staging, ignore_errors=True)
        release = open_production(root / "serving")
        # A damaged release must not put newcomers into quarantine.
        release.check("space/")
        rows: dict[str, pa.Table] = {}
        served = read_table(release.store_dir, "index")
        withdrawn = {} if again else rolled_back(read_history(root / "serving"))
        for entry in [only] if only else waiting(root / "inbox", settle_s):
            try:
                newcomer, placed = judge(entry, staging, release, root, [served, *rows.values()], withdrawn)
            except (GateError, WeightsError, WithdrawnReleaseError) as error:
                outcome.errors[entry.name] = error
                failures = list(error.failures) if isinstance(error, GateError) else []
                details = {"error": type(error).__name__, "failures": failures}
                quarantine(entry, root / "quarantine", str(error), details)
                continue
            outcome.admitted[entry.name] = newcomer
            rows[newcomer.id] = placed
        # First into data/: a release that is published from now on keeps what is both there and in production.
        for newcomer in outcome.admitted.values():
            _keep(newcomer, root / "data")
        if rows:
            outcome.release = _serve(root, release, list(outcome.admitted.values()), rows, again)
        # Now searchable.
        for name, newcomer in outcome.admitted.items():
            announce(newcomer, outcome.release)
            discard(root / "inbox" / name)
        shutil.rmtree(staging, ignore_errors=True)
    if rows:
        outcome.drift = _drift(root)
    return outcome


def remove(root: Path, models: Sequence[str]) -> str:
    """Take admitted newcomers out of service, then move them from data/ to quarantine.

    If interrupted, it can be repeated. Returns the id of the release without them.

    Raises:
        StoreError: there is no such newcomer.
        WeightsError: a remaining model is damaged.
    """
    from tans_core.embeddings.store import read_table
    from tans_core.index.releases import open_production, remove_models
    from tans_core.zoo.admission import quarantine

    def take_out(required: Sequence[str]) -> Release:
        release = open_production(root / "serving")
        served = set(read_table(release.store_dir, "index")["id"].to_pylist())
        to_remove = [name for name in models if name in served or name in required]
        return remove_models(root / "serving", to_remove) if to_remove else release

    # Not all are served: some were taken out by an earlier call.
    release = take_out([name for name in models if newcomer_folder(root / "data", name) is None])
    with pipeline_lock(root, "`tans zoo remove`"), inbox_lock(root, "`tans zoo remove`"):
        for folder in (newcomer_folder(root / "data", name) for name in models):
            if folder is not None:
                quarantine(folder, root / "quarantine", "removed by `tans zoo remove`")
        # A build that ran meanwhile may have published them.
        release = take_out([])
    return release.id


def judge(
    entry: Path,
    staging: Path,
    release: Release,
    root: Path,
    others: Sequence[pa.Table],
    withdrawn: Mapping[str, str],
) -> tuple[Newcomer, pa.Table]:
    """Check one entry's form and values, and place it in the live space.

    Args:
        entry: of the inbox.
        staging: a private folder for its copy.
        release: in production.
        root: the project's folder.
        others: tables of the index's schema, with models that it must not be a copy of.
        withdrawn: why it is refused, by the id of each newcomer that was rolled back.

    Raises:
        WeightsError, GateError, WithdrawnReleaseError: it cannot be admitted.
    """
    from tans_core.gates.arrivals import check_arrival
    from tans_core.retrieval.placement import place_models
    from tans_core.zoo.admission import read_newcomer

    newcomer = read_newcomer(entry, staging)
    try:
        if newcomer.id in withdrawn:
            raise WithdrawnReleaseError(withdrawn[newcomer.id])
        check_arrival(newcomer, root)
        placed = place_models(release, [newcomer.folder])
        _check_new(newcomer.id, placed, others)
        return newcomer, placed
    except TansError:
        shutil.rmtree(newcomer.folder)
        raise


def _keep(newcomer: Newcomer, data: Path) -> None:
    """Put a copy into data/admitted, whole or not at all, unless it is in data/ already."""
    from tans_core.index.blobs import link_or_copy
    from tans_core.zoo.admission import admit

    if newcomer_folder(data, newcomer.id) is None:
        copy = newcomer.folder.with_name(f"{newcomer.id}.copy")
        shutil.copytree(newcomer.folder, copy, copy_function=link_or_copy)
        admit(replace(newcomer, folder=copy), data / ADMITTED)


def _serve(
    root: Path, release: Release, newcomers: Sequence[Newcomer], rows: Mapping[str, pa.Table], again: bool
) -> str:
    """Put newcomers into production, and return the id of the release that serves them.

    Args:
        root: the project's folder.
        release: whose space the rows were embedded by.
        newcomers: their cards and files.
        rows: of the index, by id.
        again: also those that were rolled back.
    """
    import pyarrow as pa

    from tans_core.index.releases import add_models, open_production
    from tans_core.retrieval.placement import place_models
    from tans_core.zoo.admission import WEIGHTS_FILE

    serving, folders = root / "serving", {one.id: one.folder for one in newcomers}
    files = {one.card.weights: one.folder / WEIGHTS_FILE for one in newcomers}
    try:
        return add_models(serving, pa.concat_tables(rows.values()), files, again).id
    except StoreError:
        current = open_production(serving)
        if current.id == release.id:
            raise
        # Another space went live meanwhile.
        return add_models(serving, place_models(current, list(folders.values())), files, again).id


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
