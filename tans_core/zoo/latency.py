"""Measures how long networks take for a batch of images. Each profile (device, threads, batch) has its own table."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field

from tans_core.errors import ParamsError, StoreError
from tans_core.io import read_json, sha256_bytes, write_json
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
    """The timing of one network: median and interquartile range in milliseconds per batch, over a number of runs.

    Attributes:
        network: `network_key` of the network that was timed; empty in files of earlier versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    network: str = ""
    image_size_px: int
    median_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]
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
    groups: dict[str, list[ModelCard]] = {}
    for card in cards:
        groups.setdefault(network_key(card), []).append(card)
    latencies: dict[str, Latency] = {}
    for key, group in progress(list(groups.items()), "timing networks"):
        measured = _measure(load(group[0]), group[0].preprocess.image_size_px, profile)
        latency = measured.model_copy(update={"network": key})
        latencies |= {card.id: latency for card in group}
    return latencies


def network_key(card: ModelCard) -> str:
    """Return a hash of what determines a network's latency: equal for networks that differ in weights only."""
    parts = [card.family, card.architecture, card.preprocess.image_size_px, card.outputs]
    return sha256_bytes(json.dumps(parts, sort_keys=True).encode())[:16]


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


def medians(folder: Path, name: str, cards: Mapping[str, ModelCard]) -> dict[str, float]:
    """Return the median latency in milliseconds of each network that was timed under a profile, by id.

    A network that has changed since, under the same id, was not timed. One that differs in its weights only, was.

    Args:
        folder: of the profiles' files.
        name: of the profile.
        cards: of the networks, by id.

    Raises:
        StoreError: the file is not one of `tans zoo profile`, or of another profile.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        return {}
    profile, networks = _read(path)
    if profile.name != name:
        raise StoreError(f"{path}: holds timings of the profile {profile.name}. Rename it to {profile.name}.json.")
    by_key = {latency.network: latency.median_ms for latency in networks.values()}
    by_id = {(model, latency.network): latency.median_ms for model, latency in networks.items()}
    keys = {model: network_key(card) for model, card in cards.items()}
    return {model: by_id.get((model, key), by_key[key]) for model, key in keys.items() if key in by_key}


def read_latencies(folder: Path, profile: Profile) -> tuple[Path, dict[str, Latency]]:
    """Return the path of a profile's file, and its latencies by model id: empty if there is no file yet.

    Raises:
        StoreError: it is of another processor or torch version, or is not such a file.
    """
    path = folder / f"{profile.name}.json"
    if not path.is_file():
        return path, {}
    stored_profile, networks = _read(path)
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
    described = {name: latency.model_dump() for name, latency in {**networks, **latencies}.items()}
    write_json({"profile": profile.model_dump(), "networks": described}, path)
    return path


def _read(path: Path) -> tuple[Profile, dict[str, Latency]]:
    try:
        stored = read_json(path)
        networks = {name: Latency.model_validate(latency) for name, latency in stored["networks"].items()}
        return Profile.model_validate(stored["profile"]), networks
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{path}: not a file of `tans zoo profile` ({error}). Move it away to start a new one."
        ) from error


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
