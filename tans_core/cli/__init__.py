"""The `tans` command. Each command is thin: it reads arguments, calls `tans_core.api`, and prints."""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType

from tans_core.errors import TansError

INTERRUPTED = 130

_interrupts: list[int] = []


def main() -> None:
    """Run `tans` and exit: 0, an error's own code (`tans_core.errors`), 2 for wrong usage, 130 for Ctrl-C."""
    # On these signals the command exits, which also ends the programs that it started.
    for name, handler in (("SIGTERM", _stop), ("SIGHUP", _stop), ("SIGINT", _interrupt)):
        with contextlib.suppress(AttributeError, ValueError):
            signal.signal(getattr(signal, name), handler)
    from tans_core.cli.app import app
    from tans_core.cli.console import print_error

    try:
        app(prog_name="tans")
    except TansError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception:
        # Ctrl-C inside a library written in another language can surface as any error.
        if _interrupts:
            sys.exit(INTERRUPTED)
        raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


def _stop(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
