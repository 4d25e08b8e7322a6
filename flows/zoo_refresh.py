"""Flow `zoo-refresh`: newcomers from the inbox into the zoo, or into quarantine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from flows.common import failed, markdown_table, project
from tans_core.errors import GateError, TansError, WeightsError, WithdrawnReleaseError

if TYPE_CHECKING:
    import pyarrow as pa

    from tans_core.index.releases import Release
    from tans_core.space.drift import Drift
    from tans_core.zoo.admission import Newcomer

logger = logging.getLogger(__name__)
ADMITTED = "tans.zoo.model-admitted"


@dataclass
class Outcome:
    """What became of the inbox: entries by what was decided, and why."""

    admitted: dict[str, Newcomer] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    release: str = ""
    withheld: str = ""
    """Why serving stays as it is, although newcomers were admitted: the release that they make was rolled back."""
    drift: dict[str, Drift] = field(default_factory=dict)
    """Of every newcomer in production, by id: those of earlier calls, too."""


@flow(name="zoo-refresh", description="Admit newcomers from the inbox.")
def zoo_refresh() -> Any:
    """Gate each newcomer; serve the good ones at once, quarantine the others, and tell of every admission."""
    root, log = project(), get_run_logger()
    inbox = root / "inbox"
    # Most runs find nothing: they should not wait for torch.
    if not inbox.is_dir() or all(path.name.startswith(".") for path in inbox.iterdir()):
        log.info("the inbox is empty")
        return "nothing new"
    try:
        outcome = refresh(root, tell)
    except TansError as error:
        return failed(error)
    for entry, newcomer in outcome.admitted.items():
        log.info("admitted %s as %s", entry, newcomer.id)
    for entry, reason in outcome.refused.items():
        log.warning("quarantined %s: %s", entry, reason)
    if outcome.withheld:
        log.warning("serving stays as it is: %s", outcome.withheld)
    create_markdown_artifact(report(outcome), key="zoo-refresh", description="Newcomers")
    return f"{len(outcome.admitted)} admitted, {len(outcome.refused)} quarantined"


def refresh(root: Path, announce: Callable[[Newcomer, str], None], settle_s: float = 2.0) -> Outcome:
    """Empty the inbox. Whatever ends it early, the next call takes up what is left: each step can be done twice.

    Where newcomers would bring back a release that was rolled back, serving stays as it is: they go to data/arrivals
    unannounced.

    Args:
        root: the project's folder.
        announce: is told of each admitted model, with the release that serves it.
        settle_s: entries that changed within so many seconds may still be on their way, and wait for the next call.

    Raises:
        NoReleaseError: nothing was published yet, so there is nothing to add models to.
        StoreError: the release cannot be read or written.
    """
    from tans_core.index.blobs import hold_lock
    from tans_core.index.releases import add_models, open_production
    from tans_core.zoo.admission import admit, discard, quarantine, waiting

    outcome, staging = Outcome(), root / ".resume/admission"
    with hold_lock(root / "inbox/.lock"):
        # What a killed run left.
        shutil.rmtree(staging, ignore_errors=True)
        release = open_production(root / "serving")
        rows: dict[str, pa.Table] = {}
        for entry in waiting(root / "inbox", settle_s):
            try:
                newcomer, placed = judge(entry, staging, release, root)
            except (GateError, WeightsError) as error:
                outcome.refused[entry.name] = str(error)
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


def judge(entry: Path, staging: Path, release: Release, root: Path) -> tuple[Newcomer, pa.Table]:
    """Check one entry's form and values, and place it in the live space.

    Raises:
        WeightsError, GateError: it cannot be admitted.
    """
    from tans_core.gates.arrivals import check_arrival
    from tans_core.retrieval.placement import place_models
    from tans_core.zoo.admission import read_newcomer

    newcomer = read_newcomer(entry, staging)
    try:
        check_arrival(newcomer, root)
        return newcomer, place_models(release, [newcomer.folder])
    except TansError:
        shutil.rmtree(newcomer.folder)
        raise


def tell(newcomer: Newcomer, release: str) -> None:
    """Emit the event that starts `retrain`."""
    emit_event(
        ADMITTED,
        resource={"prefect.resource.id": f"tans.model.{newcomer.id}", "prefect.resource.name": newcomer.id},
        payload={"home_task": newcomer.card.home_task, "model_id": newcomer.id, "release": release},
    )


def report(outcome: Outcome) -> str:
    """Return what became of the newcomers, as markdown."""
    admitted = [
        {
            "entry": name,
            "id": one.id,
            "home": one.card.home_task,
            "accuracy": one.card.val_accuracy,
            "drift": _drift_words(outcome.drift.get(one.id)),
        }
        for name, one in outcome.admitted.items()
    ]
    refused = [{"entry": name, "reason": reason} for name, reason in outcome.refused.items()]
    withheld = f"Serving stays as it is: {outcome.withheld}\n\n" if outcome.withheld else ""
    columns = {"entry": "entry", "id": "model", "home": "home task", "accuracy": "val accuracy", "drift": "drift"}
    return (
        f"# Admitted\n\n{markdown_table(columns, admitted)}\n\n{withheld}{_verdict(outcome.drift)}"
        f"# In quarantine\n\n{markdown_table({'entry': 'entry', 'reason': 'reason'}, refused)}\n"
    )


def _verdict(drift: dict[str, Drift]) -> str:
    """Say whether to retrain, by all newcomers in production; nothing where drift is not known."""
    from tans_core.space.drift import judge as judge_drift

    return f"{judge_drift(list(drift.values())).in_words()}\n\n" if drift else ""


def _drift(root: Path) -> dict[str, Drift]:
    """Measure all newcomers; none where the space is older than drift, which is no reason to keep anybody out."""
    from tans_core.index.releases import open_production
    from tans_core.retrieval.placement import measure_drift

    try:
        return {one.id: one for one in measure_drift(open_production(root / "serving"))}
    except TansError as error:
        logger.warning("drift is not known: %s", error)
        return {}


def _drift_words(drift: Drift | None) -> str:
    if drift is None:
        return "not known"
    return f"{drift.quantile:.2f}{' (far from what the space was made from)' if drift.far else ''}"


def _joined(rows: dict[str, pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(rows.values())


def _files(outcome: Outcome) -> dict[str, Path]:
    from tans_core.zoo.admission import WEIGHTS_FILE

    return {one.card.weights: one.folder / WEIGHTS_FILE for one in outcome.admitted.values()}
