"""Kill a served project many times. An error is raised if anything is lost, doubled, half done or left behind.

    python -m benchmarks.service_kills --kills 30 --out metrics/bench-service-kills.json

Each round hands in a newcomer, starts `zoo-refresh` and `retrain`, and kills the server, the serving process, a run or
a stage after a random time. Then the next runs have to finish, and the whole project is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import save_file

from flows.healing import processes_of_runs
from tans_core.embeddings.store import read_table
from tans_core.index.releases import open_production
from tans_core.io import read_json, write_json
from tans_core.runtime import clock
from tans_core.zoo.admission import CARD_FILE, WEIGHTS_FILE, identify
from tans_core.zoo.card import ModelCard
from tests.factories.newcomers import drop, tensors
from tests.factories.project import build_project
from tests.factories.service import FINAL, Service, under_dvc, wait

KINDS = ("server", "service", "run", "stage")
RUNS = ("zoo-refresh/local", "retrain/local")
ACTIVE = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")
SETTLED_S = 2.1
# Far above what an idle machine needs; the result has the longest time.
HEALED_S = 600.0
FINISHED_S = 1800.0


class Killed:
    """A served project that is killed again and again.

    Attributes:
        service: as it serves now; another one after the serving process was killed.
        killed: how many kills of each kind.
        runs: the runs of all rounds, by id.
    """

    def __init__(self, root: Path, seed: int = 0, longest_s: float = 25.0) -> None:
        self.root, self.rng, self.longest_s = root, random.Random(seed), longest_s
        self.killed: Counter[str] = Counter()
        self.names: list[str] = []
        self.runs: list[str] = []
        self.healed_s: list[float] = []
        self.before = served(root)
        self.service = Service.start(root)
        pause_schedules(self.service)

    def round(self, kind: str) -> None:
        """Begin work, kill, start again, and see that no run of the round stays without an end."""
        self.hand_in()
        begun = [self.service.begin(deployment) for deployment in RUNS]
        self.runs += begun
        time.sleep(self.rng.uniform(0, self.longest_s))
        victim = self.victim(kind, begun)
        if victim is None:
            return  # this round's work was through already
        os.kill(victim, signal.SIGKILL)
        self.killed[kind] += 1
        seconds = clock()
        if kind == "service":
            self.service.process.wait()
            assert wait(lambda: not of_project(self.root), 120), f"left running: {of_project(self.root)}"
            self.service = Service.start(self.root)
        if kind == "server":
            assert wait(lambda: self.service.call("GET", "health") is True, HEALED_S), "the server does not return"
        assert wait(lambda: not self.ghosts(), HEALED_S), f"these runs have no process: {self.ghosts()}"
        self.healed_s.append(seconds())

    def finish(self) -> None:
        """Let the next runs finish the work, and check everything."""
        self.wait_for_all()
        begun = {deployment: self.service.begin(deployment) for deployment in RUNS}
        self.runs += begun.values()
        self.wait_for_all()
        states = {deployment: self.service.state(run) for deployment, run in begun.items()}
        assert all(state["type"] == "COMPLETED" for state in states.values()), states
        self.check(finished=True)

    def wait_for_all(self) -> None:
        assert wait(lambda: not self.active(), FINISHED_S), f"these runs do not end: {self.active()}"

    def hand_in(self) -> None:
        name = f"newcomer-{len(self.names):03d}"
        self.names.append(name)
        folder = drop(self.root / "inbox", name, val_accuracy=0.5 + len(self.names) / 1000)
        save_file(tensors(seed=len(self.names)), folder / WEIGHTS_FILE)
        time.sleep(SETTLED_S)

    def victim(self, kind: str, runs: list[str]) -> int | None:
        """Return a process of a kind; for a run or stage wait until there is one. None if all runs ended before."""
        if kind == "service":
            return self.service.process.pid
        if kind == "server":
            (server,) = [one for one in note(self.root)["processes"] if one["name"] == "server"]
            return int(server["pid"])
        while any(self.service.state(run)["type"] not in FINAL for run in runs):
            found = [pid for pid, line in commands(self.root).items() if is_a(kind, line)]
            if found:
                return self.rng.choice(found)
            time.sleep(0.1)
        return None

    def active(self, *types: str) -> list[str]:
        """Return the runs that have not ended, also those that events started."""
        wanted = {"flow_runs": {"state": {"type": {"any_": list(types or ACTIVE)}}}}
        return [one["id"] for one in self.service.ask("flow_runs/filter", wanted)]

    def ghosts(self) -> list[str]:
        """Return the runs that are Running or Cancelling without a process."""
        active = self.active("RUNNING", "CANCELLING")
        alive = processes_of_runs(self.root)
        return [run for run in active if run not in alive]

    def record(self) -> dict[str, Any]:
        """Return what was killed so far, and how all runs of the finished rounds ended."""
        return {
            "kills": self.killed.total(),
            "killed": dict(sorted(self.killed.items())),
            "newcomers": len(self.names),
            "runs": dict(sorted(Counter(self.service.state(run)["type"].lower() for run in self.runs).items())),
            "longest_healing_s": round(max(self.healed_s, default=0.0), 1),
        }

    def check(self, finished: bool = False) -> None:
        """Assert that no newcomer is lost, doubled or half admitted, and that the release in production is whole.

        Args:
            finished: no run is left, so all newcomers must be served, and no process left.
        """
        kept = [self.root / "inbox" / name / WEIGHTS_FILE for name in self.names]
        # Admitted, and taken in by a build or not yet.
        places = [self.root / "data" / place for place in ("admitted", "arrivals")]
        for folder in [path for place in places for path in place.glob("arrival-*")]:
            card = ModelCard.from_dict(read_json(folder / CARD_FILE))
            assert identify(card, folder / WEIGHTS_FILE) == folder.name, f"{folder}: half admitted"
            kept.append(folder / WEIGHTS_FILE)
        weights = [path.read_bytes() for path in kept if path.is_file()]
        assert len(set(weights)) == len(self.names), f"lost: {len(self.names) - len(set(weights))} newcomers"
        release = open_production(self.root / "serving")
        release.check()
        rows = read_table(release.store_dir, "index")
        ids = rows["id"].to_pylist()
        assert len(ids) == len(set(ids)), "a network is served twice"
        assert self.before <= set(ids), "networks that were served are missing"
        for card in map(json.loads, rows["card"].to_pylist()):
            assert release.resolve(card["weights"]).is_file()
        if finished:
            assert len(weights) == len(self.names), "a newcomer is in the inbox and admitted"
            assert len(ids) == len(self.before) + len(self.names), f"served: {len(ids)}"
            assert wait(lambda: not processes_of_runs(self.root), 120), f"left: {processes_of_runs(self.root)}"
            assert not self.ghosts()


def served(root: Path) -> set[str]:
    return set(read_table(open_production(root / "serving").store_dir, "index")["id"].to_pylist())


def note(root: Path) -> dict[str, Any]:
    """Return what `tans serve` wrote down of itself."""
    return dict(read_json(root / ".prefect/serving.json"))


def of_project(root: Path) -> list[psutil.Process]:
    """Return all processes of the project's service but itself."""
    noted = [one["pid"] for one in note(root)["processes"] if psutil.pid_exists(one["pid"])]
    return [psutil.Process(pid) for pid in noted] + [one for them in processes_of_runs(root).values() for one in them]


def commands(root: Path) -> dict[int, str]:
    """Return the command line of each process of a run."""
    lines = {}
    for process in [one for them in processes_of_runs(root).values() for one in them]:
        try:
            lines[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return lines


def is_a(kind: str, command: str) -> bool:
    return "prefect.engine" in command if kind == "run" else "tans_core.stages" in command or "dvc" in command


def pause_schedules(service: Service) -> None:
    """Let only the runs of this program run."""
    for deployment in service.ask("deployments/filter", {}):
        for schedule in deployment["schedules"]:
            service.call("PATCH", f"deployments/{deployment['id']}/schedules/{schedule['id']}", {"active": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--longest-s", type=float, default=25.0, help="longest time of a round before its kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds = clock()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "built"
        project.mkdir()
        killed = Killed(under_dvc(build_project(project), Path(folder) / "served"), options.seed, options.longest_s)
        try:
            while killed.killed.total() < options.kills:
                kind = KINDS[killed.rng.randrange(len(KINDS))]
                killed.round(kind)
                killed.check()
                killed.finish()
                print(f"{killed.killed.total()} kills, the last of: {kind}; {seconds():.0f} s", flush=True)
                # After each round, so that a program that is stopped leaves what it measured.
                result = killed.record() | {"seconds": round(seconds()), "seed": options.seed}
                if options.out:
                    write_json(result, options.out)
        finally:
            killed.service.stop()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
