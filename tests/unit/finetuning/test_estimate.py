"""The memory that a fine-tuning takes, estimated from shapes and measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tans_core.finetuning.estimate import estimate_memory_mb
from tests.factories.networks import PREPROCESS, tiny_network

# The growth of a process that keeps what it freed, by two training steps.
MEASURE = """
import psutil, torch, torchvision
from tans_core.runtime import keep_freed_memory
keep_freed_memory()
torch.manual_seed(0)
torch.set_num_threads(1)
network = torchvision.models.mobilenet_v3_small(weights=None).train()
optimizer = torch.optim.AdamW(network.parameters())
def step(size):
    optimizer.zero_grad()
    network(torch.rand(size, 3, 64, 64)).sum().backward()
    optimizer.step()
step(2)
before = psutil.Process().memory_info().rss
for _ in range(2):
    step(64)
moments = 16 * sum(one.numel() for one in network.parameters())
print((psutil.Process().memory_info().rss - before + moments) / 1e6)
"""


def test_estimated_memory_is_near_the_measured_one() -> None:
    import torchvision

    network = torchvision.models.mobilenet_v3_small(weights=None)
    preprocess = PREPROCESS.model_copy(update={"image_size_px": 64})
    command = [sys.executable, "-c", MEASURE]
    measured = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert estimate_memory_mb(network, preprocess, batch_size=64) == pytest.approx(measured, rel=0.35)


def test_estimated_memory_grows_with_batches_and_changes_nothing() -> None:
    network = tiny_network().train()
    small, large = (estimate_memory_mb(network, PREPROCESS, batch_size=size) for size in (8, 800))
    assert 50 * small < large < 100 * small
    assert network.training and next(network.parameters()).device == torch.device("cpu")
