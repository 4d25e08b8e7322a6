"""Runs a stage script: each ends with `if __name__ == "__main__": run_stage(main)`."""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from tans_core.errors import TansError
from tans_core.runtime import one_thread

logger = logging.getLogger(__name__)

INTERRUPTED = 130


def run_stage(main: Callable[..., None], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a stage's `main(root)` or `main(root, key)` as a program, and exit.

    An error that a user can act on becomes a message on stderr and its class's exit code (`tans_core.errors`). Any
    other error is a bug and keeps its stack trace.

    Args:
        main: its first parameter is the project's folder; a second one is the key of a `foreach` stage.
        arguments: the command line without the program; `sys.argv[1:]` by default.
    """
    keys = list(inspect.signature(main).parameters)[1:]
    stage = Path(inspect.getfile(main)).stem
    parser = argparse.ArgumentParser(prog=f"python -m tans_core.stages.{stage}", description=inspect.getdoc(main))
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (default: here)")
    for key in keys:
        parser.add_argument(key, help=f"the {key} of params.yaml that this stage builds")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tans_core").setLevel(logging.INFO)
    # Lance logs each table that does not exist yet; the variable must be set before Lance is imported.
    os.environ.setdefault("LANCEDB_LOG", "error")
    one_thread()
    # Lightning alone would exit with 0; it also calls a handler that was set before.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        main(parsed.root, *(getattr(parsed, key) for key in keys))
    except TansError as error:
        logger.error("%s: %s", type(error).__name__, error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        logger.error("stage %s: interrupted", stage)
        sys.exit(INTERRUPTED)
    sys.exit(0)
