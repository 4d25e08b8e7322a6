"""`tans space drift`: measure how far newcomers lie from the networks that the space was made from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tans_core.cli.console import AsJson, Root, examples, print_json, stderr, stdout, table

EXAMPLES = examples(
    ("tans space drift", "the newcomers in production, farthest first, and whether to retrain"),
    ("tans space drift --max-share 0.3 --json", "retrain sooner; as JSON"),
)


def drift(
    max_share: Annotated[
        float, typer.Option(min=0, max=1, help="The share of far newcomers above which to retrain.")
    ] = 0.5,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Report how far the newcomers in production lie from the networks of the space, and whether to retrain."""
    from rich.markup import escape

    from tans_core.index.releases import open_production
    from tans_core.project import find_root
    from tans_core.retrieval.placement import measure_drift
    from tans_core.space.drift import judge_drift

    release = open_production(find_root(root) / "serving")
    with stderr().status("measuring the newcomers"):
        drifts = sorted(measure_drift(release), key=lambda one: (-one.quantile, -one.distance, one.id))
    verdict = judge_drift(drifts, max_share)
    if as_json:
        rows = [{**asdict(one), "far": one.far} for one in drifts]
        print_json({"release": release.id, "newcomers": rows, "verdict": asdict(verdict)})
        return
    if drifts:
        numbers = ("quantile", "distance", "new slots")
        shown = table("newcomer", "home task", *numbers, "far", right=numbers)
        for one in drifts:
            home = escape(one.home_task) + ("" if one.home_known else " [dim](new)[/]")
            figures = (f"{one.quantile:.2f}", f"{one.distance:.2f}", str(one.new_slots))
            shown.add_row(escape(one.id), home, *figures, "yes" if one.far else "")
        stdout().print(shown)
    stdout().print(verdict.in_words(), markup=False, highlight=False, soft_wrap=True)
