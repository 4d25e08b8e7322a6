"""Shared parts of the commands: consoles, common options, and the examples of the help pages."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tans_core.errors import TansError
from tans_core.options import GROUP_HELP

# The exit code that a shell reports for a program that a closed pipe ended.
_READER_GONE = 141
# Characters that json does not escape but terminals interpret: C1 controls, and marks of the writing direction.
_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Without a terminal Rich assumes 80 columns, which would cut ids.
_PIPE_WIDTH = 200

Root = Annotated[
    Path | None,
    typer.Option(help="The project's folder; by default the nearest one with params.yaml, from here upwards."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]
Group = Annotated[str | None, typer.Option(metavar="COLUMN", help=GROUP_HELP)]
_DATA_SET = typer.Argument(
    metavar="PATH|TASK",
    help="A folder with one folder of images per class, a zip or tar of one, a CSV of paths and labels, Parquet "
    "files, or a task of the project (`tans tasks list`).",
)
DataSet = Annotated[str, _DATA_SET]
OptionalDataSet = Annotated[str | None, _DATA_SET]


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        reader_gone()


def stdout() -> Console:
    """Return a new console on stdout, so that it uses the current `sys.stdout`."""
    return _Stdout(width=None if sys.stdout.isatty() else shutil.get_terminal_size((_PIPE_WIDTH, 50)).columns)


def stderr() -> Console:
    return Console(stderr=True)


def print_json(value: Any) -> None:
    """Write indented JSON to stdout, without colour or wrapping."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    try:
        sys.stdout.write(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        reader_gone()


def reader_gone() -> NoReturn:
    """Exit quietly because the reader of stdout closed the pipe. The rest of the buffer is discarded."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(_READER_GONE)


def print_error(error: TansError) -> None:
    """Print an error's class and message on stderr, without a stack trace."""
    from tans_core.text import shown

    # Messages contain file names, and these may contain control characters of a terminal.
    text = "\n".join(map(shown, str(error).split("\n")))
    stderr().print(f"[bold red]{type(error).__name__}[/]: {escape(text)}", highlight=False, soft_wrap=True)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Make a table with a header line; the columns in `right` hold numbers."""
    made = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def show_fields(fields: dict[str, object], as_json: bool) -> None:
    """Print names and values, one per line, or as JSON."""
    if as_json:
        print_json(fields)
        return
    from tans_core.text import shown

    rows = table("", "")
    rows.show_header = False
    for key, value in fields.items():
        if isinstance(value, tuple | list):
            text = ", ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value)
        elif isinstance(value, dict):
            text = ", ".join(f"{name}: {item}" for name, item in value.items())
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
        rows.add_row(key.replace("_", " "), "\n".join(escape(shown(line)) for line in text.split("\n")))
    stdout().print(rows, markup=False)


def examples(*rows: tuple[str, str]) -> str:
    """Format commands, each below its description, for the end of a help page."""
    lines = [f"  [dim]# {escape(purpose)}[/]\n  [cyan]{escape(command)}[/]" for command, purpose in rows]
    return "\n".join(["[bold]Examples[/]", *lines])


EXAMPLES = {
    "retrieve": examples(
        ("tans retrieve photos/", "ten networks for a folder of class folders"),
        ("tans retrieve photos/ --max-params-m 0.5 --max-macs-m 10", "small and cheap ones"),
        ("tans retrieve photos/ --licence MIT", "those under MIT, with all that their weights descend from"),
        ("tans retrieve animals --top-k 3 --json", "for a task of the project, as JSON"),
        ("tans retrieve --query query.json", "for what `tans embed` made of a data set"),
    ),
    "finetune": examples(
        ("tans finetune photos/", "the best network that `tans retrieve photos/` finds"),
        ("tans finetune photos/ --rank 2 --max-macs-m 5", "the second best within a limit"),
        ("tans finetune animals --model elastic.optdigits.001 --epochs 3", "the named network, for three epochs"),
    ),
    "contribute": examples(
        ("tans contribute runs/2026-11-29T10-15-30-finetune-3fa2b1 --licence CC-BY-4.0", "images under CC-BY-4.0"),
        ('tans contribute 2026-11-29T10-15-30-finetune-3fa2b1 --licence "For use inside Acme only"', "terms in words"),
    ),
    "embed": examples(
        ("tans embed photos/ -o query.json", "a file that names no image, for a search elsewhere"),
        ("tans retrieve --query query.json --max-params-m 0.5", "the same answer as for photos/"),
    ),
    "predict": examples(
        ("tans predict runs/2026-11-30T10-15-02-finetune-1a2b3c new/", "the class of each image of a folder"),
        ("tans predict runs/2026-11-30T10-15-02-finetune-1a2b3c new.zip --csv > new.csv", "every probability, as CSV"),
        ("tans predict runs/2026-11-30T10-15-02-finetune-1a2b3c photos/ --split test", "the reported test accuracy"),
    ),
    "export": examples(
        ("tans export runs/2026-11-30T10-15-02-finetune-1a2b3c", "export/model.onnx in the run, with its card"),
        ("tans export runs/2026-11-30T10-15-02-finetune-1a2b3c --format hf --out leaves", "a folder for a hub"),
    ),
    "build": examples(
        ("tans build", "everything that params.yaml describes, where something changed"),
        ("tans build index", "one stage, and the stages that it depends on"),
        ("tans build --profile full", "the large zoo: apply profiles/full.yaml to params.yaml, then build"),
    ),
    "publish": examples(
        ("tans publish", "serve what `tans build` built"),
        ("tans publish --again", "even if it was rolled back"),
    ),
    "rollback": examples(
        ("tans rollback", "go back to the release before"),
        ("tans rollback --to 20261129T101530-1a2b3c4d5e6f", "go back to a release that `tans releases` lists"),
    ),
    "releases": examples(("tans releases", "all releases, and which one is in production")),
    "prune": examples(
        ("tans prune --dry-run", "what would be removed, and how much space that frees"),
        ("tans prune --keep 2 --days 7", "keep two releases to return to, and whatever is younger than a week"),
    ),
    "serve": examples(
        ("tans serve", "a Prefect server on loopback, and the flows of this project; Ctrl-C ends both"),
    ),
    "api": examples(
        ("tans api", "on loopback, port 8000: curl http://127.0.0.1:8000/health/ready"),
        ("tans api --host 0.0.0.0 --token-file token.txt", "for other machines, which must send the token"),
        ("tans api --port 0 --max-mb 100 --at-once 1", "a free port, small uploads, one at a time"),
    ),
    "tasks": examples(
        ("tans tasks list --role meta-test", "the tasks that no network has seen"),
        ("tans tasks show animals", "classes, counts, source and licence of one"),
        ("tans tasks add photos/leaves --name leaves", "your own images, as a task whose networks join the zoo"),
    ),
    "tasks list": examples(
        ("tans tasks list --role meta-test", "the tasks that no network has seen"),
        ("tans tasks list --sources", "all sources of tasks, and what each still needs"),
    ),
    "tasks show": examples(
        ("tans tasks show animals", "classes, counts, source and licence, and a sheet of its images")
    ),
    "tasks scan": examples(
        ("tans tasks scan photos/", "a report on a folder of class folders, with an HTML page"),
        ("tans tasks scan photos.zip --save leaves", "an archive, kept as task 'leaves' for retrieve and finetune"),
        ("tans tasks scan photos/ --follow-links", "a folder of links to images in other folders"),
        ("tans tasks scan labels.csv --max-images 5000 --json", "a table of paths and labels: a sample, as JSON"),
    ),
    "tasks add": examples(
        ("tans tasks add photos/leaves --name leaves --licence CC-BY-4.0", "a task whose networks join the zoo"),
        ("tans tasks add leaves.zip --name leaves --role meta-test", "an archive, held out to test on"),
        ("tans tasks add photos/leaves --name leaves --replace", "the same folder, after it changed"),
    ),
    "tasks remove": examples(("tans tasks remove leaves", "remove a task; `tans build` then leaves it out")),
    "models": examples(
        ("tans models list --task optdigits", "the networks of one home task"),
        ("tans models show elastic.optdigits.001", "one network's card"),
    ),
    "models list": examples(
        ("tans models list --task optdigits", "the networks of one home task"),
        ("tans models list --task optdigits --plot front.png", "also as a picture: accuracy against cost"),
    ),
    "models show": examples(("tans models show elastic.optdigits.001 --json", "one network's card, as JSON")),
    "zoo": examples(
        ("tans zoo add resnet18 --package torchvision --weights resnet18.pth", "a network of a library"),
        ("tans zoo verify", "check that all stored weights are unchanged"),
        ("tans zoo profile --batch 8", "how long each network takes on this machine"),
    ),
    "zoo add": examples(
        ("tans zoo add mobilenetv3_large_100 --weights model.safetensors --size-px 96", "features for any data set"),
        ("tans zoo add resnet18 --package torchvision --weights leaves.pth --home-task leaves", "with its classifier"),
    ),
    "zoo admit": examples(
        ("tans zoo admit", "do now what the flow zoo-refresh does every few minutes"),
        ("tans zoo admit --again", "even what was rolled back"),
    ),
    "zoo remove": examples(("tans zoo remove arrival-0123456789abcdef", "take it out of service at once")),
    "zoo verify": examples(("tans zoo verify --json", "every stored file of weights, and which are damaged")),
    "zoo profile": examples(
        ("tans zoo profile", "all networks, one image at a time, on one thread"),
        ("tans zoo profile efficientnet-lite0.64 --batch 32 --threads 4", "one network in batches, on four threads"),
    ),
    "version": examples(("tans version", "the version of TANS")),
}
