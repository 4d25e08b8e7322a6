"""Build the zoo with several workers of a Dask cluster, each in its own clone; then get it all in another clone.

    python -m benchmarks.cluster --tiny --out metrics/bench-cluster.json

Needs the extra `cluster`. The clones are of the last commit. They share a DVC remote, which is a folder here. An error
is raised if a stage ran twice, or if the last clone has to run one.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import yaml

from flows.processes import Program, reaping
from flows.serve import free_port, healthy, settings
from tans_core.io import write_json
from tans_core.runtime import clock, cores
from tests.factories.small import TASKS, small

ROOT = Path(__file__).resolve().parents[1]
_RUN = re.compile(r"Running stage '([^']+)'")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a zoo of three tasks that takes minutes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tans-cluster-") as folder:
        result = build(Path(folder), options.workers, options.tiny)
    for name, value in result.items():
        print(f"{name}: {value}")
    if options.out:
        write_json(result, options.out)


def build(folder: Path, workers: int, tiny: bool) -> dict[str, object]:
    """Return the figures of one build from nothing."""
    remote = folder / "remote"
    lead = clone(ROOT, folder / "lead")
    prepare(lead, remote, tiny)
    clones = [clone(lead, folder / f"worker-{number}") for number in range(1, workers + 1)]
    environment = settings(folder / "prefect", free_port(0))
    port = int(environment["PREFECT_API_URL"].rpartition(":")[2].partition("/")[0])
    with reaping() as started:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = Program("server", command, lead, environment, lambda: healthy(port), folder / "server.log")
        started.append(server)
        server.start()
        scheduler = f"tcp://127.0.0.1:{free_port(0)}"
        dask(started, lead, environment, "scheduler", "--port", scheduler.rpartition(":")[2], "--no-dashboard")
        for own in clones:
            dask(started, own, environment, "worker", scheduler, "--nworkers", "1", "--nthreads", "1", "--no-dashboard")
        seconds = clock()
        python(lead, environment, "-m", "flows.cluster", "--scheduler", scheduler, "--parts", str(3 * workers))
        built_s = seconds()
    ran = {own.name: Counter(_RUN.findall(own.with_suffix(".log").read_text())) for own in (lead, *clones)}
    together = sum(ran.values(), Counter())
    if twice := [stage for stage, count in together.items() if count > 1]:
        raise RuntimeError(f"ran more than once: {twice}")
    if idle := [name for name, stages in ran.items() if not stages]:
        raise RuntimeError(f"ran no stage: {idle}")
    git(lead, "add", "-A")
    git(lead, "commit", "-qm", "Built on a cluster")
    third, seconds = clone(lead, folder / "third"), clock()
    python(third, environment, "-m", "dvc", "pull", "-q")
    pulled_s = seconds()
    python(third, environment, "-m", "dvc", "repro")
    if again := _RUN.findall(third.with_suffix(".log").read_text()):
        raise RuntimeError(f"the third clone ran {again}")
    python(third, environment, "-m", "tans_core.cli", "publish")
    return {
        "workers": workers,
        "cores": cores(),
        "tiny": tiny,
        "stages": len(together),
        "stages_by": {name: len(stages) for name, stages in ran.items()},
        "build_seconds": round(built_s, 1),
        "pull_seconds": round(pulled_s, 1),
        "remote_mb": round(sum(path.stat().st_size for path in remote.rglob("*") if path.is_file()) / 1e6, 1),
    }


def prepare(lead: Path, remote: Path, tiny: bool) -> None:
    """Let a clone start from nothing, with a remote, and with the smallest zoo if `tiny`."""
    (lead / "dvc.lock").unlink()
    if tiny:
        pipeline = yaml.safe_load((lead / "dvc.yaml").read_text())
        base = pipeline["stages"]["base"]
        others = [one for one in base["deps"] if not one.startswith("data/tasks/")]
        base["deps"] = others + [f"data/tasks/{name}" for name in TASKS]
        (lead / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
        params = small(yaml.safe_load((lead / "params.yaml").read_text()))
        (lead / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    python(lead, dict(os.environ), "-m", "dvc", "remote", "add", "--default", "shared", str(remote))
    git(lead, "add", "-A")
    git(lead, "commit", "-qm", "A remote")


def clone(source: Path, target: Path) -> Path:
    subprocess.run(["git", "clone", "-q", source, target], check=True)
    git(target, "config", "user.name", "benchmark")
    git(target, "config", "user.email", "benchmark@example.org")
    return target


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


def variables(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Return an environment in which the code of this clone is imported."""
    path = os.pathsep.join(filter(None, (str(folder), environment.get("PYTHONPATH"))))
    binaries = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    return {**environment, "PYTHONPATH": path, "PATH": binaries, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}


def python(folder: Path, environment: dict[str, str], *arguments: str) -> None:
    """Run Python in a clone; what it prints goes to a file beside it.

    Raises:
        RuntimeError: it failed; has the last lines.
    """
    log = folder.with_suffix(".log")
    command = [sys.executable, *arguments]
    with log.open("a") as output:
        done = subprocess.run(
            command, cwd=folder, env=variables(folder, environment), stdout=output, stderr=output, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} in {folder}:\n" + "\n".join(log.read_text().splitlines()[-40:]))


def dask(started: list[Program], folder: Path, environment: dict[str, str], *words: str) -> None:
    """Start a part of the cluster in a clone."""
    name = "scheduler" if words[0] == "scheduler" else folder.name
    command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1"]
    log = folder.parent / f"{name}.log"
    # Workers wait for the scheduler, and the flow for workers.
    started.append(Program(name, command, folder, variables(folder, environment), lambda: True, log))
    started[-1].start()


if __name__ == "__main__":
    main()
