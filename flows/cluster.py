"""Flow `build-cluster`: the zoo built by several machines, each in its own clone of the project.

Workers of a Dask cluster run `dvc repro` of some stages each, and push their outputs to the DVC remote. What git keeps
of them, the entries of dvc.lock and the metrics, they return to the clone that started the flow. It passes these on to
the workers that need them, and builds the rest. (DVC's run cache does not push metrics that git keeps.)
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from ruamel.yaml import YAML

from flows.common import dvc, failed, project
from tans_core import api
from tans_core.errors import StoreError, TansError
from tans_core.io import atomic_path, sha256_bytes, sha256_file, write_text
from tans_core.locks import pipeline_lock
from tans_core.params import load_params
from tans_core.yaml_file import read_yaml

PARTS = 8
Built = dict[str, dict[str, Any]]
"""By stage: `lock`, its entry of dvc.lock, and `files`, the text of its outputs that git keeps, by path."""


@task(name="dvc-repro", task_run_name="dvc repro {stages}")
def build_stages(stages: list[str], built: Built, inputs: str) -> Built:
    """Bring stages up to date in the clone that this worker was started in, and share the results.

    Args:
        stages: of dvc.yaml.
        built: by other workers.
        inputs: `inputs_digest` of the clone that started the flow.
    """
    root, log = project(), get_run_logger()
    try:
        if inputs_digest(root) != inputs:
            raise StoreError(
                f"{root}: dvc.yaml, params.yaml or tans_core/ differ from the clone that started the flow, so it could "
                "not use the results. Check out the same commit in each clone."
            )
        return build_and_share(root, stages, built, log.info)
    except TansError as error:
        # Pickled on its way back, which a class of Python's own always can be.
        raise RuntimeError(f"{root}: {type(error).__name__}: {error}") from None


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
        inputs, built = inputs_digest(root), Built()
        images = [f"tasks@{name}" for name in tasks.meta_train] + [f"meta-test@{name}" for name in tasks.meta_test]
        zoo = [f"zoo@{name}" for name in tasks.meta_train]
        for pieces in (deal(images, parts), [["gate-tasks", "base"]], deal(zoo, parts)):
            for one in [build_stages.submit(piece, built, inputs) for piece in pieces]:
                built = {**built, **one.result()}
        build_and_share(root, [], built, log.info)
    except (TansError, RuntimeError) as error:
        return failed(error if isinstance(error, TansError) else TansError(str(error)))
    return "built, and pushed to the DVC remote. Commit dvc.lock and metrics/: other clones then need `dvc pull` alone."


def deal(stages: Sequence[str], parts: int) -> list[list[str]]:
    """Divide stages into at most so many pieces."""
    return [list(stages[start::parts]) for start in range(min(parts, len(stages)))]


def build_and_share(root: Path, stages: Sequence[str], built: Built, on_line: Callable[[str], None]) -> Built:
    """Take over what other clones built, bring stages up to date, and push their outputs.

    Args:
        root: the clone.
        stages: of dvc.yaml; none means all.
        built: by other clones.
        on_line: called with each line of DVC's output.

    Returns:
        The same of these stages.

    Raises:
        TansError: a stage failed. The class is that of its exit code.
        StoreError: there is no remote, or it cannot be written.
    """
    with pipeline_lock(root, "the flow `build-cluster`", on_line):
        if receive(root, built):
            # Outputs that the remote lacks are built here.
            dvc(root, on_line, "pull", "--allow-missing", *(["--with-deps", *stages] if stages else []))
        api.build(*stages, root=root, on_line=on_line)
        if dvc(root, on_line, "push", *stages):
            raise StoreError(f"{root}: `dvc push` failed; its message is above. Is a remote set (`dvc remote list`)?")
        locks = read_yaml(root / "dvc.lock")["stages"]
        return {name: {"lock": locks[name], "files": texts(root, locks[name])} for name in stages}


def receive(root: Path, built: Built) -> bool:
    """Write what other clones built into dvc.lock, and the outputs that git keeps to their files.

    Returns whether anything is built, here or elsewhere.
    """
    path = root / "dvc.lock"
    lock: dict[str, Any] = read_yaml(path) if path.is_file() else {"schema": "2.0", "stages": {}}
    lock["stages"] |= {name: one["lock"] for name, one in built.items()}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        YAML().dump(lock, file)
    for one in built.values():
        for name, text in one["files"].items():
            write_text(text, root / name)
    return bool(lock["stages"])


def texts(root: Path, lock: Mapping[str, Any]) -> dict[str, str]:
    """Return the outputs of a stage that git keeps: those outside data/."""
    kept = [out["path"] for out in lock["outs"] if not out["path"].startswith("data/")]
    return {name: (root / name).read_text(encoding="utf-8") for name in kept}


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
