"""Flow `zoo-refresh`: newcomers from the inbox into the zoo, or into quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from flows import notices
from flows.common import markdown_table, project
from flows.declared import ADMITTED, declared
from flows.triggers import retrain_if_due, skip_missed_runs
from tans_core.inbox import Outcome, refresh
from tans_core.index.history import production_id
from tans_core.locks import inbox_lock

if TYPE_CHECKING:
    from tans_core.space.drift import Drift
    from tans_core.zoo.admission import Newcomer


@declared("zoo-refresh")
def zoo_refresh() -> Any:
    """Gate each newcomer. Serve those that pass at once, quarantine the others, and ask for a retraining if one is due.

    Each admission emits an event. One run works and one waits for it. Any other one joins the run that waits.
    """
    root, log = project(), get_run_logger()
    skip_missed_runs()
    inbox = root / "inbox"
    # Most runs find an empty inbox; they should not wait for torch.
    if not inbox.is_dir() or all(path.name.startswith(".") for path in inbox.iterdir()):
        log.info("the inbox is empty")
        retrain_if_due(root)
        return "nothing new"
    with inbox_lock(root, "the flow `zoo-refresh`", log.info, join=True) as is_held:
        if not is_held:
            log.info("another run waits for the inbox; it admits all that is there when it starts, so this one ends")
            return "joined a run that waits"
        outcome = refresh(root, emit_admission)
    for entry, newcomer in outcome.admitted.items():
        log.info("admitted %s as %s", entry, newcomer.id)
    for entry, reason in outcome.refused.items():
        log.warning("quarantined %s: %s", entry, reason)
        notices.quarantined(entry, reason)
    create_markdown_artifact(report(outcome), key="zoo-refresh", description="Newcomers")
    retrain_if_due(root, outcome.drift)
    live = production_id(root / "serving") or "no release"
    return f"{len(outcome.admitted)} admitted, {len(outcome.refused)} quarantined; in production: {live}"


def emit_admission(newcomer: Newcomer, release: str) -> None:
    """Emit an event for those who want to know of each admission."""
    emit_event(
        ADMITTED,
        resource={"prefect.resource.id": f"tans.model.{newcomer.id}", "prefect.resource.name": newcomer.id},
        payload={"home_task": newcomer.card.home_task, "model_id": newcomer.id, "release": release},
    )


def report(outcome: Outcome) -> str:
    """Return which newcomers were admitted and which quarantined, as markdown."""
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
    columns = {"entry": "entry", "id": "model", "home": "home task", "accuracy": "val accuracy", "drift": "drift"}
    return (
        f"# Admitted\n\n{markdown_table(columns, admitted)}\n\n{_verdict(outcome.drift)}"
        f"# In quarantine\n\n{markdown_table({'entry': 'entry', 'reason': 'reason'}, refused)}\n"
    )


def _verdict(drift: dict[str, Drift]) -> str:
    """Return whether to retrain, judged by all newcomers in production; empty if no drift is known."""
    from tans_core.space.drift import judge_drift

    return f"{judge_drift(list(drift.values())).in_words()}\n\n" if drift else ""


def _drift_words(drift: Drift | None) -> str:
    if drift is None:
        return "not known"
    return f"{drift.quantile:.2f}{' (far from the networks of the space)' if drift.far else ''}"
