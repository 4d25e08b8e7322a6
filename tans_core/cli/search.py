"""`tans retrieve` and `tans finetune`."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tans_core.cli.console import (
    AsJson,
    DataSet,
    Group,
    OptionalDataSet,
    Root,
    print_json,
    stderr,
    stdout,
    table,
)
from tans_core.errors import ParamsError
from tans_core.options import FinetuneOptions, RetrieveOptions, takes
from tans_core.retrieval.candidate import LOW_TRUST, REFINED

if TYPE_CHECKING:
    from rich.console import Console

    from tans_core.dataset import Scanned
    from tans_core.results import FinetuneRun, Retrieval
    from tans_core.tasks.task import TaskInfo


@takes(RetrieveOptions, command=True)
def retrieve(
    options: RetrieveOptions,
    dataset: OptionalDataSet = None,
    query: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `tans embed` made of a data set, instead of the data set itself."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page that explains the answer, as one HTML file.")
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Find the pretrained networks to start from for a data set, best first."""
    from tans_core.retrieval.query import Query
    from tans_core.service import Service

    if (dataset is None) == (query is None):
        got = "neither" if query is None else "both"
        raise ParamsError(f"got {got}: want a data set or --query FILE, not both. See `tans retrieve --help`.")
    # Probing has its own progress bar, and Rich cannot draw two live displays at once.
    with nullcontext() if options.refine else stderr().status("looking for networks"):
        service = Service.open(root)
        retrieval = service.retrieve(Query.read(query) if query else str(dataset), options, html)
    if as_json:
        print_json(retrieval.to_dict())
        return
    _show_retrieval(retrieval, dataset or "PATH", options)
    if html is not None:
        stdout().print(f"Explained in {html}", markup=False, highlight=False, soft_wrap=True)


def embed(
    dataset: DataSet,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write, as JSON.")],
    group: Group = None,
    root: Root = None,
) -> None:
    """Write what a search needs of a data set, without its images: `tans retrieve --query` and `tans api` take it."""
    from tans_core import api

    with stderr().status("reading images"):
        query = api.embed(dataset, group=group, root=root)
    query.write(output)
    text = f"{output}: {query.images:,} images as {len(query.statistics):,} numbers, for release {query.release}."
    stdout().print(text, markup=False, highlight=False, soft_wrap=True)
    command = f"Next: tans retrieve --query {shlex.quote(str(output))}"
    stdout().print(command, markup=False, highlight=False, soft_wrap=True)


@takes(FinetuneOptions, command=True)
def finetune(
    dataset: DataSet,
    options: FinetuneOptions,
    progress: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file to append to, as lines of JSON, how far the fine-tuning is."),
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Fine-tune one network on a data set, or the best of several, and keep its weights."""
    from tans_core.service import Service

    run = Service.open(root).finetune(dataset, options, progress=not as_json, progress_file=progress)
    if as_json:
        print_json(run.to_dict())
    else:
        _show_run(run)


def _show_retrieval(found: Retrieval, dataset: str, options: RetrieveOptions) -> None:
    console, probed = stdout(), options.refine > 0
    if found.task is not None:
        _show_data_set(console, found.task, found.scan)
    if found.warning and found.scan is None:  # a scan has this warning among its own
        console.print(f"  warning: {found.warning}", markup=False, highlight=False, soft_wrap=True)
    # Without home accuracy, which hardly predicts the accuracy on other tasks. JSON has it, and the cosine.
    parts = ("score", *(("probe",) if probed else ()), "capacity", "start", "fit")
    timed = ("latency (ms)",) if found and found[0].latency_ms is not None else ()
    numbers = (*parts, "params (M)", "MACs (M)", *timed)
    shown = table("rank", "model", "home task", *numbers, right=("rank", *numbers))
    shown.padding = (0, 1, 0, 0)
    for one in found:
        probe = () if not probed else ("" if one.probe is None else f"{one.probe:.3f}",)
        shown.add_row(
            str(one.rank),
            one.model,
            one.home_task,
            f"{one.score:+.2f}",
            *probe,
            f"{one.capacity:+.2f}",
            f"{one.start:+.2f}",
            f"{one.fit:+.2f}",
            f"{one.params_m:.3f}",
            f"{one.macs_m:.2f}",
            *((f"{one.latency_ms:.2f}",) if timed else ()),
        )
    console.print(shown)
    if found and not probed:
        within = f"four in five true values are within {found[0].plus_minus:.1f} of the score"
        console.print(f"Scores are deviations from a task's mean network; {within}.", highlight=False, soft_wrap=True)
    if found and found[0].trust < LOW_TRUST:
        far = "These images differ from all tasks that the zoo was tried on, so fit has little weight."
        console.print(
            far + (f" --refine {REFINED} runs the first {REFINED} on the images." if not probed else ""),
            highlight=False,
            soft_wrap=True,
        )
    command, then = ["tans", "finetune", dataset], ""
    if options.group is not None:
        command += ["--group", options.group]
    # `finetune` refines by default, and does not choose by cost.
    if found and (probed or options.prefer != "accurate" or options.per_task):
        command += ["--model", found[0].model]
    else:
        command += [part for pair in options.arguments() for part in pair]
        then = f", which runs the first {REFINED} on the images before it takes one"
    closing = f"Saved in {found.folder}. Next: {shlex.join(command)}{then}"
    console.print(closing, markup=False, highlight=False, soft_wrap=True)


def _show_run(run: FinetuneRun) -> None:
    console = stdout()
    _show_data_set(console, run.task, run.scan)
    balanced = ("balanced",) if "val_balanced" in run.curve[0] else ()
    numbers = ("epoch", "training loss", "validation accuracy", *balanced, "seconds")
    shown = table(*numbers, right=numbers)
    for point in run.curve:
        shown.add_row(
            f"{point['epoch']:g}",
            f"{point['train_loss']:.3f}",
            f"{point['val_accuracy']:.3f}",
            *(f"{point['val_balanced']:.3f}" for _ in balanced),
            f"{point['seconds']:.1f}",
        )
    console.print(shown)
    if run.leaderboard:
        _show_leaderboard(console, run)
    by = "best balanced validation accuracy, validation accuracy" if balanced else "best validation accuracy,"
    console.print(
        f"{run.model}: test accuracy [bold]{run.test_accuracy:.3f}[/], with the weights of {by} "
        f"{run.best_val_accuracy:.3f}; {run.seconds:.1f} s.",
        highlight=False,
        soft_wrap=True,
    )
    test = run.test
    console.print(
        f"Its 95 % interval is {test['low']:.3f} to {test['high']:.3f}; each class counting the same: "
        f"{test['balanced_accuracy']:.3f}; always the largest class: {test['majority_share']:.3f}.",
        highlight=False,
        soft_wrap=True,
    )
    if run.warning:
        console.print(f"warning: {run.warning}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {run.folder / 'report.html'}", highlight=False, soft_wrap=True)
    console.print(f"Weights, card and curve: {run.folder}", highlight=False, soft_wrap=True)


def _show_leaderboard(console: Console, run: FinetuneRun) -> None:
    numbers = ("validation accuracy", "epochs", "seconds")
    shown = table("rank", "model", *numbers, "outcome", right=("rank", *numbers))
    for one in run.leaderboard:
        accuracy = "" if one["val_accuracy"] is None else f"{one['val_accuracy']:.3f}"
        figures = (accuracy, f"{one['epochs']:g}", f"{one['seconds']:.1f}")
        shown.add_row(str(one["rank"]), one["model"], *figures, one["outcome"])
    console.print(shown)


def _show_data_set(console: Console, task: TaskInfo, scan: Scanned | None) -> None:
    counts = ", ".join(f"{count} {split}" for split, count in task.counts.items())
    console.print(f"{task.name}: {task.num_classes} classes, {counts} images", highlight=False, soft_wrap=True)
    if scan is not None:
        console.print(scan.summary(), markup=False, highlight=False, soft_wrap=True)
