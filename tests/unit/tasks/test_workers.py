"""Worker processes of a scan."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from tans_core.tasks import decode
from tans_core.tasks.reading import SCHEMA
from tans_core.tasks.workers import Job, _end, decode_all, reading_processes
from tests.factories.images import encoded, noise


def test_a_process_writes_the_pixels_and_returns_the_rest(tmp_path: Path) -> None:
    contents = [encoded(noise(seed=seed)) for seed in range(3)]
    jobs = [Job(0, True, contents, tmp_path / "rows.arrow"), Job(1, True, contents)]
    (_, facts), (_, rows) = decode_all(jobs, 16, 2, processes=True)
    assert facts.equals(rows.drop_columns(["pixels"])) and rows.schema == SCHEMA
    assert [path.name for path in tmp_path.iterdir()] == ["rows.arrow"]
    with pa.memory_map(str(tmp_path / "rows.arrow")) as file:
        assert pa.ipc.open_file(file).get_batch(0).equals(rows)


def test_processes_take_turns_at_large_images_alone() -> None:
    def turn(size: tuple[int, int]) -> tuple[float, float]:
        # Twice, as with an icon.
        with decode._taking_turns(size), decode._taking_turns(size):
            start = time.monotonic()
            time.sleep(0.3)
            return start, time.monotonic()

    def overlaps(size: tuple[int, int]) -> bool:
        return any(one[1] > other[0] for one, other in pairwise(sorted(pool.map(turn, [size] * 6))))

    pool = reading_processes(3)
    try:
        assert overlaps((100, 100))
        assert not overlaps((6000, 6000))
    finally:
        _end(pool)
