"""All commands of `tans` by group. Nothing here imports torch, so `tans --help` is fast."""

from __future__ import annotations

import logging
import os

import typer

from tans_core.cli import api, benchmark, catalogue, pipeline, scan, search, space, tasks, upkeep, use, zoo
from tans_core.cli.console import EXAMPLES, examples
from tans_core.imports import import_lightning_lightly, import_without_init
from tans_core.runtime import collect_rarely

app = typer.Typer(
    name="tans",
    help="Which pretrained network should I start from for this data set, within these limits?",
    epilog=examples(
        ("tans retrieve photos/ --max-params-m 0.5", "the networks to start from, for a folder of class folders"),
        ("tans finetune photos/", "fine-tune the best of them, and keep its weights"),
        ("tans build && tans publish", "build the zoo and index that params.yaml describes, and serve from them"),
    ),
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_SEARCH, _PROJECT, _CATALOGUE = "Use the zoo", "Build and serve it", "Inspect it"


@app.callback()
def setup() -> None:
    collect_rarely()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # Lance announces each table that does not exist yet; the variable must be set before it is imported.
    os.environ.setdefault("LANCEDB_LOG", "error")
    # Half of importing it goes into the client of a server for tables, which nothing here uses.
    import_without_init("lance_namespace_urllib3_client")
    import_lightning_lightly()


for command, panel in (
    (search.retrieve, _SEARCH),
    (search.finetune, _SEARCH),
    (use.predict, _SEARCH),
    (use.export, _SEARCH),
    (search.embed, _SEARCH),
    (upkeep.contribute, _SEARCH),
    (pipeline.build, _PROJECT),
    (pipeline.publish, _PROJECT),
    (pipeline.rollback, _PROJECT),
    (pipeline.releases, _PROJECT),
    (upkeep.prune, _PROJECT),
    (pipeline.serve, _PROJECT),
    (api.api, _PROJECT),
):
    app.command(rich_help_panel=panel, epilog=EXAMPLES[command.__name__])(command)
tasks.tasks.command("scan", epilog=EXAMPLES["tasks scan"])(scan.scan_path)
app.add_typer(tasks.tasks, name="tasks", rich_help_panel=_CATALOGUE)
app.add_typer(catalogue.models, name="models", rich_help_panel=_CATALOGUE)
app.add_typer(zoo.zoo, name="zoo", rich_help_panel=_CATALOGUE)
app.add_typer(space.space, name="space", rich_help_panel=_CATALOGUE)
app.command("benchmark", rich_help_panel=_CATALOGUE, epilog=benchmark.EXAMPLES)(benchmark.benchmark)
app.command(rich_help_panel=_CATALOGUE, epilog=EXAMPLES["version"])(pipeline.version)
