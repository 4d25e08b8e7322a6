"""`make bench-space` on a small scale: it runs, and both loops have the same loss."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_both_loops_have_the_same_loss_and_every_figure_is_there() -> None:
    script = Path(__file__).parents[3] / "benchmarks/space.py"
    done = subprocess.run([sys.executable, script, "--quick"], capture_output=True, text=True, check=True)
    record = json.loads(done.stdout)
    assert record["loss_apart"] < 1e-4
    assert record["quality"]["plain"].keys() == record["quality"]["ours"].keys() == {"20"}
    assert record["heldout"]["tans"]["spearman"] > record["heldout"]["weight_1"]["spearman"] + 0.2
    assert record["times_as_fast_as"].keys() == {"plain_4_workers", "plain_no_workers"}
