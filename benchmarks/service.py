"""`make bench-api`: the warm service on loopback against `tans retrieve` as a new process, on the same zip.

The zip has 1,000 small JPEGs by default. Writes metrics/bench-api.json: seconds of the command, medians and 95th
percentiles of the service for the zip and for its query, and of the search alone; the ratio of command and service;
and what 50 uploads at a time were answered, with the growth of the service's memory. Other answers than 200 and 429 are
an error.

    python benchmarks/service.py [--root PROJECT] [--images 1000] [--side 64] [--rounds 30] [--out FILE]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from scan import make_images

from tans_core.io import write_json
from tans_core.options import RetrieveOptions
from tans_core.retrieval.query import Query
from tans_core.runtime import cores
from tans_core.service import Service

UPLOADS = 50
PATIENCE_S = 1800.0
TANS = (sys.executable, "-m", "tans_core.cli")
ZIP, JSON = "application/zip", "application/json"


def pack(folder: Path, count: int, side: int) -> Path:
    """Write a zip of class folders."""
    make_images(folder / "images", count, side)
    path = folder / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((folder / "images").rglob("*.jpg")):
            archive.write(file, file.relative_to(folder / "images"))
    return path


def seconds_of(work: Callable[[], Any], rounds: int) -> list[float]:
    """Return how long each of some calls took."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_s": round(statistics.median(ordered), 4),
        "p95_s": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 4),
    }


def measure(root: Path, count: int, side: int, rounds: int) -> dict[str, Any]:
    """Return what metrics/bench-api.json holds."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        images, query = pack(folder, count, side), folder / "query.json"
        where = ["--root", str(root)]
        retrieve = [*TANS, "retrieve", str(images), "--json", *where]
        command = seconds_of(lambda: subprocess.run(retrieve, check=True, stdout=subprocess.DEVNULL), min(3, rounds))
        subprocess.run([*TANS, "embed", str(images), "-o", str(query), *where], check=True, stdout=subprocess.DEVNULL)
        command_line = [*TANS, "api", "--port", "0", "--per-minute", "1000000", *where]
        with subprocess.Popen(
            command_line, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        ) as process:
            try:
                assert process.stdout is not None
                address = process.stdout.readline().split()[0]
                warm = service_figures(address, process.pid, images.read_bytes(), query.read_bytes(), rounds)
            finally:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                process.kill()
        warm["search"] = spread(searches(root, query, rounds))
    cold = statistics.median(command)
    ratio = round(cold / warm["zip"]["p50_s"], 1)
    load = round(os.getloadavg()[1], 1)
    return {"images": count, "cores": cores(), "load": load, "command_s": round(cold, 3), **warm, "ratio": ratio}


def searches(root: Path, query: Path, rounds: int) -> list[float]:
    """Return how long each of some searches took, from the query's vector to the ranked networks."""
    with Service.open(root).load() as service:
        read, options = Query.read(query), RetrieveOptions()
        service.search(read, options)
        return seconds_of(lambda: service.search(read, options), rounds)


def service_figures(address: str, pid: int, images: bytes, query: bytes, rounds: int) -> dict[str, Any]:
    """Return the times of single requests, and what many at a time were answered."""
    with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:

        def post(content: bytes, kind: str) -> httpx.Response:
            return client.post("/v1/retrieve", content=content, headers={"Content-Type": kind})

        client.get("/health/ready").raise_for_status()
        for content, kind in ((images, ZIP), (query, JSON)):
            post(content, kind).raise_for_status()
        of_zip = seconds_of(lambda: post(images, ZIP).raise_for_status(), rounds)
        of_query = seconds_of(lambda: post(query, JSON).raise_for_status(), rounds)
        print({"zip": spread(of_zip), "query": spread(of_query)}, flush=True)
        process = psutil.Process(pid)
        before = process.memory_info().rss

        def send(_: int) -> int:
            return httpx.post(
                f"{address}/v1/retrieve", content=images, headers={"Content-Type": ZIP}, timeout=PATIENCE_S
            ).status_code

        with ThreadPoolExecutor(UPLOADS) as threads:
            answers = Counter(map(str, threads.map(send, range(UPLOADS))))
        grown = process.memory_info().rss - before
    if others := set(answers) - {"200", "429"}:
        raise SystemExit(f"{UPLOADS} uploads at a time: got {dict(answers)}, want 200 and 429 alone, not {others}.")
    return {
        "zip": spread(of_zip),
        "query": spread(of_query),
        "uploads": {"at_once": UPLOADS, "answers": dict(answers), "grown_mb": round(grown / 10**6, 1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path.cwd())
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("metrics/bench-api.json"))
    arguments = parser.parse_args()
    figures = measure(arguments.root, arguments.images, arguments.side, arguments.rounds)
    write_json(figures, arguments.out)
    print(figures)


if __name__ == "__main__":
    main()
