"""`tans space import`: read the files that the TANS authors published into a store that a space can be fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from tans_core.cli.console import AsJson, Root, examples, print_json, stderr, stdout, table

EXAMPLES = examples(
    ("tans space import --zoo p_mod_zoo.pt --queries p_m_train.pt", "the networks and data sets to fit on"),
    (
        "tans space import --zoo p_mod_zoo.pt --queries p_m_train.pt --tests p_m_test/",
        "also the unseen data sets; only their queries are read",
    ),
    (
        "tans space import --zoo my_zoo.pt --queries my_train.pt --store data/mine --json",
        "files of your own in the same format, into another store",
    ),
)


def import_files(
    zoo: Annotated[Path, typer.Option(metavar="FILE", help="p_mod_zoo.pt: networks, their accuracy and embeddings.")],
    queries: Annotated[Path, typer.Option(metavar="FILE", help="p_m_train.pt: image features of their data sets.")],
    tests: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the unpacked meta_test_<name>.pt; only their queries are read."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The store to make or replace; data/published by default.")
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Import the networks and data sets that the TANS authors published. No code in their files is run."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from tans_core.project import find_root
    from tans_core.runtime import show_progress

    target = store if store is not None else find_root(root) / "data/published"
    # Three for reading and writing, and one per file of --tests.
    steps = 3 + (len(list(tests.glob("meta_test_*.pt"))) if tests is not None else 0)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=not show_progress()) as bar:
        work = bar.add_task("starting", total=steps)
        started = 0

        def show(step: str) -> None:
            nonlocal started
            bar.update(work, description=step, completed=started)
            started += 1

        from tans_core.published.store import import_published

        summary = import_published(zoo, queries, target, tests, show)
    if as_json:
        print_json(summary)
    else:
        _show(summary)


def _show(summary: dict[str, Any]) -> None:
    shown = table("", "")
    shown.show_header = False
    fewest, most = summary["networks_per_task"]
    each = f"{most}" if fewest == most else f"{fewest} to {most}"
    shown.add_row("data sets", f"{summary['tasks']:,} of {summary['sources']:,} sources")
    shown.add_row("networks", f"{summary['networks']:,}, {each} per data set")
    shown.add_row(
        "widths",
        f"topology 45, functional {summary['functional_width']:,}, image features {summary['feature_width']:,}",
    )
    shown.add_row("image features", f"{summary['train_features']:,} train, {summary['val_features']:,} val")
    if summary["test_tasks"]:
        shown.add_row("test data sets", f"{summary['test_tasks']:,}, {summary['test_features']:,} image features")
    lowest, median, highest = (100 * value for value in summary["accuracy"])
    shown.add_row(
        "accuracy (%)", f"{lowest:.1f} to {highest:.1f}, median {median:.1f}; the file has {summary['units']['acc']}"
    )
    lowest, median, highest = summary["params_m"]
    shown.add_row(
        "parameters (M)",
        f"{lowest:.2f} to {highest:.2f}, median {median:.2f}; the file has {summary['units']['n_params']}",
    )
    shown.add_row("store", escape(summary["store"]))
    console = stdout()
    console.print(shown, markup=False)
    for warning in summary["warnings"]:
        console.print(f"  warning: {warning}", markup=False, highlight=False, soft_wrap=True)
