"""The end of the flows that build: publish by the rule, and report it by a log line, an artifact and an event."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from flows.common import dvc, markdown_table
from flows.notices import REFUSED
from flows.progress import build_progress
from tans_core import api
from tans_core.commits import CommitError, commit_recorded, push_branch
from tans_core.errors import TansError, WithdrawnReleaseError
from tans_core.evaluation.challenge import LABELS, REGRET, TAU, Decision
from tans_core.index.history import production_id
from tans_core.locks import pipeline_lock
from tans_core.newcomers import waiting
from tans_core.params import ReleaseParams, read_section
from tans_core.publishing import LOG_FILE, Publication, publish_built
from tans_core.retraining import record_failure

Log = logging.Logger | logging.LoggerAdapter[Any]
PUBLISHED = "tans.space.published"
EVENTS = {"published": PUBLISHED, "refused": REFUSED}
MEASURES = {"measure": "measure", "before": "in production", "after": "built", "change": "difference", "p": "p"}
_PUSH_S = 1800.0
"""A push holds DVC's lock, and later builds wait for it."""
TASKS = {
    "task": "task",
    "networks": "networks",
    "tau_before": "weighted tau in production",
    "tau": "built",
    "regret_before": "regret@1 in production",
    "regret": "built",
}


def rebuild_and_publish(root: Path, flow: str, *, if_waiting: bool = False) -> str:
    """Bring data/ up to date with params.yaml and all newcomers, and publish it if the rule allows it.

    One run works and one waits for it. Any other one joins the run that waits, which takes in what is there then.

    Args:
        root: the project's folder.
        flow: the flow's name, which becomes the key of the artifact.
        if_waiting: do nothing if no newcomer waits.

    Returns:
        What was done and why, in one line.

    Raises:
        TansError: a stage failed. The class is that of its exit code.
    """
    log = get_run_logger()
    with pipeline_lock(root, f"the flow `{flow}`", log.info, join=True, may_skip=if_waiting) as is_held:
        if not is_held:
            log.info("another run waits to build; it takes in all that is there when it starts, so this one ends")
            return "joined a run that waits"
        if if_waiting and not waiting(root):
            log.info("no newcomer waits: an earlier run took them in")
            return "nothing new"
        try:
            with build_progress(root, flow) as on_line:
                api.build(root=root, on_line=on_line)
            publication = publish(root)
        except TansError as error:
            record_failure(root, str(error))
            raise
        branch = commit(root, publication) if publication.outcome == "published" else ""
    announce(publication, flow)
    if branch:
        push(root, branch)
    if "refused" not in publication.outcome:
        push_outputs(root, get_run_logger())
    return summary(publication)


def commit(root: Path, publication: Publication) -> str:
    """Commit what the build changed to the branch in params.yaml. Return the branch if there is something to push."""
    log, branch = get_run_logger(), read_section(root, "release", ReleaseParams).branch
    if not branch:
        return ""
    try:
        made = commit_recorded(root, branch, f"Release {publication.built}\n\n{publication.reason}")
    except CommitError as error:
        log.warning("nothing was committed to %s: %s", branch, error)
        return ""
    log.info("committed to %s: %s", branch, made[:12] or "nothing changed")
    return branch


def push(root: Path, branch: str) -> None:
    """Push the branch to the remote in params.yaml. A failure is only said: the next push contains this one."""
    log, remote = get_run_logger(), read_section(root, "release", ReleaseParams).remote
    if not remote:
        return
    try:
        push_branch(root, branch, remote)
        log.info("pushed %s to %s", branch, remote)
    except CommitError as error:
        log.warning("%s was not pushed to %s: %s", branch, remote, error)


def push_outputs(root: Path, log: Log) -> None:
    """Push the outputs of the stages to DVC's default remote, if one is set. A failure is only said."""
    lines: list[str] = []
    # Says nothing if none is set.
    if dvc(root, lines.append, "config", "core.remote") or not lines:
        return
    try:
        failed = dvc(root, log.info, "push", limit_s=_PUSH_S) != 0
    except TimeoutError as error:
        log.warning("`dvc push` was ended: %s", error)
        failed = True
    if failed:
        log.warning(
            "`dvc push` to %s failed, see above. The outputs are in this project's cache: run `dvc push` when the "
            "remote can be reached; the next retraining that publishes pushes them, too.",
            lines[-1],
        )
    else:
        log.info("pushed the outputs of the stages to %s", lines[-1])


def publish(root: Path) -> Publication:
    """Publish what is built if the rule allows it. What was rolled back stays out, which is no error.

    Raises:
        StoreError: something is not built, or the parts are of different builds.
    """
    try:
        return publish_built(root, judged=True)
    except WithdrawnReleaseError as error:
        before = production_id(root / "serving")
        if before is None:
            raise
        return Publication("refused before", before, "", before, str(error))


def announce(publication: Publication, flow: str) -> None:
    """Write the log and the artifact; emit an event if something was decided now."""
    log = get_run_logger()
    (log.warning if "refused" in publication.outcome else log.info)(summary(publication))
    create_markdown_artifact(report(publication), key=flow, description="What was published, or why not")
    log.info("the comparison: prefect artifact inspect %s", flow)
    if event := EVENTS.get(publication.outcome):
        resource = {"prefect.resource.id": f"tans.release.{publication.built}"}
        emit_event(event, resource=resource, payload=payload(publication))


def summary(publication: Publication) -> str:
    """Return what happened, and why, in one line."""
    if publication.outcome == "published":
        return f"published {publication.built}; it is in production. {publication.reason}"
    if publication.outcome == "in production already":
        return f"nothing to publish: {publication.production}, which is in production, is what is built"
    return f"not published; {publication.production} stays in production. {publication.reason}"


def payload(publication: Publication) -> dict[str, Any]:
    """Return the payload of the event: ids, the reason, the next command."""
    return {
        "release": publication.built,
        "champion": publication.champion,
        "production": publication.production,
        "reason": publication.reason,
        "next": "tans rollback" if publication.outcome == "published" else "tans publish",
    }


def report(publication: Publication) -> str:
    """Return the decision as markdown: reason, both tables, and where the picture is."""
    parts = [f"# {publication.outcome.capitalize()}", summary(publication)]
    decision = publication.decision
    if decision is not None and decision.measures:
        parts += [f"Compared: {decision.basis}.", markdown_table(MEASURES, measure_rows(decision))]
    if decision is not None and decision.tasks:
        parts += ["## Task by task", markdown_table(TASKS, task_rows(decision))]
    if publication.plot:
        parts.append(f"Picture: {publication.plot}")
    if "refused" in publication.outcome:
        parts.append("`tans publish` publishes it all the same; otherwise it stays out until its content changes.")
    parts.append(f"All decisions: {LOG_FILE}")
    return "\n\n".join(parts) + "\n"


def measure_rows(decision: Decision) -> list[dict[str, Any]]:
    """Return a row of the first table for each measure."""
    return [
        {
            "measure": LABELS[one.name],
            "before": one.champion,
            "after": one.challenger,
            "change": one.difference,
            "p": one.p,
        }
        for one in decision.measures
    ]


def task_rows(decision: Decision) -> list[dict[str, Any]]:
    """Return a row of the second table for each task."""
    return [
        {
            "task": row.task,
            "networks": row.networks,
            "tau_before": row.champion[TAU],
            "tau": row.challenger[TAU],
            "regret_before": row.champion[REGRET],
            "regret": row.challenger[REGRET],
        }
        for row in decision.tasks
    ]
