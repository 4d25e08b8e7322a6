"""Stages `gate-tasks` and `gate-zoo`: check all outputs of a `foreach` stage before later stages run.

One process checks all of them, since great-expectations takes seconds to import. The output is the same whenever the
gate passes, so later stages wait for the gate but rerun only if their own inputs changed.

Reads data/tasks or data/zoo, params `tasks`, `gates`, `zoo`. Writes data/gates/<what>.txt.
"""

from __future__ import annotations

from pathlib import Path

from tans_core.errors import ParamsError
from tans_core.gates import check_tasks, check_zoo
from tans_core.io import write_text
from tans_core.params import load_params
from tans_core.stages._main import run_stage


def main(root: Path, what: str) -> None:
    """Check all tasks, or the whole zoo, by their gate."""
    tasks = load_params(root).tasks
    if what == "tasks":
        check_tasks([root / "data/tasks" / name for name in (*tasks.meta_train, *tasks.meta_test)], root)
    elif what == "zoo":
        check_zoo(list(tasks.meta_train), root)
    else:
        raise ParamsError(f"gate {what!r}: want `tasks` or `zoo`.")
    write_text("passed\n", root / f"data/gates/{what}.txt")


if __name__ == "__main__":
    run_stage(main)
