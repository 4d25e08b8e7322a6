"""`tans contribute` and `tans prune`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tans_core.cli.console import AsJson, Root, print_json, stdout, table
from tans_core.pruning import DAYS, KEEP

if TYPE_CHECKING:
    from tans_core.pruning import Pruning


def contribute(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a fine-tuning, or its name below runs/.")],
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="SPDX", help="Licence of the images; needed unless they are a task of the project that has one."
        ),
    ] = None,
    terms: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text of the licence, for a LicenseRef- name of your own.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the data set, the network's home task; by default the folder's.")
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Hand a fine-tuned network to the inbox, so that it can join the zoo."""
    from tans_core import api

    entry = api.contribute(run, licence=licence, terms=terms, name=name, root=root)
    if as_json:
        print_json({"entry": str(entry)})
        return
    stdout().print(
        f"{entry}: zoo-refresh admits or refuses it within minutes, `tans zoo admit` now.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def prune(
    keep: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Releases before the one in production to keep, for `tans rollback`."),
    ] = KEEP,
    days: Annotated[int, typer.Option(min=0, metavar="D", help="Keep what is younger than so many days.")] = DAYS,
    finetuned: Annotated[
        bool, typer.Option("--finetuned", help="Also remove old fine-tunings: their weights are nowhere else.")
    ] = False,
    quarantine: Annotated[bool, typer.Option("--quarantine", help="Also empty the quarantine.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Remove old releases, runs, reports and checkpoints that nothing needs any more."""
    from tans_core import api

    pruning = api.prune(root, keep=keep, days=days, finetuned=finetuned, quarantine=quarantine, dry_run=dry_run)
    if as_json:
        print_json(pruning.to_dict())
        return
    _show(pruning)


def _show(pruning: Pruning) -> None:
    console, numbers = stdout(), ("before (MB)", "after (MB)")
    if pruning.dry_run:
        for one in pruning.removed:
            console.print(f"{one.kind} {one.path}", markup=False, highlight=False, soft_wrap=True)
    shown = table("folder", *numbers, right=numbers)
    before, after = pruning.before_bytes, pruning.after_bytes
    for name in before:
        shown.add_row(name, _mb(before[name]), _mb(after[name]))
    shown.add_row("together", _mb(sum(before.values())), _mb(sum(after.values())))
    console.print(shown)
    verb = "would be removed" if pruning.dry_run else "removed"
    counts = Counter(one.kind for one in pruning.removed)
    kinds = ", ".join(f"{kind}: {count}" for kind, count in counts.items()) or "nothing"
    console.print(f"{verb}: {kinds}", markup=False, highlight=False)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f}"
