"""Worker processes of a scan."""

from __future__ import annotations

import time
from itertools import pairwise

from tans_core.tasks import decode
from tans_core.tasks.workers import _end, reading_processes


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
