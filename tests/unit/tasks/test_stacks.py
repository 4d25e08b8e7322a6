"""Small images of one size that are brought to their stored size together, and what stands out in an image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tans_core.tasks.decode import fit
from tans_core.tasks.stacks import fit_each, resized
from tests.factories.images import noise

SIZES = [(128, 128), (97, 97), (96, 96), (192, 192), (28, 28), (1, 1), (3, 2), (129, 86), (250, 7), (7, 250)]
UPRIGHT = [(width, height) for width in (97, 100, 121) for height in range(width, 150, 6)]


@pytest.mark.parametrize("stored_size_px", [96, 64, 33])
@pytest.mark.parametrize("size", [*SIZES, *UPRIGHT, *((height, width) for width, height in UPRIGHT)])
def test_together_images_become_what_each_becomes_alone(size: tuple[int, int], stored_size_px: int) -> None:
    images = [noise(*size, seed=seed) for seed in range(5)]
    found = np.concatenate([squares for squares, _ in fit_each(images, stored_size_px)])
    alone = [np.asarray(fit(Image.fromarray(image), stored_size_px)) for image in images]
    np.testing.assert_array_equal(found, np.stack(alone))


def test_images_of_several_sizes_keep_their_order() -> None:
    sizes = [(40, 40)] * 70 + [(60, 40), (40, 40), (300, 300), (40, 40), (40, 40), (60, 40)]
    images = [noise(*size, seed=seed) for seed, size in enumerate(sizes)]
    mixed = [Image.fromarray(image) if image.size > 3 * 2**16 else image for image in images]
    found = [square for squares, _ in fit_each(mixed, 32) for square in squares]
    alone = [np.asarray(fit(Image.fromarray(image), 32)) for image in images]
    np.testing.assert_array_equal(np.stack(found), np.stack(alone))


@pytest.mark.parametrize("side", [33, 64, 96, 128, 255])
def test_resizing_is_pillows(side: int) -> None:
    images = np.stack([noise(side, side, seed=seed) for seed in range(4)])
    for kernel in (Image.Resampling.HAMMING, Image.Resampling.BILINEAR):
        alone = [np.asarray(Image.fromarray(image).resize((32, 32), kernel)) for image in images]
        np.testing.assert_array_equal(resized(images, 32, kernel), np.stack(alone))


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("side", [50, 300])
def test_one_pixel_stands_out_and_sensor_noise_does_not(side: int, channel: int) -> None:
    for value, stands_out in ((131, False), (132, True)):
        image = np.full((side, side, 3), 100, dtype=np.uint8)
        image[side // 2 + 1, 3, channel] = value
        images = [image if side < 256 else Image.fromarray(image)]
        assert [found.tolist() for _, found in fit_each(images, 32)] == [[stands_out]]
