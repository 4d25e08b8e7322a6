"""Measures how long networks take for a batch of images. Each profile (device, threads, batch) has its own table."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from tans_core.errors import ParamsError, StoreError
from tans_core.io import read_json, write_json
from tans_core.networks.family import Network
from tans_core.runtime import progress
from tans_core.zoo.card import ModelCard

_LEAST_S = 0.5
"""Minimum time of measuring one network, without the warm-up."""


class Profile(BaseModel):
    """The conditions of a timing.

    Attributes:
        device: `cpu` or `cuda`.
        processor: its name.
        threads: of torch.
        batch: images at a time.
        torch: version of torch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    device: str
    processor: str
    threads: int
    batch: int
    torch: str

    @classmethod
    def here(cls, device: str, threads: int, batch: int) -> Profile:
        """Describe this machine.

        Raises:
            ParamsError: this machine has no such device.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ParamsError("device: got cuda, but torch finds no GPU. Pass --device cpu.")
        name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
        return cls(device=device, processor=name, threads=threads, batch=batch, torch=torch.__version__)

    @property
    def name(self) -> str:
        return f"{self.device}-{self.threads}-threads-batch-{self.batch}"


class Latency(BaseModel):
    """The timing of one network: median and interquartile range in milliseconds per batch, over a number of runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    image_size_px: int
    median_ms: float
    iqr_ms: float
    runs: int


def measure_latencies(
    cards: Sequence[ModelCard], load: Callable[[ModelCard], Network], profile: Profile
) -> dict[str, Latency]:
    """Time networks; those of equal architecture and input size are timed once.

    Args:
        cards: of the networks.
        load: returns a card's network, in eval mode.
        profile: the conditions, from `Profile.here`.

    Returns:
        Latencies by model id.
    """
    groups: dict[tuple[str, str, int, int], list[ModelCard]] = {}
    for card in cards:
        key = (card.family, repr(sorted(card.architecture.items())), card.preprocess.image_size_px, card.outputs)
        groups.setdefault(key, []).append(card)
    latencies: dict[str, Latency] = {}
    for group in progress(list(groups.values()), "timing networks"):
        latency = _measure(load(group[0]), group[0].preprocess.image_size_px, profile)
        latencies |= {card.id: latency for card in group}
    return latencies


def _measure(network: Network, size_px: int, profile: Profile) -> Latency:
    # Importing the benchmark searches for compilers and warns about a missing GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    network = network.to(profile.device).eval()
    images = torch.zeros(profile.batch, 3, size_px, size_px, device=profile.device)
    timer = Timer("network(images)", globals={"network": network, "images": images}, num_threads=profile.threads)
    with torch.inference_mode():
        timer.timeit(3)  # warm-up
        timing = timer.blocked_autorange(min_run_time=_LEAST_S)
    return Latency(
        image_size_px=size_px,
        median_ms=1000 * timing.median,
        iqr_ms=1000 * timing.iqr,
        runs=len(timing.times) * timing.number_per_run,
    )


def read_latencies(folder: Path, profile: Profile) -> tuple[Path, dict[str, Any]]:
    """Return the path of a profile's file, and its latencies by model id: empty if there is no file yet.

    Raises:
        StoreError: it is of another processor or torch version, or is not such a file.
    """
    path = folder / f"{profile.name}.json"
    if not path.is_file():
        return path, {}
    try:
        stored = read_json(path)
        stored_profile, networks = Profile.model_validate(stored["profile"]), dict(stored["networks"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path}: not a file of `tans zoo profile` ({error}). Move it away to start a new one."
        ) from error
    if stored_profile != profile:
        raise StoreError(
            f"{path}: was measured on {stored_profile.processor} with torch {stored_profile.torch}, but this machine "
            f"has {profile.processor} with torch {profile.torch}. Move it away to start a new one."
        )
    return path, networks


def add_latencies(folder: Path, profile: Profile, latencies: dict[str, Latency]) -> Path:
    """Add latencies to the file of their profile, and return its path.

    Raises:
        StoreError: as `read_latencies`.
    """
    path, networks = read_latencies(folder, profile)
    networks |= {name: latency.model_dump() for name, latency in latencies.items()}
    write_json({"profile": profile.model_dump(), "networks": networks}, path)
    return path


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
