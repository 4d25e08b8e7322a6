"""Stage `tasks`: a source of params.yaml -> one task at its working size, through the gate.
Reads params `tasks.*.<task>`, `data`, `seed`. Writes data/tasks/<task>."""

from __future__ import annotations

import sys
from pathlib import Path

from tans_core.errors import TansError, UnknownTaskError, did_you_mean
from tans_core.params import Params, TaskParams, load_params
from tans_core.tasks.build import build_task
from tans_core.tasks.task import Role, write_task


def main(root: Path, name: str) -> None:
    """Build one task, write it, and hold it against the gate.

    Raises:
        UnknownTaskError: params.yaml has no task of that name.
        GateError: the task is not fit to be used.
    """
    params = load_params(root)
    task_params, role = find_task(params, name)
    data = params.data
    task = build_task(
        name,
        task_params.source,
        task_params.options,
        role,
        image_size_px=data.image_size_px,
        max_train=data.max_train,
        max_val=data.max_val,
        max_test=data.max_test,
        min_images_per_class=data.min_images_per_class,
        seed=params.seed,
        workers=data.workers,
    )
    folder = root / "data" / "tasks" / name
    write_task(task, folder)
    # great-expectations takes seconds to import: only once there is something to check.
    from tans_core.gates import check_tasks

    check_tasks([folder], root)


def find_task(params: Params, name: str) -> tuple[TaskParams, Role]:
    """Return a task's parameters and role."""
    if name in params.tasks.meta_train:
        return params.tasks.meta_train[name], "meta-train"
    if name in params.tasks.meta_test:
        return params.tasks.meta_test[name], "meta-test"
    known = [*params.tasks.meta_train, *params.tasks.meta_test]
    raise UnknownTaskError(f"{name!r}: no such task in params.yaml{did_you_mean(name, known)}.")


if __name__ == "__main__":
    try:
        main(Path.cwd(), sys.argv[1])
    except TansError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
