"""Publishes what is built: compared with the release in production, by the rule or as requested, and recorded.

metrics/releases.jsonl       one decision a line, oldest first (docs/metrics.md has the keys)
reports/releases/<id>.png    weighted tau of both releases, task by task
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tans_core.errors import RefusedReleaseError, WithdrawnReleaseError
from tans_core.io import atomic_path, read_json, writing
from tans_core.locks import pipeline_lock
from tans_core.newcomers import settle
from tans_core.params import ReleaseParams, read_section

if TYPE_CHECKING:
    import pyarrow as pa

    from tans_core.evaluation.challenge import Decision, Rule
    from tans_core.index.built import Built
    from tans_core.index.release import Release

logger = logging.getLogger(__name__)
LOG_FILE = "metrics/releases.jsonl"
PLOTS = "reports/releases"
Outcome = Literal["published", "refused", "refused before", "in production already"]


@dataclass(frozen=True)
class Publication:
    """What came of publishing.

    Attributes:
        outcome: whether the built release went into production now.
        production: id of the release in production.
        built: id of the built release.
        champion: id of the release that was in production before; None if there was none.
        reason: in a sentence.
        decision: the comparison of both; None if there was none.
        plot: its picture; None if no task could be compared.
    """

    outcome: Outcome
    production: str
    built: str
    champion: str | None
    reason: str
    decision: Decision | None = None
    plot: Path | None = None

    def accepted(self) -> Publication:
        """Return this, unless it was refused.

        Raises:
            RefusedReleaseError: it was.
        """
        if self.outcome in ("refused", "refused before"):
            raise RefusedReleaseError(
                f"{self.built} was not published; {self.production} stays in production. {self.reason}\n"
                "  Change what it is built from, or run `tans publish`, which publishes it all the same."
            )
        return self


@dataclass
class _Challenge:
    """The built release against the one in production: compared now, or refused before."""

    champion: Release
    built: Built
    decision: Decision | None = None
    refused: dict[str, Any] | None = None


def publish_built(root: Path, *, again: bool = False, judged: bool = False) -> Publication:
    """Publish the result of `dvc repro`, and record the decision. It waits while another process builds.

    Args:
        root: the project's folder.
        again: also publish what was rolled back and, with `judged`, compare again what was refused.
        judged: publish only what the rule of `tans_core.evaluation.challenge` allows, with the margins of `release` in
            params.yaml. What it refused is not compared again until its content changes.

    Raises:
        StoreError: something is not built or damaged, or the parts are of different builds.
        WithdrawnReleaseError: the release or some of its networks were rolled back before, and `again` is False.
        ParamsError: params.yaml cannot be read, or its section `release` is invalid.
    """
    rule = read_rule(root)
    with pipeline_lock(root, "`tans publish`"):
        try:
            publication = _publish(root, rule, again, judged)
        except WithdrawnReleaseError:
            _settle(root)
            raise
        _settle(root)
    return publication


def _settle(root: Path) -> None:
    from tans_core.embeddings.store import read_table

    settle(root, read_table(root / "data/store", "index")["id"].to_pylist())


def _publish(root: Path, rule: Rule, again: bool, judged: bool) -> Publication:
    from tans_core.index.history import production_id
    from tans_core.index.releases import open_pipeline, publish

    serving, challenges = root / "serving", list[_Challenge]()

    def judge(champion: Release, built: Built) -> bool:
        refused = _refusal(root, built.digest) if judged and not again else None
        decision = None if refused else _compare(champion, built, rule)
        challenges.append(_Challenge(champion, built, decision, refused))
        return not judged or (decision is not None and decision.publish)

    def place(folders: Sequence[Path]) -> pa.Table:
        from tans_core.retrieval.placement import place_models

        return place_models(open_pipeline(root), folders)

    before = production_id(serving)
    release = publish(root, serving, again, judge, place)
    if not challenges and release.id == before:
        return Publication("in production already", before, before, before, "It is in production already.")
    entry = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "by": "rule" if judged else "request"}
    if not challenges:
        reason = "There was none before." if before is None else "The release in production cannot be read."
        digest = read_json(release.root / "release.json")["digest"]
        outcome = {"decision": "published", "release": release.id, "digest": digest, "champion": before}
        _append(root, {**entry, **outcome, "reason": reason})
        return Publication("published", release.id, release.id, before, reason)
    (challenge,) = challenges
    return _conclude(root, challenge, release.id, entry)


def read_rule(root: Path) -> Rule:
    """Read the margins from `release` in params.yaml; other sections are not checked.

    Raises:
        ParamsError: params.yaml cannot be read, or the section is invalid.
    """
    from tans_core.evaluation.challenge import Rule

    params = read_section(root, "release", ReleaseParams)
    return Rule(params.margin, params.regret_margin, params.recall_margin, params.confidence)


def _compare(champion: Release, built: Built, rule: Rule) -> Decision:
    from tans_core.embeddings.store import read_table
    from tans_core.evaluation.challenge import Contender, judge_challenger
    from tans_core.index.built import fingerprints

    served = fingerprints(read_table(champion.store_dir, "index"), champion.files)
    return judge_challenger(Contender(champion.space_dir, served), Contender(built.space_dir, built.networks), rule)


def _conclude(root: Path, challenge: _Challenge, production: str, entry: dict[str, Any]) -> Publication:
    """Draw and record a comparison; one that was recorded before is not recorded again."""
    champion, built, decision = challenge.champion.id, challenge.built, challenge.decision
    if decision is None:
        earlier = challenge.refused or {}
        reason = f"Refused on {earlier.get('created')}: {earlier.get('reason')} Its content has not changed."
        return Publication("refused before", production, str(earlier.get("release")), champion, reason)
    outcome: Literal["published", "refused"] = "refused" if production == champion else "published"
    plot = _draw(root, champion, built.id, decision)
    measures = {
        one.name: {"champion": one.champion, "challenger": one.challenger, "difference": one.difference, "p": one.p}
        for one in decision.measures
    }
    compared = {"reason": decision.reason, "basis": decision.basis, "measures": measures, "tasks": len(decision.tasks)}
    ids = {"decision": outcome, "release": built.id, "digest": built.digest, "champion": champion}
    _append(root, {**entry, **ids, **compared, "plot": plot and plot.relative_to(root).as_posix()})
    return Publication(outcome, production, built.id, champion, decision.reason, decision, plot)


def _draw(root: Path, champion: str, built: str, decision: Decision) -> Path | None:
    if not decision.tasks:
        return None
    from tans_core.evaluation.challenge_plot import draw_challenge
    from tans_core.evaluation.plots import to_png

    path = root / PLOTS / f"{built}.png"
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_png(draw_challenge(decision, champion, built)))
    return path


def _refusal(root: Path, digest: str) -> dict[str, Any] | None:
    """Return the record of a refused release if nothing else was decided on it since."""
    latest = next((entry for entry in reversed(read_decisions(root)) if entry.get("digest") == digest), None)
    return latest if latest and latest.get("decision") == "refused" else None


def read_decisions(root: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics/releases.jsonl`, oldest first. A line that a killed run left half is skipped."""
    path = root / LOG_FILE
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _append(root: Path, entry: dict[str, Any]) -> None:
    path = root / LOG_FILE
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A killed run may have left half a line.
        cut_off = path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n")
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False)
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * cut_off + line + "\n")
