from __future__ import annotations

import numpy as np
import pytest
import torch

from tans_core.errors import ParamsError, TooFewImagesError
from tans_core.finetuning.batches import TrainBatches, batches_per_epoch, draw_shifts, shift_mirroring_edges


def make_batches(count: int, batch_size: int = 8, steps: int = 6, seed: int = 1) -> TrainBatches:
    images = torch.arange(count * 3 * 16 * 16).reshape(count, 3, 16, 16).remainder(251).to(torch.uint8)
    return TrainBatches(
        images, torch.arange(count), mean=(0.5,) * 3, std=(0.5,) * 3, batch_size=batch_size, steps=steps, seed=seed
    )


@pytest.mark.parametrize(("images", "expected"), [(2, 1), (7, 1), (8, 1), (9, 1), (10, 2), (16, 2), (17, 2), (18, 3)])
def test_only_a_last_batch_of_one_image_is_left_out(images: int, expected: int) -> None:
    assert batches_per_epoch(images, 8) == expected
    drawn = list(make_batches(images, steps=expected))
    assert sum(len(labels) for _, labels in drawn) == images - (images % 8 == 1)
    assert min(len(labels) for _, labels in drawn) >= 2


def test_every_epoch_visits_each_image_once_in_a_new_order() -> None:
    labels = [labels for _, labels in make_batches(20, steps=6)]
    first, second = torch.cat(labels[:3]), torch.cat(labels[3:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(20))
    assert first.tolist() != second.tolist()


def test_the_seed_alone_decides_batches_and_shifts() -> None:
    torch.manual_seed(1)
    once = list(make_batches(20, seed=3))
    torch.manual_seed(2)
    again, other = list(make_batches(20, seed=3)), list(make_batches(20, seed=4))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(once, again, strict=True))
    assert not all(torch.equal(a[1], b[1]) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("done", [1, 3, 4])
def test_batches_go_on_where_they_stopped(done: int) -> None:
    whole, rest = list(make_batches(20)), make_batches(20)
    rest.load_state_dict({"done": done})
    resumed = list(rest)
    assert len(resumed) == len(whole) - done
    assert all(
        torch.equal(a, b)
        for one, other in zip(whole[done:], resumed, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert rest.state_dict() == {"done": 6}


def test_shift_moves_whole_images_and_mirrors_the_border() -> None:
    images = torch.arange(5 * 3 * 6 * 6).reshape(5, 3, 6, 6)
    shifted = shift_mirroring_edges(images, draw_shifts(5, 2, torch.Generator().manual_seed(0)))
    shifts = torch.randint(-2, 3, (2, 5, 1), generator=torch.Generator().manual_seed(0)).squeeze(2).numpy()
    assert len({tuple(pair) for pair in shifts.T}) > 1
    for image, result, down, right in zip(images.numpy(), shifted.numpy(), *shifts, strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        np.testing.assert_array_equal(result, padded[:, 2 + down : 8 + down, 2 + right : 8 + right])


def test_one_image_is_too_few_and_so_is_a_batch_of_one() -> None:
    with pytest.raises(TooFewImagesError, match="got 1 images, want at least 2"):
        make_batches(1)
    with pytest.raises(ParamsError, match="got 1, want at least 2"):
        make_batches(20, batch_size=1)
