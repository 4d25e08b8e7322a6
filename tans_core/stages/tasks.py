"""Stage `tasks`: one source of images -> one task.
Reads params `tasks.*.<task>`, `data`, `seed`. Writes data/tasks/<task>."""

from __future__ import annotations

from pathlib import Path

from tans_core.errors import UnknownTaskError, did_you_mean
from tans_core.params import Params, TaskParams, load_params
from tans_core.sources.build import build_task
from tans_core.stages._main import run_stage
from tans_core.tasks.task import Role, write_task


def main(root: Path, name: str) -> None:
    """Build one task and write it.

    Raises:
        UnknownTaskError: params.yaml has no task of that name.
    """
    params = load_params(root)
    task_params, role = find_task(params, name)
    data = params.data
    task = build_task(
        name,
        task_params.source,
        task_params.options,
        role,
        stored_size_px=data.stored_size_px,
        max_train=data.max_train,
        max_val=data.max_val,
        max_test=data.max_test,
        min_images_per_class=data.min_images_per_class,
        seed=params.seed,
        workers=data.workers,
    )
    write_task(task, root / "data/tasks" / name)


def find_task(params: Params, name: str) -> tuple[TaskParams, Role]:
    """Return a task's parameters and role."""
    if name in params.tasks.meta_train:
        return params.tasks.meta_train[name], "meta-train"
    if name in params.tasks.meta_test:
        return params.tasks.meta_test[name], "meta-test"
    known = [*params.tasks.meta_train, *params.tasks.meta_test]
    raise UnknownTaskError(f"{name!r}: no such task in params.yaml{did_you_mean(name, known)}.")


if __name__ == "__main__":
    run_stage(main)
