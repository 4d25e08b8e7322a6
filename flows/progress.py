"""How far a build is, as an artifact that moves."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tans_core.yaml_file import read_yaml

# "Running stage 'zoo@trees':", "Stage 'base' didn't change, skipping"
_STAGE = re.compile(r"^(?:Running stage|Stage) '(?P<stage>[^']+)'")
# What DVC says of git and of itself between two stages.
_HINT = re.compile(
    r"\s*$|To track the changes|\tgit add |To enable auto staging|\tdvc config |Use `dvc push`|(Generat|Updat)ing lock"
)
EVERY_S = 2.0


@contextlib.contextmanager
def build_progress(root: Path, flow: str) -> Iterator[Callable[[str], None]]:
    """Yield a function for the lines of `dvc repro`: it logs them, without hints of DVC, and moves the artifact.

    The artifact is `<flow>-progress`.
    """
    log = get_run_logger()
    total = count_stages(root)
    artifact = create_progress_artifact(0.0, key=f"{flow}-progress", description=f"0 of {total} stages")
    assert isinstance(artifact, UUID)
    reached: dict[str, None] = {}
    told = time.monotonic()

    def share() -> float:
        return min(99.0, 100.0 * len(reached) / total)

    def on_line(line: str) -> None:
        nonlocal told
        if not _HINT.match(line):
            log.info(line)
        if match := _STAGE.match(line):
            reached[match["stage"]] = None
            if time.monotonic() - told >= EVERY_S:
                told = time.monotonic()
                _move(artifact, share(), _words(reached, total))

    try:
        yield on_line
    except BaseException:
        _move(artifact, share(), f"ended at {len(reached)} of {total} stages; the log says why")
        raise
    _move(artifact, 100.0, f"{total} of {total} stages")


def count_stages(root: Path) -> int:
    """Return how many stages dvc.yaml has, each item of a `foreach` counted; 1 if that cannot be read."""
    with contextlib.suppress(Exception):  # `dvc repro` reports a broken file
        stages, params = read_yaml(root / "dvc.yaml")["stages"], read_yaml(root / "params.yaml")
        return max(
            1, sum(len(_items(stage["foreach"], params)) if "foreach" in stage else 1 for stage in stages.values())
        )
    return 1


def _items(foreach: Any, params: Any) -> Any:
    if not isinstance(foreach, str):
        return foreach
    for key in foreach.strip("${}").split("."):
        params = params[key]
    return params


def _words(reached: dict[str, None], total: int) -> str:
    return f"{min(len(reached), total)} of {total} stages; at {next(reversed(reached))}"


def _move(artifact: UUID, progress: float, description: str) -> None:
    # A server that restarts must not fail a build of hours.
    with contextlib.suppress(Exception):
        update_progress_artifact(artifact, progress=progress, description=description)
