"""How long networks take for a batch of images, under a named profile: figures of two profiles never stand in one table."""

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
"""Of measuring one network, warm-up apart."""


class Profile(BaseModel):
    """Under what networks are timed.

    Attributes:
        device: `cpu` or `cuda`.
        processor: its name.
        threads: of torch.
        batch: images at a time.
        torch: version.
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
            ParamsError: it has no such device.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ParamsError("device: got cuda, and torch finds no GPU here. Pass --device cpu.")
        name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
        return cls(device=device, processor=name, threads=threads, batch=batch, torch=torch.__version__)

    @property
    def name(self) -> str:
        return f"{self.device}-{self.threads}-threads-batch-{self.batch}"


class Latency(BaseModel):
    """What was found of one network: median and interquartile range in milliseconds for a batch, and of how many runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    image_size_px: int
    median_ms: float
    iqr_ms: float
    runs: int


def measure_latencies(
    cards: Sequence[ModelCard], load: Callable[[ModelCard], Network], profile: Profile
) -> dict[str, Latency]:
    """Time networks, each architecture at each input size once.

    Args:
        cards: of the networks.
        load: gives a card's network, in eval mode.
        profile: under which; `Profile.here`.

    Returns:
        By id.
    """
    kinds: dict[tuple[str, str, int, int], list[ModelCard]] = {}
    for card in cards:
        kind = (card.family, repr(sorted(card.architecture.items())), card.preprocess.image_size_px, card.outputs)
        kinds.setdefault(kind, []).append(card)
    found: dict[str, Latency] = {}
    for alike in progress(list(kinds.values()), "timing networks"):
        latency = _measure(load(alike[0]), alike[0].preprocess.image_size_px, profile)
        found |= {card.id: latency for card in alike}
    return found


def _measure(network: Network, size_px: int, profile: Profile) -> Latency:
    # Its import looks for compilers, and tells of a GPU that is not there.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    network = network.to(profile.device).eval()
    images = torch.zeros(profile.batch, 3, size_px, size_px, device=profile.device)
    timer = Timer("network(images)", globals={"network": network, "images": images}, num_threads=profile.threads)
    with torch.inference_mode():
        timer.timeit(3)  # warm-up
        taken = timer.blocked_autorange(min_run_time=_LEAST_S)
    return Latency(
        image_size_px=size_px,
        median_ms=1000 * taken.median,
        iqr_ms=1000 * taken.iqr,
        runs=len(taken.times) * taken.number_per_run,
    )


def read_latencies(folder: Path, profile: Profile) -> tuple[Path, dict[str, Any]]:
    """Return the file of a profile and what it holds by id: nothing where there is none yet.

    Raises:
        StoreError: it is of another processor or version of torch, or no such file.
    """
    path = folder / f"{profile.name}.json"
    if not path.is_file():
        return path, {}
    try:
        kept = read_json(path)
        told, networks = Profile.model_validate(kept["profile"]), dict(kept["networks"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path}: not what `tans zoo profile` writes ({error}). Move it away to begin anew."
        ) from error
    if told != profile:
        raise StoreError(
            f"{path}: was measured on {told.processor} with torch {told.torch}, here are {profile.processor} and "
            f"{profile.torch}. Move it away to begin anew."
        )
    return path, networks


def add_latencies(folder: Path, profile: Profile, found: dict[str, Latency]) -> Path:
    """Add figures to the file of their profile, and return it.

    Raises:
        StoreError: as `read_latencies`.
    """
    path, networks = read_latencies(folder, profile)
    networks |= {name: one.model_dump() for name, one in found.items()}
    write_json({"profile": profile.model_dump(), "networks": networks}, path)
    return path


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
