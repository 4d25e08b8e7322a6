"""`tans models`: the networks in production."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tans_core.cli.console import EXAMPLES, AsJson, Root, print_json, show_fields, stdout, table
from tans_core.options import takes
from tans_core.retrieval.constraints import Constraints

if TYPE_CHECKING:
    from tans_core.zoo.card import ModelCard

models = typer.Typer(help="The networks in production.", no_args_is_help=True, epilog=EXAMPLES["models"])


@models.command("list", epilog=EXAMPLES["models list"])
@takes(Constraints, command=True)
def list_models(
    options: Constraints,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="Only the networks of this home task.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw home accuracy against MACs, with the front, as a PNG."),
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """List the networks in production."""
    from tans_core import api
    from tans_core.errors import UnknownTaskError, did_you_mean

    retriever = api.Service.open(root).retriever
    cards = list(retriever.cards.values())
    homes = {card.home_task for card in cards}
    if task is not None and task not in homes:
        raise UnknownTaskError(
            f"{task!r}: no network has this home task{did_you_mean(task, homes)}. `tans tasks list` shows the tasks."
        )
    chosen = [card for card in retriever.cards_within(options) if task in (None, card.home_task)]
    if plot is not None:
        from tans_core.evaluation.front import draw_front
        from tans_core.evaluation.plots import to_png
        from tans_core.io import atomic_path

        with atomic_path(plot) as temporary:
            temporary.write_bytes(to_png(draw_front(chosen)))
    if as_json:
        print_json([card.to_dict() for card in chosen])
        return
    latencies = retriever.beside(options).get("latency_ms", {})
    timed = ("latency (ms)",) if options.latency_profile else ()
    right = ("classes", "val accuracy", "params (M)", "MACs (M)", *timed)
    rows = table("model", "home task", "licence", *right, right=right)
    for card in chosen:
        accuracy = "-" if card.val_accuracy is None else f"{card.val_accuracy:.3f}"
        numbers = (str(len(card.class_names) or "-"), accuracy, f"{card.params_m:.3f}", f"{card.macs_m:.2f}")
        latency = (f"{latencies[card.id]:.2f}",) if timed else ()
        rows.add_row(card.id, card.home_task, card.licence, *numbers, *latency)
    console = stdout()
    console.print(rows)
    console.print(f"{len(chosen)} of {len(cards)} networks", highlight=False)


@models.command("show", epilog=EXAMPLES["models show"])
def show_model(
    model: Annotated[str, typer.Argument(metavar="ID", help="A network's id.")],
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Show one network's card."""
    from tans_core import api

    card = api.model_card(model, root)
    fields = card.to_dict()
    if not as_json:
        # For people: one line per source and licence, and the terms of licences without an id.
        licences = card.licences
        fields["licences"] = {"code": licences.code, "code, weights and all that these descend from": card.licence}
        fields["lineage"] = "\n".join(_lineage(card))
        if licences.texts:
            fields["terms"] = "\n".join(f"{name}: {text}" for name, text in licences.texts.items())
    show_fields(fields, as_json)


def _lineage(card: ModelCard) -> Iterator[str]:
    names_by_source: dict[tuple[str, str], list[str]] = {}
    for ancestor in card.lineage:
        names_by_source.setdefault((ancestor.source, ancestor.licence), []).append(ancestor.name)
    for (source, licence), names in names_by_source.items():
        yield f"{', '.join(names)} ({source}): {licence}"
