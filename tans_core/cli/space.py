"""`tans space`: the cross-modal space, and fitting one to the files that the TANS authors published."""

from __future__ import annotations

import typer

from tans_core.cli import space_ablate, space_drift, space_fit, space_import, space_map
from tans_core.cli.console import examples

space = typer.Typer(
    help="The cross-modal space of tasks and networks.",
    no_args_is_help=True,
    epilog=examples(
        ("tans space import --zoo p_mod_zoo.pt --queries p_m_train.pt", "the files that the TANS authors published"),
        ("tans space fit", "fit a space to them"),
    ),
)


@space.callback()
def setup() -> None:
    """The cross-modal space of tasks and networks."""


space.command("import", epilog=space_import.EXAMPLES)(space_import.import_files)
space.command("fit", epilog=space_fit.EXAMPLES)(space_fit.fit)
space.command("show", epilog=space_map.EXAMPLES)(space_map.show)
space.command("drift", epilog=space_drift.EXAMPLES)(space_drift.drift)
space.command("ablate", epilog=space_ablate.EXAMPLES)(space_ablate.ablate)
