import numpy as np
import pytest
import torch

from tans_core.networks.preprocess import balanced_indices, normalise, random_shift


def test_normalise_matches_the_formula() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), dtype=np.uint8))
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    wanted = (images.numpy() / 255 - np.array(mean)[None, :, None, None]) / np.array(std)[None, :, None, None]
    np.testing.assert_allclose(normalise(images, mean, std).numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_shifted_image_is_a_window_of_the_padded_one() -> None:
    images = torch.arange(2 * 3 * 6 * 6, dtype=torch.uint8).reshape(2, 3, 6, 6)
    shifted = random_shift(images, 2, torch.Generator().manual_seed(3))
    offsets = torch.randint(0, 5, (2, 2), generator=torch.Generator().manual_seed(3))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    for index in range(2):
        row, column = offsets[0, index], offsets[1, index]
        np.testing.assert_array_equal(shifted[index].numpy(), padded[index, :, row : row + 6, column : column + 6])
    assert shifted.dtype == torch.uint8


def test_no_shift_returns_the_images() -> None:
    images = torch.zeros(1, 3, 4, 4)
    assert random_shift(images, 0, torch.Generator()) is images


@pytest.mark.parametrize("count", [6, 9, 50])
def test_balanced_sample_of_sorted_data_holds_each_class_alike_and_is_shuffled(count: int) -> None:
    labels = torch.tensor([0] * 20 + [1] * 20 + [2] * 2)
    chosen = balanced_indices(labels, count, torch.Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(labels))
    counts = torch.bincount(labels[chosen], minlength=3).tolist()
    assert max(counts[:2]) - min(counts[:2]) <= 1
    assert counts[2] == 2
    assert labels[chosen].tolist() != sorted(labels[chosen].tolist())
