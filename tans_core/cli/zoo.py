"""`tans zoo`: adds, removes, verifies and times the networks of the zoo."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tans_core.cli.catalogue import list_models, show_model
from tans_core.cli.console import EXAMPLES, AsJson, Root, print_json, stderr, stdout, table

zoo = typer.Typer(
    help="Add, remove, verify and time the networks of the zoo.",
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
    name: Annotated[str, typer.Argument(metavar="NAME", help="The network's name in its package.")],
    weights: Annotated[
        Path, typer.Option(metavar="FILE", help="Its weights: safetensors, or a file of tensors from torch.save.")
    ],
    package: Annotated[Package, typer.Option(help="The package of the network.")] = Package.TIMM,
    home_task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="The task that the classifier in the weights is for; by default only features are added.",
        ),
    ] = None,
    size_px: Annotated[
        int | None, typer.Option(min=8, max=1024, help="Side of its input; by default that of the package.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="SPDX", help="Licence of the weights, or their terms in words.")
    ] = None,
    images: Annotated[str, typer.Option(help="Its training images, unless --home-task is given.")] = "ImageNet-1k",
    images_licence: Annotated[
        str, typer.Option(metavar="SPDX", help="Licence of these images.")
    ] = "LicenseRef-imagenet-terms",
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Add a network of timm or torchvision, with weights from a file, to the networks in production."""
    from tans_core import api
    from tans_core.licences import normalise, suggest
    from tans_core.service import Service

    for words in (licence or "", images_licence):
        if (stated := normalise(words)).texts:
            said = f"licence: no SPDX expression{suggest(words)}. The card keeps your words as {stated.expression}."
            stderr().print(said, markup=False, highlight=False, soft_wrap=True)
    description = {"size_px": size_px, "licence": licence, "images": images, "images_licence": images_licence}
    card = api.add_network(str(package), name, weights, home_task=home_task, root=root, **description)  # type: ignore[arg-type]
    if as_json:
        print_json(card.to_dict())
        return
    stdout().print(f"{card.id}: {name} of {package}, now in production.", highlight=False)
    side, stored = card.preprocess.image_size_px, Service.open(root).release.params["data"]["stored_size_px"]
    if side > stored:
        stdout().print(
            f"It takes images of {side} pixels. Images are kept at {stored} at most (data.stored_size_px in "
            "params.yaml), so it will see enlarged ones.",
            highlight=False,
            soft_wrap=True,
        )


@zoo.command("admit", epilog=EXAMPLES["zoo admit"])
def admit(
    again: Annotated[bool, typer.Option("--again", help="Admit also what was rolled back.")] = False,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Admit the newcomers in the inbox; move those that are refused to quarantine."""
    from tans_core import api

    outcome = api.admit(root, again=again)
    decisions = {"admitted": {name: one.id for name, one in outcome.admitted.items()}, "refused": outcome.refused}
    if as_json:
        print_json({**decisions, "release": outcome.release})
        return
    from tans_core.text import shown

    # The names of entries may contain control sequences for a terminal.
    rows = table("entry", "became")
    for entry, model in decisions["admitted"].items():
        rows.add_row(escape(shown(entry)), model)
    for entry, reason in decisions["refused"].items():
        rows.add_row(escape(shown(entry)), escape(f"quarantine: {shown(reason)}"))
    console = stdout()
    console.print(rows)
    console.print(
        f"{len(outcome.admitted)} admitted, {len(outcome.refused)} in quarantine", highlight=False, markup=False
    )


@zoo.command("remove", epilog=EXAMPLES["zoo remove"])
def remove(
    model: Annotated[list[str], typer.Argument(metavar="ID", help="Admitted newcomers.")],
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Take admitted newcomers out of service, and move them from data/ to quarantine."""
    from tans_core import api

    release = api.remove_networks(model, root)
    if as_json:
        print_json({"removed": model, "release": release})
        return
    stdout().print(f"{len(model)} removed; release {release} serves without them.", highlight=False)


@zoo.command("verify", epilog=EXAMPLES["zoo verify"])
def verify(as_json: AsJson = False, root: Root = None) -> None:
    """Check each stored weights file against its recorded hash. The exit code is 7 if one differs."""
    from tans_core import api
    from tans_core.errors import WeightsError

    findings = api.verify(root)
    damaged = [finding for finding in findings if finding.problem]
    if as_json:
        print_json({"files": len(findings), "damaged": {finding.path: finding.problem for finding in damaged}})
    else:
        for finding in damaged:
            stdout().print(f"{finding.path}: {finding.problem}", markup=False, highlight=False, soft_wrap=True)
        stdout().print(f"{len(findings)} files, {len(damaged)} damaged", highlight=False)
    if damaged:
        raise typer.Exit(WeightsError.exit_code)


@zoo.command("profile", epilog=EXAMPLES["zoo profile"])
def profile(
    model: Annotated[list[str] | None, typer.Argument(metavar="ID", help="The networks; all by default.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Images per batch.")] = 1,
    threads: Annotated[int, typer.Option(min=1, max=256, help="CPU threads.")] = 1,
    device: Annotated[Device, typer.Option(help="The device to run on.")] = Device.AUTO,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Time networks on this machine: median and spread, stored by device, threads and batch size."""
    from tans_core import api

    conditions, latencies, path = api.profile_networks(
        model or (), batch=batch, threads=threads, device=str(device), root=root
    )
    if as_json:
        networks = {name: latency.model_dump() for name, latency in latencies.items()}
        print_json(
            {"name": conditions.name, "profile": conditions.model_dump(), "networks": networks, "file": str(path)}
        )
        return
    numbers = ("input (px)", "median (ms)", "quartiles apart (ms)", "runs")
    rows = table("model", *numbers, right=numbers)
    for name, latency in sorted(latencies.items(), key=lambda item: (item[1].median_ms, item[0])):
        rows.add_row(
            name, str(latency.image_size_px), f"{latency.median_ms:.2f}", f"{latency.iqr_ms:.2f}", str(latency.runs)
        )
    console = stdout()
    console.print(rows, markup=False)
    console.print(
        f"{conditions.name}: {conditions.processor}, torch {conditions.torch}; kept in {path}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
