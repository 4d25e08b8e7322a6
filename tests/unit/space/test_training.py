"""Many short steps: their effect on the weights, and what is kept when the process is killed."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from tans_core.errors import TansError
from tans_core.space import training
from tans_core.space.training import CHECKPOINT_FILE, Curve, Schedule, train_steps
from tests.factories.fits import Line, StoppedError

PROJECT = Path(__file__).resolve().parents[3]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.05)


def fused_adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1, fused=True)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    weight, bias = parameters
    return torch.optim.SGD([{"params": [weight], "lr": 0.1}, {"params": [bias], "lr": 0.01}], momentum=0.9)


def train(line: Line, steps: int = 30, make_optimizer: MakeOptimizer = adam, **options: object) -> Curve:
    return train_steps(line, line.step_loss, make_optimizer, steps, device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("make_optimizer", [adam, fused_adamw, sgd])
def test_weights_are_those_of_a_plain_loop(schedule: Schedule, make_optimizer: MakeOptimizer) -> None:
    line, plain = Line(), Line()
    train(line, make_optimizer=make_optimizer, schedule=schedule, chunk=7)
    optimizer = make_optimizer(plain.parameters())
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1.0 if schedule == "constant" else (1 + math.cos(math.pi * step / 30)) / 2
    )
    for step in range(30):
        optimizer.zero_grad()
        plain.step_loss(step).backward()
        optimizer.step()
        rate.step()
    torch.testing.assert_close(line.layer.weight, plain.layer.weight)
    torch.testing.assert_close(line.layer.bias, plain.layer.bias)
    assert not line.training


def test_a_seed_gives_the_same_bytes_whatever_the_chunk() -> None:
    found = set()
    for chunk in (1, 7, 30, 500):
        line = Line()
        train(line, chunk=chunk)
        assert line.taken == list(range(30))
        found.add(line.bytes())
    assert len(found) == 1
    other = Line(seed=1)
    train(other)
    assert other.bytes() not in found


def test_bf16_computes_each_step_with_the_weights_of_that_step() -> None:
    full, half, single = Line(), Line(), Line()
    train(full)
    train(half, precision="bf16", chunk=30)
    train(single, precision="bf16", chunk=1)
    assert half.bytes() == single.bytes() != full.bytes()
    torch.testing.assert_close(half.layer.weight, full.layer.weight, atol=0.05, rtol=0)
    assert half.layer.weight.dtype == torch.float32


def test_curve_has_a_row_at_each_interval_and_at_the_end() -> None:
    line = Line()
    curve = train(line, every=8, on_step=line.measure, chunk=5)
    assert [row["step"] for row in curve] == [8, 16, 24, 30]
    assert curve[-1]["norm"] == float(line.layer.weight.detach().norm())
    assert train(line, on_step=line.measure) == []


@pytest.mark.parametrize("make_optimizer", [adam, fused_adamw, sgd])
@pytest.mark.parametrize("stop_at", [3, 5, 17, 29])
def test_stopped_run_goes_on_from_its_last_chunk(tmp_path: Path, make_optimizer: MakeOptimizer, stop_at: int) -> None:
    def fit(line: Line, folder: Path) -> Curve:
        return train(
            line,
            make_optimizer=make_optimizer,
            schedule="cosine",
            every=4,
            on_step=line.measure,
            chunk=5,
            resume_folder=folder,
            fingerprint="one",
        )

    whole, stopped, resumed = Line(), Line(stop_at=stop_at), Line()
    curve = fit(whole, tmp_path / "whole")
    with pytest.raises(StoppedError):
        fit(stopped, tmp_path / "parts")
    assert fit(resumed, tmp_path / "parts") == curve
    assert resumed.taken == list(range(stop_at // 5 * 5, 30))
    assert resumed.bytes() == whole.bytes()
    # A run that is done takes no step.
    again = Line()
    assert fit(again, tmp_path / "parts") == curve
    assert again.taken == []
    assert again.bytes() == whole.bytes()


def test_checkpoint_of_another_run_is_not_gone_on_from(tmp_path: Path) -> None:
    def steps_taken(fingerprint: str, steps: int = 10, schedule: Schedule = "constant") -> int:
        line = Line()
        train(line, steps, resume_folder=tmp_path, fingerprint=fingerprint, schedule=schedule, chunk=5)
        return len(line.taken)

    assert steps_taken("one") == 10
    assert steps_taken("one") == 0
    assert steps_taken("other") == 10
    assert steps_taken("other", steps=15) == 15
    assert steps_taken("other", steps=15, schedule="cosine") == 15


def test_checkpoint_of_other_code_or_threads_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps_taken() -> int:
        line = Line()
        train(line, 10, resume_folder=tmp_path, chunk=5)
        return len(line.taken)

    threads = torch.get_num_threads()
    try:
        assert [steps_taken(), steps_taken()] == [10, 0]
        torch.set_num_threads(threads + 1)
        assert steps_taken() == 10
    finally:
        torch.set_num_threads(threads)
    assert [steps_taken(), steps_taken()] == [10, 0]
    monkeypatch.setattr(training, "code_digest", lambda: "of other code")
    assert steps_taken() == 10


def test_damaged_checkpoint_starts_over_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"torn")
    line, whole = Line(), Line()
    with caplog.at_level(logging.WARNING):
        train(line, resume_folder=tmp_path)
    train(whole)
    assert "restarts from step 0" in caplog.text
    assert line.bytes() == whole.bytes()


def test_loss_that_is_no_longer_finite_ends_the_run(tmp_path: Path) -> None:
    line = Line()
    with pytest.raises(TansError, match=r"the loss is nan after 10 steps\. Lower the learning rate"):
        train_steps(
            line, lambda step: line.step_loss(step) * math.nan, adam, 30, chunk=10, resume_folder=tmp_path, device="cpu"
        )
    assert not (tmp_path / CHECKPOINT_FILE).exists()


# Imports once, then trains in children that it kills after so many checkpoints and a moment more.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from tests.unit.space.test_training import Line, adam, train

folder = Path(sys.argv[1])
torch.set_num_threads(1)


def child(resume, out):
    if (pid := os.fork()) == 0:
        line = Line()
        curve = train(line, 800, every=50, on_step=line.measure, chunk=10, resume_folder=resume)
        out.write_bytes(line.bytes() + repr(curve).encode())
        os._exit(0)
    return pid


os.waitpid(child(folder / "a", folder / "whole"), 0)
chance, killed = random.Random(0), 0
for _ in range(5):
    pid = child(folder / "b", folder / "parts")
    checkpoint, seen, wanted = folder / "b" / "steps.safetensors", set(), chance.randint(1, 4)
    while len(seen) <= wanted and os.waitpid(pid, os.WNOHANG) == (0, 0):
        seen.add(checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0)
        time.sleep(0.0005)
    time.sleep(chance.random() * 0.01)
    os.kill(pid, signal.SIGKILL)
    killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
assert not (folder / "parts").exists()
os.waitpid(child(folder / "b", folder / "parts"), 0)
print(killed)
"""


@pytest.mark.slow
def test_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 5
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
