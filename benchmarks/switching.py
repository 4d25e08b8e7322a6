"""`make bench-switching`: searches through the HTTP service while releases change and their writer is killed.

A writer publishes a release with one more network, of another name each time, and rolls back, again and again. It is
killed at random moments and started again. Meanwhile readers search. Each answer must be a success, name the models of
the release that it names and no others, and be the same as all other answers of that release. An error is raised
otherwise. Writes metrics/bench-switching.json.

    python -m benchmarks.switching [--root PROJECT] [--rounds 200] [--searches 20000] [--readers 8] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import feather

import tans_core as tans
from tans_core.embeddings.store import read_table
from tans_core.index.releases import add_models, open_production, rollback
from tans_core.io import write_json

ROOT = Path(__file__).parents[1]
NEWCOMER = "again"
TANS = (sys.executable, "-m", "tans_core.cli")


def write_forever(root: Path, first: str, done: Path) -> None:
    """Publish and roll back until the process is killed; add a line to a file after each round."""
    rows = feather.read_table(root / "newcomer.feather")
    weights = root / "weights.safetensors"
    print("ready", flush=True)
    number = len(list((root / "serving/releases").iterdir()))
    while True:
        number += 1
        name = f"{NEWCOMER}.{number:05d}"
        card = json.loads(rows["card"][0].as_py()) | {"id": name, "weights": f"arrivals/{name}/weights.safetensors"}
        mine = rows
        for column, value in (("id", name), ("card", json.dumps(card))):
            mine = mine.set_column(mine.column_names.index(column), column, pa.array([value]))
        # A killed round may have left its release live.
        rollback(root / "serving", first)
        add_models(root / "serving", mine, {card["weights"]: weights}, again=True)
        time.sleep(random.uniform(0, 1))  # so that readers get it
        rollback(root / "serving", first)
        with done.open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")


def prepare(source: Path, root: Path) -> tuple[str, str]:
    """Copy what is served, and make the newcomer's files; return the id of the release in production, and a query."""
    # Imported here: the writer starts faster without torch.
    from tans_core.retrieval.placement import place_models
    from tans_core.zoo.weights import save_tensors

    shutil.copytree(source / "serving", root / "serving")
    shutil.copy(source / "params.yaml", root)
    retriever = tans.Service.open(root).retriever
    card = tans.list_models(root)[0]
    folder = root / "newcomer"
    again = card.model_copy(update={"id": NEWCOMER, "weights": f"arrivals/{NEWCOMER}/weights.safetensors"})
    save_tensors(retriever.load_model(card.id, len(card.class_names)).state_dict(), folder / "weights.safetensors")
    write_json(again.to_dict(), folder / "card.json")
    feather.write_feather(place_models(retriever.release, [folder]), root / "newcomer.feather")
    shutil.copy(folder / "weights.safetensors", root)
    rng = np.random.default_rng(0)
    for number in range(60):
        path = root / "images" / f"class-{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 80, (48, 48, 3)) + 60 * (number % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return retriever.release.id, tans.embed(root / "images", root=root).model_dump_json()


@contextmanager
def service(root: Path) -> Iterator[str]:
    """Run `tans api`, and yield its address."""
    command = [*TANS, "api", "--port", "0", "--per-minute", "100000000", "--root", str(root)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


class Readers:
    """Search until both counts are reached, and keep the first answer of each release."""

    def __init__(self, address: str, query: str) -> None:
        self.address, self.query = address, query
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.counts: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._turn = threading.Lock()

    def read(self, searches: int, ended: threading.Event) -> None:
        with httpx.Client(base_url=self.address, timeout=600) as client:
            while self.counts.total() < searches or not ended.is_set():
                start = time.monotonic()
                answer = client.post(
                    "/v1/retrieve?top_k=1000", content=self.query, headers={"Content-Type": "application/json"}
                )
                assert answer.status_code == 200, answer.text
                found = answer.json()
                with self._turn:
                    self.counts[found["release"]] += 1
                    self.slowest_s = max(self.slowest_s, time.monotonic() - start)
                    same = self.answers.setdefault(found["release"], found["candidates"])
                assert found["candidates"] == same, f"two answers of release {found['release']} differ"


def switch(root: Path, first: str, rounds: int, longest_s: float, rng: random.Random, stopped: threading.Event) -> int:
    """Run the writer until it has finished some rounds, killing it at random moments; return how often it died."""
    done, kills = root / "rounds.txt", 0
    done.touch()
    program = "import sys; from pathlib import Path; from benchmarks.switching import write_forever"
    program += "; write_forever(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))"
    while not stopped.is_set() and len(done.read_text(encoding="utf-8").splitlines()) < rounds:
        command = [sys.executable, "-c", program, str(root), first, str(done)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, longest_s))
            assert process.poll() is None, "the writer ended by an error"
            process.kill()
        kills += 1
    return kills


def measure(source: Path, rounds: int, searches: int, readers: int, longest_s: float, seed: int) -> dict[str, Any]:
    """Return what metrics/bench-switching.json holds."""
    start, ended = time.monotonic(), threading.Event()
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        first, query = prepare(source, root)
        with service(root) as address, ThreadPoolExecutor(readers) as threads:
            reading = Readers(address, query)
            running = [threads.submit(reading.read, searches, ended) for _ in range(readers)]
            failed = threading.Event()
            for one in running:
                one.add_done_callback(lambda future: failed.set() if future.exception() else None)
            try:
                kills = switch(root, first, rounds, longest_s, random.Random(seed), failed)
            finally:
                ended.set()
            for one in running:
                one.result()
        # A killed writer may have left a release that went live all the same.
        for release, candidates in reading.answers.items():
            models = read_table(root / "serving/releases" / release / "store", "index")["id"].to_pylist()
            assert sorted(one["model"] for one in candidates) == models, f"{release}: models of another release"
            assert sum(name.startswith(NEWCOMER) for name in models) == (release != first), f"{release}: two newcomers"
        open_production(root / "serving").check()
        done = len((root / "rounds.txt").read_text(encoding="utf-8").splitlines())
    return {
        "rounds": done,
        "kills": kills,
        "readers": readers,
        "searches": reading.counts.total(),
        "releases_seen": len(reading.answers),
        "of_first": reading.counts[first],
        "slowest_s": round(reading.slowest_s, 3),
        "seconds": round(time.monotonic() - start),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path.cwd())
    parser.add_argument("--rounds", type=int, default=200, help="how often to publish and to roll back")
    parser.add_argument("--searches", type=int, default=20_000)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--longest-s", type=float, default=20.0, help="longest time of a writer before it is killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("metrics/bench-switching.json"))
    options = parser.parse_args()
    figures = measure(options.root, options.rounds, options.searches, options.readers, options.longest_s, options.seed)
    print(json.dumps(figures, indent=2))
    write_json(figures, options.out)


if __name__ == "__main__":
    main()
