"""Kill a fine-tuning at random steps. The one that goes on must end with the bytes of one that was never killed.

python -m benchmarks.finetune_kills --kills 10 --out metrics/bench-finetune-kills.json
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tans_core.io import write_json
from tans_core.runtime import clock

ROOT = Path(__file__).parents[1]
RECIPES = ("sgd", "adamw")
STEPS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {}
    for recipe in RECIPES:
        seconds, rng = clock(), random.Random(f"{options.seed} {recipe}")
        kills = sorted(rng.sample(range(2, STEPS), options.kills))
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.factories.kills", folder, recipe, *map(str, kills)]
            subprocess.run(command, cwd=ROOT, check=True)
            whole, killed = (Path(folder) / name for name in ("whole", "killed"))
            same = {
                name: (whole / file).read_bytes() == (killed / file).read_bytes()
                for name, file in (("same_weights", "weights.safetensors"), ("same_figures", "figures.json"))
            }
        results[recipe] = {"kills": kills, "steps": STEPS, "seconds": round(seconds(), 1), **same}
        print(recipe, results[recipe])
    if options.out:
        write_json(results, options.out)
    if not all(one["same_weights"] and one["same_figures"] for one in results.values()):
        raise SystemExit("a fine-tuning that went on ended with other weights or figures")


if __name__ == "__main__":
    main()
