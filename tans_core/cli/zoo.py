"""`tans zoo`: networks that come and go, and whether those that are here are as they should be."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tans_core.cli.catalogue import list_models, show_model
from tans_core.cli.console import EXAMPLES, AsJson, Root, print_json, stdout, table

zoo = typer.Typer(
    help="Networks that come and go, and whether all are as they should be.",
    no_args_is_help=True,
    epilog=EXAMPLES["zoo"],
)
zoo.command("list", epilog=EXAMPLES["models list"])(list_models)
zoo.command("show", epilog=EXAMPLES["models show"])(show_model)


class Package(StrEnum):
    TIMM = "timm"
    TORCHVISION = "torchvision"


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@zoo.command("add", epilog=EXAMPLES["zoo add"])
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The network, as its package calls it.")],
    weights: Annotated[
        Path, typer.Option(metavar="FILE", help="Its weights: safetensors, or a file of tensors that torch wrote.")
    ],
    package: Annotated[Package, typer.Option(help="Where the network is from.")] = Package.TIMM,
    home_task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="The task whose classifier the weights have; by default they are features."),
    ] = None,
    size_px: Annotated[
        int | None, typer.Option(min=8, max=1024, help="Side of its input; by default as the package says.")
    ] = None,
    licence: Annotated[str | None, typer.Option(metavar="SPDX", help="Licence of the weights.")] = None,
    images: Annotated[str, typer.Option(help="What they were trained on, without --home-task.")] = "ImageNet-1k",
    images_licence: Annotated[
        str, typer.Option(metavar="SPDX", help="Licence of these images.")
    ] = "LicenseRef-imagenet-terms",
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Add a network of timm or torchvision, with weights from a file, to those that are served."""
    from tans_core import api

    said = {"size_px": size_px, "licence": licence, "images": images, "images_licence": images_licence}
    card = api.add_network(str(package), name, weights, home_task=home_task, root=root, **said)  # type: ignore[arg-type]
    if as_json:
        print_json(card.to_dict())
        return
    stdout().print(f"{card.id}: {name} of {package}, from now on among those that answer.", highlight=False)


@zoo.command("admit", epilog=EXAMPLES["zoo admit"])
def admit(as_json: AsJson = False, root: Root = None) -> None:
    """Admit the newcomers that wait in the inbox, and put those that cannot be into quarantine."""
    from tans_core import api

    outcome = api.admit(root)
    told = {"admitted": {name: one.id for name, one in outcome.admitted.items()}, "refused": outcome.refused}
    if as_json:
        print_json({**told, "release": outcome.release, "withheld": outcome.withheld})
        return
    from tans_core.tasks.report import shown

    # Entries may be named to steer a terminal.
    rows = table("entry", "became")
    for entry, model in told["admitted"].items():
        rows.add_row(escape(shown(entry)), model)
    for entry, reason in told["refused"].items():
        rows.add_row(escape(shown(entry)), escape(f"quarantine: {shown(reason)}"))
    console = stdout()
    console.print(rows)
    if outcome.withheld:
        console.print(f"Serving stays as it is: {outcome.withheld}", markup=False, highlight=False)
    console.print(
        f"{len(outcome.admitted)} admitted, {len(outcome.refused)} in quarantine", highlight=False, markup=False
    )


@zoo.command("remove", epilog=EXAMPLES["zoo remove"])
def remove(
    model: Annotated[list[str], typer.Argument(metavar="ID", help="Newcomers that were admitted.")],
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Take admitted newcomers out of service, and from data/arrivals to quarantine."""
    from tans_core import api

    release = api.remove_networks(model, root)
    if as_json:
        print_json({"removed": model, "release": release})
        return
    stdout().print(f"{len(model)} removed; release {release} serves without.", highlight=False)


@zoo.command("verify", epilog=EXAMPLES["zoo verify"])
def verify(as_json: AsJson = False, root: Root = None) -> None:
    """Hold each stored file of weights against the hash that was kept of it. Ends with 5 where one differs."""
    from tans_core import api
    from tans_core.errors import WeightsError

    findings = api.verify(root)
    damaged = [one for one in findings if one.problem]
    if as_json:
        print_json({"files": len(findings), "damaged": {one.path: one.problem for one in damaged}})
    else:
        for one in damaged:
            stdout().print(f"{one.path}: {one.problem}", markup=False, highlight=False, soft_wrap=True)
        stdout().print(f"{len(findings)} files, {len(damaged)} damaged", highlight=False)
    if damaged:
        raise typer.Exit(WeightsError.exit_code)


@zoo.command("profile", epilog=EXAMPLES["zoo profile"])
def profile(
    model: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Networks; by default all.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Images at a time.")] = 1,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of the processor.")] = 1,
    device: Annotated[Device, typer.Option(help="Where they run.")] = Device.AUTO,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Time networks on this machine: median and spread, kept under the name of what they were timed with."""
    from tans_core import api

    made, found, path = api.profile_networks(model or (), batch=batch, threads=threads, device=str(device), root=root)
    if as_json:
        networks = {name: one.model_dump() for name, one in found.items()}
        print_json({"name": made.name, "profile": made.model_dump(), "networks": networks, "file": str(path)})
        return
    numbers = ("input (px)", "median (ms)", "quartiles apart (ms)", "runs")
    shown = table("model", *numbers, right=numbers)
    for name, one in sorted(found.items(), key=lambda item: (item[1].median_ms, item[0])):
        shown.add_row(name, str(one.image_size_px), f"{one.median_ms:.2f}", f"{one.iqr_ms:.2f}", str(one.runs))
    console = stdout()
    console.print(shown, markup=False)
    console.print(
        f"{made.name}: {made.processor}, torch {made.torch}; kept in {path}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
