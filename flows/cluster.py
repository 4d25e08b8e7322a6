"""Flow `build-cluster`: the zoo built by several machines, each in its own clone of the project.

Workers of a Dask cluster run `dvc repro` of some stages each, and push the results and the run cache to the DVC remote.
The clone that starts the flow takes them from there, and builds the rest.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task

from flows.common import failed, project
from tans_core import api
from tans_core.errors import StoreError, TansError
from tans_core.io import sha256_bytes, sha256_file
from tans_core.params import load_params
from tans_core.runtime import run_programs

PARTS = 8


@task(name="dvc-repro", task_run_name="dvc repro {stages}")
def build_stages(stages: list[str], inputs: str) -> str:
    """Bring stages up to date in the clone that this worker was started in, and share the results; return its folder.

    Args:
        stages: of dvc.yaml. What other workers shared is taken from the DVC remote.
        inputs: `inputs_digest` of the clone that started the flow.
    """
    root, log = project(), get_run_logger()
    if inputs_digest(root) != inputs:
        raise RuntimeError(
            f"{root}: dvc.yaml, params.yaml or tans_core/ differ from the clone that started the flow, so its results "
            "could not be used there. Check out the same commit in each clone."
        )
    try:
        api.build("--pull", *stages, root=root, on_line=log.info)
        push(root, stages, log.info)
    except TansError as error:
        # Pickled on its way back: a class of Python's own always can be.
        raise RuntimeError(f"{root}: {type(error).__name__}: {error}") from None
    return str(root)


@flow(name="build-cluster")
def build_cluster(parts: int = PARTS) -> Any:
    """Build the tasks, the base and the zoo on the workers, then the rest here, and push everything.

    Args:
        parts: pieces of work that the stages of the tasks, and those of their zoos, are divided into; twice the number
            of workers or more.
    """
    root, log = project(), get_run_logger()
    try:
        tasks = load_params(root).tasks
        inputs = inputs_digest(root)
        images = [f"tasks@{name}" for name in tasks.meta_train] + [f"meta-test@{name}" for name in tasks.meta_test]
        for stages in (images, ["base"], [f"zoo@{name}" for name in tasks.meta_train]):
            pieces = [stages[start::parts] for start in range(min(parts, len(stages)))]
            for one in [build_stages.submit(piece, inputs) for piece in pieces]:
                log.info("done in %s", one.result())
        api.build("--pull", "gate-zoo", root=root, on_line=log.info)
        api.build(root=root, on_line=log.info)
        push(root, [], log.info)
    except (TansError, RuntimeError) as error:
        return failed(error if isinstance(error, TansError) else TansError(str(error)))
    return "built, and pushed to the DVC remote. Commit dvc.lock and metrics/: other clones then need `dvc pull` alone."


def push(root: Path, stages: Sequence[str], on_line: Callable[[str], None]) -> None:
    """Push stages, and those that they depend on, to the DVC remote, with the run cache; all stages for none.

    Raises:
        StoreError: there is no remote, or it cannot be written.
    """
    targets = ["--with-deps", *stages] if stages else []
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "push", "--run-cache", *targets]
    (code,) = run_programs([command], root, on_line)
    if code:
        raise StoreError(
            f"{root}: `dvc push` ended with exit code {code}; its message is above. See `dvc remote list`."
        )


def inputs_digest(root: Path) -> str:
    """Return a hash of what decides whether two clones can share results: dvc.yaml, params.yaml and the code."""
    files = [root / "dvc.yaml", root / "params.yaml", *sorted((root / "tans_core").rglob("*.py"))]
    return sha256_bytes("".join(f"{file.relative_to(root)} {sha256_file(file)}\n" for file in files).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow on a Dask cluster; return the exit code."""
    from prefect_dask import DaskTaskRunner

    parser = argparse.ArgumentParser(description="Build the zoo on a Dask cluster.")
    parser.add_argument("--scheduler", required=True, help="address of the scheduler, such as tcp://host:8786")
    parser.add_argument("--parts", type=int, default=PARTS, help=f"pieces of work (default: {PARTS})")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    runner = DaskTaskRunner(address=parsed.scheduler)
    state: Any = build_cluster.with_options(task_runner=runner)(parts=parsed.parts, return_state=True)
    print(state.message or state.name)  # noqa: T201
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    # Under its own name, so that workers import the task instead of unpickling a copy of it.
    from flows import cluster

    sys.exit(cluster.main())
