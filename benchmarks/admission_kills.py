"""Kill a refresh many times while it admits newcomers. An error is raised if a newcomer is partly admitted or lost.

    python -m benchmarks.admission_kills --kills 200 --newcomers 20 --out metrics/bench-admission-kills.json

Each refresh is a process that kills itself after a random time. After each, the whole project is checked.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from safetensors.torch import save_file

from tans_core.embeddings.store import read_table
from tans_core.inbox import refresh, remove
from tans_core.index.releases import open_production
from tans_core.io import read_json, write_json
from tans_core.newcomers import newcomer_folders
from tans_core.runtime import clock, progress
from tans_core.zoo.admission import CARD_FILE, WEIGHTS_FILE, identify
from tans_core.zoo.card import ModelCard
from tests.factories.newcomers import drop, tensors
from tests.factories.project import build_project

ROOT = Path(__file__).parents[1]
_KILLED = """
import os, sys, threading, time
from pathlib import Path
sys.path.insert(0, {here!r})
import tans_core.gates.arrivals, tans_core.index.releases, tans_core.retrieval.placement
from tans_core.inbox import refresh, remove
threading.Thread(target=lambda: (time.sleep(float(sys.argv[2])), os.kill(os.getpid(), 9)), daemon=True).start()
refresh(Path(sys.argv[1]), lambda newcomer, release: None, settle_s=0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--newcomers", type=int, default=20)
    parser.add_argument("--longest-s", type=float, default=4.0, help="longest time of a refresh before it is killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds, rng = clock(), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = build_project(Path(folder))
        before, names = served(root), [f"newcomer-{number:02d}" for number in range(options.newcomers)]
        hand_in(root, names)
        ended: Counter[str] = Counter()
        for _ in progress(range(options.kills), "killing refreshes"):
            after_s = rng.uniform(0, options.longest_s)
            command = [sys.executable, "-c", _KILLED.format(here=str(ROOT)), str(root), str(after_s)]
            done = subprocess.run(command, check=False, capture_output=True)
            ended["killed" if done.returncode == -9 else "done"] += 1
            check(root, names, before)
            if not any((root / "inbox" / name).is_dir() for name in names):
                # All are admitted: remove them and start again.
                remove(root, [folder.name for folder in newcomer_folders(root / "data")])
                shutil.rmtree(root / "quarantine")
                before = served(root)
                hand_in(root, names)
        refresh(root, lambda newcomer, release: None, settle_s=0)
        check(root, names, before)
        counts = {"admitted": len(served(root) - before), "quarantined": len(list((root / "quarantine").glob("*")))}
    result = {
        "kills": options.kills,
        "newcomers": options.newcomers,
        "ended": dict(ended),
        **counts,
        "seconds": round(seconds()),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(result, options.out)


def hand_in(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        folder = drop(root / "inbox", name, val_accuracy=0.5 + number / 100)
        save_file(tensors(seed=number + 1), folder / WEIGHTS_FILE)


def served(root: Path) -> set[str]:
    return set(read_table(open_production(root / "serving").store_dir, "index")["id"].to_pylist())


def check(root: Path, names: list[str], before: set[str]) -> None:
    """Assert that no newcomer is lost or partly admitted."""
    arrivals = newcomer_folders(root / "data")
    for folder in arrivals:
        card = ModelCard.from_dict(read_json(folder / CARD_FILE))
        assert identify(card, folder / WEIGHTS_FILE) == folder.name, f"{folder}: partly admitted"
    # Counted by their weights, so that a newcomer in both places does not hide one that is lost.
    kept = [path / WEIGHTS_FILE for path in (*arrivals, *(root / "inbox" / name for name in names))]
    weights = {path.read_bytes() for path in kept if path.is_file()}
    assert len(weights) == len(names), f"lost: {len(names) - len(weights)}"
    release = open_production(root / "serving")
    release.check()
    for card in map(json.loads, read_table(release.store_dir, "index")["card"].to_pylist()):
        assert release.resolve(card["weights"]).is_file()
    assert before <= served(root), "networks that were served are missing"


if __name__ == "__main__":
    main()
