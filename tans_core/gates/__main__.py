"""`python -m tans_core.gates`: run every gate again; with `--data-docs`, write the pages of great-expectations too.

These pages load styles and scripts from the network, so our reports do not use them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tans_core.errors import GateError, TansError
from tans_core.gates import expect
from tans_core.gates.embeddings import embeddings_checks
from tans_core.gates.index import index_checks
from tans_core.gates.runner import REPORTS, Check, run_gate, validate
from tans_core.gates.tasks import task_checks
from tans_core.gates.transfer import transfer_checks
from tans_core.gates.zoo import zoo_checks
from tans_core.io import write_text
from tans_core.params import load_params

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all gates; return 0, or the exit code of the first error."""
    parser = argparse.ArgumentParser(prog="python -m tans_core.gates", description="Run every gate on the built data.")
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (default: here)")
    parser.add_argument(
        "--data-docs", action="store_true", help="write great-expectations' pages, too (they need a network)"
    )
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tans_core").setLevel(logging.INFO)
    code = 0
    try:
        for gate, checks in all_checks(parsed.root):
            if parsed.data_docs:
                write_data_docs(gate, checks, parsed.root)
            try:
                run_gate(gate, checks, parsed.root)
            except GateError as error:
                logger.error("GateError: %s", error)
                code = code or error.exit_code
    except TansError as error:
        logger.error("%s: %s", type(error).__name__, error)
        return code or error.exit_code
    return code


def all_checks(root: Path) -> Iterator[tuple[str, list[Check]]]:
    """Yield each gate's name and checks, in the order of the stages."""
    params = load_params(root)
    trained = list(params.tasks.meta_train)
    folders = [root / "data/tasks" / name for name in (*trained, *params.tasks.meta_test)]
    least = params.gates.min_images_per_task
    yield "tasks", [check for folder in folders for check in task_checks(folder, root, least)]
    yield "zoo", [check for task in trained for check in zoo_checks(task, root)]
    yield "embeddings", embeddings_checks(root, trained)
    yield "transfer", transfer_checks(root, trained)
    yield "index", index_checks(root, trained)


def write_data_docs(gate: str, checks: Sequence[Check], root: Path) -> None:
    """Write great-expectations' page of each check to `reports/gates/data-docs/`."""
    expect.great_expectations()
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    for number, check in enumerate(checks, start=1):
        page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(validate(check)))
        write_text(page, root / REPORTS / "data-docs" / f"{gate}-{number}.html")


if __name__ == "__main__":
    sys.exit(main())
