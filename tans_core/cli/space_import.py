"""`tans space import`: the files that the TANS authors published, into a store to fit a space on."""

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
        "and the unseen data sets, of which the queries alone are read",
    ),
    (
        "tans space import --zoo my_zoo.pt --queries my_train.pt --store data/mine --json",
        "files of your own in the same form, into another store",
    ),
)


def import_files(
    zoo: Annotated[Path, typer.Option(metavar="FILE", help="p_mod_zoo.pt: networks, their accuracy and embeddings.")],
    queries: Annotated[Path, typer.Option(metavar="FILE", help="p_m_train.pt: the image features of their data sets.")],
    tests: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where meta_test_<name>.pt lie, unpacked; their queries alone are read."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The store to make or replace; data/published by default.")
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Import the networks and data sets that the TANS authors published. Nothing in their files is run."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from tans_core.project import find_root
    from tans_core.runtime import show_progress

    target = store if store is not None else find_root(root) / "data/published"
    # Reading, writing, and whatever --tests adds.
    steps = 3 + (len(list(tests.glob("meta_test_*.pt"))) if tests is not None else 0)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=not show_progress()) as bar:
        work = bar.add_task("starting", total=steps)
        begun = 0

        def show(step: str) -> None:
            nonlocal begun
            bar.update(work, description=step, completed=begun)
            begun += 1

        from tans_core.published.store import import_published

        made = import_published(zoo, queries, target, tests, show)
    if as_json:
        print_json(made)
    else:
        _show(made)


def _show(made: dict[str, Any]) -> None:
    shown = table("", "")
    shown.show_header = False
    fewest, most = made["networks_per_task"]
    each = f"{most}" if fewest == most else f"{fewest} to {most}"
    shown.add_row("data sets", f"{made['tasks']:,} of {made['sources']:,} sources")
    shown.add_row("networks", f"{made['networks']:,}, {each} a data set")
    shown.add_row(
        "widths", f"topology 45, functional {made['functional_width']:,}, image features {made['feature_width']:,}"
    )
    shown.add_row("image features", f"{made['train_features']:,} train, {made['val_features']:,} val")
    if made["test_tasks"]:
        shown.add_row("test data sets", f"{made['test_tasks']:,}, {made['test_features']:,} image features")
    lowest, median, highest = (100 * value for value in made["accuracy"])
    shown.add_row(
        "accuracy (%)", f"{lowest:.1f} to {highest:.1f}, median {median:.1f}; the file has {made['units']['acc']}"
    )
    lowest, median, highest = made["params_m"]
    shown.add_row(
        "parameters (M)",
        f"{lowest:.2f} to {highest:.2f}, median {median:.2f}; the file has {made['units']['n_params']}",
    )
    shown.add_row("store", escape(made["store"]))
    console = stdout()
    console.print(shown, markup=False)
    for warning in made["warnings"]:
        console.print(f"  warning: {warning}", markup=False, highlight=False, soft_wrap=True)
