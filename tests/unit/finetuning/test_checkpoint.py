"""A fine-tuning that was killed goes on, and ends as if it had not been."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tans_core.errors import StoreError
from tans_core.finetuning import checkpoint as module
from tans_core.finetuning.checkpoint import Checkpoint, checkpoint_of
from tans_core.finetuning.finetune import finetune
from tans_core.recipe import Recipe
from tests.factories.kills import STEPS
from tests.factories.networks import PREPROCESS

ROOT = Path(__file__).parents[3]


def test_killed_at_three_random_steps_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    # `benchmarks/finetune_kills.py` kills each recipe ten times.
    kills = sorted(random.Random(0).sample(range(2, STEPS), 3))
    command = [sys.executable, "-m", "tests.factories.kills", str(tmp_path), "sgd", *map(str, kills)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[1:] == [*(f"killed {at} ['killed.ckpt']" for at in kills), "killed 0 []"]
    for name in ("weights.safetensors", "figures.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def tune(make_task: Any, make_network: Any, checkpoint: Checkpoint | None) -> Any:
    settings = {"steps": 6, "batch_size": 16, "seed": 0, "eval_points": 2}
    return finetune(make_network(), make_task(), PREPROCESS, Recipe(lr=0.05), **settings, checkpoint=checkpoint)


def test_a_damaged_checkpoint_starts_again_and_none_is_left_at_the_end(
    make_task: Any, make_network: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = tune(make_task, make_network, None)
    (tmp_path / "a.ckpt").write_bytes(b"no checkpoint")
    with checkpoint_of(tmp_path, "a") as checkpoint:
        again = tune(make_task, make_network, checkpoint)
    assert "a.ckpt: damaged" in caplog.text
    assert all(torch.equal(value, again.state_dict[name]) for name, value in plain.state_dict.items())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_checkpoints_and_not_the_training(
    make_task: Any, make_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise StoreError(os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "atomic_path", full)
    result = tune(make_task, make_network, Checkpoint(tmp_path / "a.ckpt", every_s=0.0))
    assert len(result.curve) == 2
    assert caplog.text.count("No checkpoints from here on: No space left on device") == 1


def test_the_same_command_in_two_shells_shares_no_checkpoint_and_a_failure_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), checkpoint_of(tmp_path, "a") as first, checkpoint_of(tmp_path, "a") as second:
        assert first is not None and second is None
        first.path.write_bytes(b"half of a run")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_files_of_others_stay_for_a_week_however_many_there_are(tmp_path: Path) -> None:
    """A contest that runs has one for each of its networks; those of abandoned runs are old."""
    day = 24 * 3600.0
    for number in range(20):
        for suffix, days in (("ckpt", number), ("json", number + 10)):
            path = tmp_path / f"{number}.{suffix}"
            path.write_bytes(b"")
            os.utime(path, (time.time() - days * day,) * 2)
    with checkpoint_of(tmp_path, "19"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*(f"{number}.ckpt" for number in range(7)), "19.json"}
