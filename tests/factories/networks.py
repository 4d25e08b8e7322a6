"""Networks that train in a second, and the preprocessing of their images."""

from __future__ import annotations

from typing import Any

import torch

from tans_core.networks.elastic import FAMILY, ElasticNetwork, ElasticSpace
from tans_core.networks.preprocess import Preprocess

PREPROCESS = Preprocess(image_size_px=16, mean=(0.5,) * 3, std=(0.25,) * 3, statistics="task")


def tiny_space(**changes: Any) -> ElasticSpace:
    """A search space of four members: two stages, of one or two blocks each."""
    settings = {"image_size_px": 16, "stem_width": 8, "widths": (8, 16), "strides": (2, 2), "max_depth": 1}
    return ElasticSpace(**{**settings, "kernels": (3,), "ratios": (1.0,), **changes})


def tiny_network(num_classes: int = 3, seed: int = 0, **changes: Any) -> ElasticNetwork:
    """The smallest member of a tiny space in eval mode, the same for the same seed."""
    space = tiny_space(**changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FAMILY.build(space.describe(space.smallest()), num_classes).eval()
