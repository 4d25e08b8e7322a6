"""`tans tasks` and `tans models`: what the project knows."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from tans_core.cli.console import EXAMPLES, AsJson, MaxParams, Root, print_json, stdout, table

tasks = typer.Typer(help="The tasks of the project.", no_args_is_help=True, epilog=EXAMPLES["tasks"])
models = typer.Typer(help="The networks in production.", no_args_is_help=True, epilog=EXAMPLES["models"])


class Role(StrEnum):
    """What a task is for."""

    META_TRAIN = "meta-train"
    META_TEST = "meta-test"


@tasks.command("list", epilog=EXAMPLES["tasks list"])
def list_tasks(
    role: Annotated[Role | None, typer.Option(help="Only the tasks of this role.")] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """List the tasks that were built."""
    from tans_core import api

    found = [info for info in api.list_tasks(root) if role is None or info.role == role]
    if as_json:
        print_json([asdict(info) for info in found])
        return
    shown = table(
        *("task", "role", "source", "licence", "classes", "train", "val", "test"),
        right=("classes", "train", "val", "test"),
    )
    for info in found:
        counts = [str(info.counts.get(split, 0)) for split in ("train", "val", "test")]
        shown.add_row(info.name, info.role, info.source, info.licence, str(info.num_classes), *counts)
    stdout().print(shown if found else "no task is built yet: `tans build`")


@tasks.command("show", epilog=EXAMPLES["tasks show"])
def show_task(
    name: Annotated[str, typer.Argument(metavar="TASK", help="A task's name.")],
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Show one task: its classes, counts, source and licence."""
    from tans_core import api
    from tans_core.errors import UnknownTaskError, did_you_mean

    known = {info.name: info for info in api.list_tasks(root)}
    if name not in known:
        raise UnknownTaskError(f"{name!r}: no such task{did_you_mean(name, known)}. `tans tasks list` shows them.")
    _show(asdict(known[name]), as_json)


@models.command("list", epilog=EXAMPLES["models list"])
def list_models(
    task: Annotated[str | None, typer.Option(metavar="TASK", help="Only the networks of this home task.")] = None,
    max_params_m: MaxParams = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """List the networks in production."""
    from tans_core import api
    from tans_core.errors import UnknownTaskError, did_you_mean

    cards = api.list_models(root)
    homes = {card.home_task for card in cards}
    if task is not None and task not in homes:
        raise UnknownTaskError(f"{task!r}: no network has this home task{did_you_mean(task, homes)}.")
    chosen = [
        card
        for card in cards
        if (task is None or card.home_task == task) and (max_params_m is None or card.params_m <= max_params_m)
    ]
    if as_json:
        print_json([card.to_dict() for card in chosen])
        return
    shown = table(
        *("model", "home task", "licence", "classes", "val accuracy", "params (M)", "MACs (M)"),
        right=("classes", "val accuracy", "params (M)", "MACs (M)"),
    )
    for card in chosen:
        numbers = (f"{card.val_accuracy:.3f}", f"{card.params_m:.3f}", f"{card.macs_m:.2f}")
        shown.add_row(card.id, card.home_task, card.licence, str(len(card.class_names)), *numbers)
    console = stdout()
    console.print(shown)
    console.print(f"{len(chosen)} of {len(cards)} networks", highlight=False)


@models.command("show", epilog=EXAMPLES["models show"])
def show_model(
    model: Annotated[str, typer.Argument(metavar="ID", help="A network's id.")],
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Show one network's card."""
    from tans_core import api

    _show(api.model_card(model, root).to_dict(), as_json)


def _show(fields: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(fields)
        return
    shown = table("", "")
    shown.show_header = False
    for key, value in fields.items():
        if isinstance(value, tuple | list):
            text = ", ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value)
        elif isinstance(value, dict):
            text = ", ".join(f"{name}: {item}" for name, item in value.items())
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
        shown.add_row(key.replace("_", " "), text)
    stdout().print(shown, markup=False)
