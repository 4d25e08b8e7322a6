"""Settings of a family that starts from published weights, and what a change of each must change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tans_core.networks.registry import get_family
from tans_core.params import load_params

STARTED = "elastic-mbconv"
CHANGES: dict[str, Any] = {
    "image_size_px": 48,
    "used_at_px": [64],
    "weights": "efficientnet-lite1",
    "kernels": [5],
    "expansions": [6],
    "min_depth": 2,
}


def run_started(root: Path) -> Any:
    """Return what base and zoo take from the family: members, input, licences, and the weights that it starts from."""
    family = get_family(STARTED)
    space = family.space(load_params(root).networks[STARTED])
    rng = np.random.default_rng(0)
    members = [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(3))]
    described = [space.describe(member) for member in members]
    supernet = space.supernet(2)
    family.start(space, supernet)
    return (
        [(one, family.topology(one, space.image_size_px).tolist()) for one in described],
        family.preprocess(space, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
        family.sizes_px(space),
        family.base_weights(space),
        sum(float(value.sum()) for value in supernet.stem.state_dict().values()),
    )
