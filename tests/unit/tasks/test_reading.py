"""A worker's result for a chunk of images."""

from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image

from tans_core.tasks.reading import perceptual_hashes
from tests.factories.images import noise


def test_hashes_are_those_of_imagehash() -> None:
    greys = [np.asarray(Image.fromarray(noise(32, 32, seed=seed)).convert("L")) for seed in range(20)]
    # Of what is symmetric, or the same in each row, many frequencies are zero.
    greys += [np.maximum(grey, grey[:, ::-1]) for grey in greys[:5]]
    greys += [np.maximum(grey, grey[::-1]) for grey in greys[20:25]]
    greys += [np.tile(grey[:1], (32, 1)) for grey in greys[:5]] + [np.full((32, 32), 90, dtype=np.uint8)]
    ours = perceptual_hashes(np.stack(greys).astype(np.float32))
    theirs = [int(str(imagehash.phash(Image.fromarray(grey))), 16) for grey in greys]
    assert ours.tolist() == theirs
