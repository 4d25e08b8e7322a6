"""`tans predict` and `tans export`: a fine-tuned network in use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tans_core.cli.console import AsJson, Root, print_json, reader_gone, stderr, stdout, table
from tans_core.errors import ParamsError

if TYPE_CHECKING:
    from tans_core.use.predictions import Predictions

_SHOWN = 50

Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The folder of a run of `tans finetune`, or its name in runs/ of the project."),
]


def predict(
    run: Run,
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES|TASK",
            help="An image, a folder, zip or tar of any layout, a CSV of paths, or Parquet files; without labels or "
            "with. Or the name of a task of the project.",
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="Only the images that were in this split of the run: train, val or test. On the run's data set, test "
            "gives the reported test accuracy.",
        ),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV and nothing else on stdout: a row an image, a column a class.")
    ] = False,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Predict the classes of images with a fine-tuned network, with calibrated probabilities."""
    from tans_core import api

    if as_json and as_csv:
        raise ParamsError("--json and --csv: both print on stdout. Choose one.")
    found = api.predict(run, images, split=split, root=root)
    if as_json:
        print_json(found.to_dict())
    elif as_csv:
        try:
            found.to_frame().to_csv(sys.stdout, index=False, float_format="%.6f", lineterminator="\n")
            sys.stdout.flush()
        except BrokenPipeError:
            reader_gone()
    else:
        _show(found)
    if found.unreadable:
        stderr().print(f"{found.unreadable:,} of {len(found):,} images could not be read.", highlight=False)


def export(
    run: Run,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="onnx; torch (a program of torch.export, .pt2); or hf (a folder in the style of Hugging Face).",
        ),
    ] = "onnx",
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="What to write, for hf a folder; by default in export/ of RUN.")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(metavar="IMAGES", help="Images to compare on; by default those that the run keeps."),
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Export a fine-tuned network, and check that it answers as before."""
    from tans_core import api

    with stderr().status(f"exporting to {form}"):
        written = api.export(run, form, out=out, images=images, root=root)
    if as_json:
        print_json({"path": str(written.path), "card": str(written.card), **written.content})
        return
    parity, console = written.content["parity"], stdout()
    most = max(parity["batch_1"]["logits"], parity["batch_32"]["logits"])
    checked = f"logits differ by at most {most:.1e} on {parity['images']} images, one at a time and in batches of 32."
    console.print(f"Wrote {written.path}: {checked}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Its card: {written.card}", markup=False, highlight=False, soft_wrap=True)


def _show(found: Predictions) -> None:
    from tans_core.text import shown

    console = stdout()
    judged = found.judged > 0
    columns = ("image", "class", "probability", *(("truth",) if judged else ()))
    rows = table(*columns, right=("probability",))
    for one in found[:_SHOWN]:
        answer = (f"not read: {one.error}", "") if one.error else (one.label or "", f"{one.probability:.3f}")
        # Names of files and classes come from outside.
        rows.add_row(*(escape(shown(cell)) for cell in (one.name, *answer, *((one.truth or "",) if judged else ()))))
    console.print(rows)
    if len(found) > _SHOWN:
        more = f"and {len(found) - _SHOWN:,} more; --csv and --json print all."
        console.print(more, markup=False, highlight=False)
    for reason, count in found.skipped.items():
        console.print(f"  left out: {count:,} x {reason}", markup=False, highlight=False, soft_wrap=True)
    if found.missing:
        console.print(f"  not found: {found.missing:,} images of this split of the run", markup=False, highlight=False)
    if found.accuracy is not None:
        console.print(f"Accuracy {found.accuracy:.3f} on {found.judged:,} images of known class.", highlight=False)
