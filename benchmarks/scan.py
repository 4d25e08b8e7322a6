"""`make bench-scan`: `tans tasks scan` against Pillow alone, on the same files, in as many processes, in one run.

Pillow lists the files and decodes each in full. The command's time is that of the whole process: start, scan, gate and
page. Pillow is up to twice as slow in some processes, depending on the address of a buffer (`tans_core/tasks/jpeg.py`).
So it runs in new processes of this file and in processes like the command's; the faster counts.
Writes metrics/bench-scan.json: seconds of all, and the ratio of their speeds; the peak memory of the command with all
its processes, from a run that is not timed, since measuring it takes time; and how much of a scan killed half-way is
left to do.

    python benchmarks/scan.py [--images 100000] [--side 128] [--folder FOLDER] [--out metrics/bench-scan.json]
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from tans_core.io import write_json
from tans_core.runtime import cores
from tans_core.tasks.chunks import CHUNK
from tans_core.tasks.workers import reading_processes

CLASSES = 20
ROUNDS = 5


def make_images(root: Path, count: int, side: int) -> None:
    """Write JPEGs of smooth random pictures. No two are equal."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / f"class-{label}").mkdir(parents=True)
    for number in range(count):
        picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        (root / f"class-{number % CLASSES}" / f"{number}.jpg").write_bytes(buffer.getvalue())


def decode_with_pillow(paths: list[str]) -> int:
    """Decode files to RGB, and count them."""
    for path in paths:
        with Image.open(path) as image:
            image.convert("RGB")
    return len(paths)


def new_processes(workers: int) -> Executor:
    """Start processes that import this file, without any set-up."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def pillow_seconds(root: Path, workers: int, processes: Callable[[int], Executor]) -> float:
    """Return how long Pillow takes to list and decode all files in `workers` processes."""
    start = time.perf_counter()
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    parts = [paths[begin : begin + 256] for begin in range(0, len(paths), 256)]
    with processes(workers) as pool:
        assert sum(pool.map(decode_with_pillow, parts)) == len(paths)
    return time.perf_counter() - start


def tree_bytes(pid: int) -> int:
    """Return the proportional memory of a process and its descendants."""
    total = 0
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    pending = [pid]
    while pending:
        one = pending.pop()
        pending += children.get(one, [])
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def start_scan(root: Path, project: Path) -> subprocess.Popen[str]:
    """Start `tans tasks scan` on a folder."""
    command = [sys.executable, "-m", "tans_core.cli", "tasks", "scan", str(root), "--json", "--root", str(project)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def scan_seconds(root: Path, project: Path, count: int) -> float:
    """Scan; return the seconds of the whole process."""
    start = time.perf_counter()
    process = start_scan(root, project)
    answer, _ = process.communicate()
    seconds = time.perf_counter() - start
    assert process.returncode == 0
    report = json.loads(answer)
    assert report["used"] == count and not report["bad"]
    return seconds


def scan_bytes(root: Path, project: Path) -> int:
    """Scan; return the peak memory of the process and its descendants, measured four times a second."""
    process = start_scan(root, project)
    peak = 0
    with ThreadPoolExecutor(1) as reader:
        # Read while it runs: the report is longer than the buffer of a pipe.
        answer = reader.submit(process.communicate)
        while not answer.done():
            peak = max(peak, tree_bytes(process.pid))
            time.sleep(0.25)
    assert process.returncode == 0
    return peak


def killed_scan(root: Path, project: Path, count: int) -> tuple[float, float]:
    """Kill a scan half-way, run it again. Return the share done before, and the seconds of the second run."""
    process = start_scan(root, project)

    def done() -> int:
        return len(list(project.glob(".resume/scan/*/*.arrow"))) * CHUNK

    while done() < count / 2:
        assert process.poll() is None, "the scan ended before half of it was done"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = done() / count
    return before, scan_seconds(root, project, count)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description="`tans tasks scan` against Pillow alone, on the same files and processes."
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--out", type=Path, default=Path("metrics/bench-scan.json"))
    parser.add_argument("--folder", type=Path, help="folder for the images, which are kept for the next run")
    chosen = parser.parse_args()
    workers = cores()
    with tempfile.TemporaryDirectory() as folder:
        root, project = chosen.folder or Path(folder) / "images", Path(folder) / "project"
        project.mkdir()
        shutil.copy(Path(__file__).parents[1] / "params.yaml", project)
        if not root.exists():
            make_images(root, chosen.images, chosen.side)
        # Fills the disk cache, so that the first reader is not slower.
        for path in root.rglob("*.jpg"):
            path.read_bytes()
        new, alike, ours = [], [], []
        # In turns, so that a change of the machine's load affects all.
        for _ in range(ROUNDS):
            new.append(pillow_seconds(root, workers, new_processes))
            alike.append(pillow_seconds(root, workers, reading_processes))
            ours.append(scan_seconds(root, project, chosen.images))
        peak = scan_bytes(root, project)
        done, second_run = killed_scan(root, project, chosen.images)
    ratios = sorted(min(pillow) / other for *pillow, other in zip(new, alike, ours, strict=True))
    result = {
        "images": chosen.images,
        "side_px": chosen.side,
        "processes": workers,
        "pillow_seconds": [round(value, 2) for value in new],
        "pillow_seconds_in_processes_like_ours": [round(value, 2) for value in alike],
        "scan_seconds": [round(value, 2) for value in ours],
        "speed_of_pillow": round(ratios[len(ratios) // 2], 3),
        "peak_mb": round(peak / 1e6),
        "killed_at_share": round(done, 3),
        "seconds_of_the_run_after": round(second_run, 2),
    }
    write_json(result, chosen.out)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
