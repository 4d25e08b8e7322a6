"""`tans build`, `publish`, `rollback`, `releases`, `serve`, `version`."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tans_core.cli.console import AsJson, Root, print_json, stderr, stdout, table

if TYPE_CHECKING:
    from tans_core.publishing import Publication

# "Running stage 'x':", "Stage 'x' didn't change, skipping", "Stage 'x' is cached - skipping run, …"
_STAGE = re.compile(r"^(?:Running stage|Stage) '(?P<name>[^']+)'")


def build(
    stage: Annotated[
        list[str] | None, typer.Argument(help="Stages to bring up to date; all of them by default.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="How many independent stages run at a time; by default one per core, at most eight."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Apply the settings of profiles/NAME.yaml to params.yaml first; the changes stay."
        ),
    ] = None,
    root: Root = None,
) -> None:
    """Build what params.yaml describes; only what changed runs."""
    from tans_core import api
    from tans_core.project import find_root

    stages, project = stage or [], find_root(root)
    if profile is not None:
        _apply_profile(project, profile)
    if not sys.stderr.isatty():
        api.build(*stages, root=project, on_line=lambda line: print(line, flush=True), jobs=jobs)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True) as bar:
        work = bar.add_task("dvc repro", total=None if stages else _count_stages(project))
        seen: set[str] = set()

        def show(line: str) -> None:
            bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            match = _STAGE.match(line)
            if match:
                seen.add(match["name"])
                bar.update(work, description=match["name"], completed=len(seen) - 1)

        api.build(*stages, root=project, on_line=show, jobs=jobs)


def _apply_profile(project: Path, name: str) -> None:
    from tans_core.edits import apply_profile

    changes = apply_profile(project, name)
    console = stderr()
    if not changes:
        console.print(f"profile {name}: applied already, params.yaml is unchanged", highlight=False)
        return
    for change in changes:
        console.print(str(change), markup=False, highlight=False, no_wrap=True, overflow="ellipsis")
    console.print(
        f"profile {name}: {len(changes)} changes to params.yaml. To undo them: git checkout params.yaml",
        highlight=False,
    )


def publish(
    again: Annotated[bool, typer.Option("--again", help="Publish it even if it was rolled back.")] = False,
    judge: Annotated[
        bool,
        typer.Option(
            "--judge", help="Publish it only if it is better than the production release, or not worse and larger."
        ),
    ] = False,
    root: Root = None,
) -> None:
    """Copy the built space and index into serving/, and serve from them."""
    from tans_core.project import find_root
    from tans_core.publishing import publish_built

    publication = publish_built(find_root(root), again=again, judged=judge)
    _show_comparison(publication)
    stdout().print(f"published {publication.accepted().production}; it is in production", highlight=False)


def _show_comparison(publication: Publication) -> None:
    from tans_core.evaluation.challenge import LABELS

    decision, console = publication.decision, stdout()
    if decision is None:
        return
    shown = table("measure", "in production", "built", "difference", "p", right=("in production", "built"))
    for one in decision.measures:
        p = "" if one.p is None else f"{one.p:.2g}"
        shown.add_row(LABELS[one.name], f"{one.champion:.3f}", f"{one.challenger:.3f}", f"{one.difference:+.3f}", p)
    if decision.measures:
        console.print(shown)
    lines = ["by the rule it may be published" if decision.publish else "by the rule it is refused", decision.reason]
    lines += [f"compared: {decision.basis}"] if decision.tasks else []
    lines += [f"task by task: {publication.plot}"] if publication.plot else []
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def rollback(
    to: Annotated[
        str | None, typer.Option(metavar="ID", help="The release to go back to; the one before by default.")
    ] = None,
    root: Root = None,
) -> None:
    """Serve from an earlier release again."""
    from tans_core import api

    stdout().print(f"{api.rollback(to, root)} is in production", highlight=False)


def releases(as_json: AsJson = False, root: Root = None) -> None:
    """List the releases, in the order in which they first went into production."""
    from tans_core import api

    rows = api.list_releases(root)
    if as_json:
        print_json(rows)
        return
    figures = {"tau": "weighted_tau", "regret": "regret_at_1", "recall": "heldout_recall_at_1"}
    shown = table("release", "parent", "models", *figures, "state", right=("models", *figures))
    shown.padding = (0, 1, 0, 0)
    for row in rows:
        numbers = ("" if row[name] is None else f"{row[name]:.3f}" for name in figures.values())
        state = "live" if row["production"] else "withdrawn" if row["withdrawn"] else ""
        # Two whole ids would not fit into 80 columns.
        parent = (row["parent"] or "").rpartition("-")[2]
        shown.add_row(row["id"], parent, str(row["models"]), *numbers, state)
    stdout().print(shown if rows else "no releases yet: `tans build`, then `tans publish`")


def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the server; 0 takes a free one.")] = 4200,
    root: Root = None,
) -> None:
    """Serve the flows from a Prefect server on loopback, until Ctrl-C."""
    from tans_core.project import find_root

    os.chdir(find_root(root))
    # Replaces this process: signals reach it, and no process is left when it ends.
    os.execv(sys.executable, [sys.executable, "-m", "flows.serve", "--port", str(port)])  # noqa: S606


def version() -> None:
    """Print the version."""
    from importlib import metadata

    stdout().print(f"tans {metadata.version('tans')}", highlight=False)


def _count_stages(root: Path) -> int | None:
    """Count the stages of dvc.yaml, each entry of a `foreach` as one; None if the files cannot be read."""
    from tans_core.errors import ParamsError
    from tans_core.yaml_file import read_yaml

    try:
        params, pipeline = (read_yaml(root / name) for name in ("params.yaml", "dvc.yaml"))
        count = 0
        for stage in pipeline["stages"].values():
            entries = stage.get("foreach", [None])
            if isinstance(entries, str):
                keys = entries.strip("${}").split(".")
                entries = functools.reduce(lambda section, key: section[key], keys, params)
            count += len(entries)
    except (ParamsError, AttributeError, KeyError, TypeError):
        return None  # `dvc repro` reports the error
    return count
