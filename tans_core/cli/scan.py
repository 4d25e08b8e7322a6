"""`tans tasks scan`: report the images of a path, whether they can be used, and write an HTML page."""

from __future__ import annotations

from typing import Annotated

import typer

from tans_core.cli.console import AsJson, Group, Root, print_json, stderr, stdout


def scan_path(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A folder of class folders (train/, val/, test/ above them are kept), a zip or tar of one, a CSV of "
            "paths and labels, a Parquet file with images, or a folder of Parquet files.",
        ),
    ],
    save: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep the images as a task of this name, for retrieve and finetune."),
    ] = None,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Open at most so many files, evenly over classes; all by default.")
    ] = None,
    drop_empty_classes: Annotated[
        bool,
        typer.Option("--drop-empty-classes", help="Leave out classes without a usable image, instead of stopping."),
    ] = False,
    follow_links: Annotated[
        bool,
        typer.Option(
            "--follow-links",
            help="Follow links that lead outside PATH, each file and folder once; by default they are only counted.",
        ),
    ] = False,
    group: Group = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Read and check every image: classes, bad files, copies, near-copies, leaks. Write scan.json and scan.html."""
    from tans_core import api
    from tans_core.views.summary import summary

    run = api.scan(
        path,
        save=save,
        max_images=max_images,
        drop_empty_classes=drop_empty_classes,
        follow_links=follow_links,
        group=group,
        root=root,
    )
    if as_json:
        print_json(run.to_dict())
    else:
        console = stdout()
        console.print(summary(run.scanned.report), markup=False, highlight=False, soft_wrap=True)
        for warning in run.scanned.verdict.warnings:
            console.print(f"  warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"  page: {run.folder / 'scan.html'}", markup=False, highlight=False, soft_wrap=True)
        if run.task is not None:
            console.print(f"Saved as task {run.task.name}. Next: tans retrieve {run.task.name}", highlight=False)
    if not run.passed:
        stderr().print("The gate refuses these images:", style="bold")
    run.scanned.verdict.raise_on_failure(run.folder / "scan.html")
