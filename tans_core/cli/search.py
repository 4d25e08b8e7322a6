"""`tans retrieve` and `tans finetune`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from tans_core.cli.console import (
    AsJson,
    DataSet,
    Licence,
    MaxMacs,
    MaxParams,
    Root,
    print_json,
    stderr,
    stdout,
    table,
)

if TYPE_CHECKING:
    from rich.console import Console

    from tans_core.api import FinetuneRun, Retrieval
    from tans_core.dataset import Scanned
    from tans_core.tasks.task import TaskInfo


def retrieve(
    dataset: DataSet,
    max_params_m: MaxParams = None,
    max_macs_m: MaxMacs = None,
    licence: Licence = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="How many networks at most; by default as params.yaml says.")
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Find the pretrained networks to start from for a data set, best first."""
    from tans_core import api

    with stderr().status("looking for networks"):
        found = api.retrieve(
            dataset, max_params_m=max_params_m, max_macs_m=max_macs_m, licences=licence, top_k=top_k, root=root
        )
    if as_json:
        print_json(found.to_dict())
    else:
        _show_retrieval(found, dataset)


def finetune(
    dataset: DataSet,
    model: Annotated[str | None, typer.Option(metavar="ID", help="The network to start from, by its id.")] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="The network of this rank in the retrieval; 1 by default.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="How long; by default as params.yaml says.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the fresh classifier and of the order of the images.")] = 0,
    max_params_m: MaxParams = None,
    max_macs_m: MaxMacs = None,
    licence: Licence = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Fine-tune one network on a data set, and keep its weights."""
    from tans_core import api

    limits = (max_params_m, max_macs_m, licence, rank)
    if model is not None and any(limit is not None for limit in limits):
        raise typer.BadParameter("--model names the network: --rank and constraints have nothing left to choose.")
    run = api.finetune(
        dataset,
        model,
        rank=rank or 1,
        epochs=epochs,
        seed=seed,
        max_params_m=max_params_m,
        max_macs_m=max_macs_m,
        licences=licence,
        root=root,
        progress=not as_json,
    )
    if as_json:
        print_json(run.to_dict())
    else:
        _show_run(run)


def _show_retrieval(found: Retrieval, dataset: str) -> None:
    console = stdout()
    _show_data_set(console, found.task, found.scan)
    numbers = ("score", "similarity", "predicted score", "home accuracy", "params (M)", "MACs (M)")
    shown = table("rank", "model", "home task", *numbers, right=("rank", *numbers))
    for one in found:
        shown.add_row(
            str(one.rank),
            one.model,
            one.home_task,
            f"{one.score:.3f}",
            f"{one.similarity:.3f}",
            f"{one.predicted_score:.3f}",
            f"{one.home_accuracy:.3f}",
            f"{one.params_m:.3f}",
            f"{one.macs_m:.2f}",
        )
    console.print(shown)
    closing = f"Kept in {found.folder}. Next: tans finetune {shlex.quote(dataset)}"
    console.print(closing, markup=False, highlight=False, soft_wrap=True)


def _show_run(run: FinetuneRun) -> None:
    console = stdout()
    _show_data_set(console, run.task, run.scan)
    shown = table(
        "epoch", "training loss", "validation accuracy", "seconds", right=("epoch", "training loss", "seconds")
    )
    shown.columns[2].justify = "right"
    for point in run.curve:
        shown.add_row(
            f"{point['epoch']:g}",
            f"{point['train_loss']:.3f}",
            f"{point['val_accuracy']:.3f}",
            f"{point['seconds']:.1f}",
        )
    console.print(shown)
    console.print(
        f"{run.model}: test accuracy [bold]{run.test_accuracy:.3f}[/], by the weights that reached "
        f"{run.best_val_accuracy:.3f} on validation; {run.seconds:.1f} s.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Weights, card and curve: {run.folder}", highlight=False, soft_wrap=True)


def _show_data_set(console: Console, task: TaskInfo, scan: Scanned | None) -> None:
    counts = ", ".join(f"{count} {split}" for split, count in task.counts.items())
    console.print(f"{task.name}: {task.num_classes} classes, {counts} images", highlight=False, soft_wrap=True)
    if scan is not None:
        console.print(scan.summary(), markup=False, highlight=False, soft_wrap=True)
