"""From stored pixels to what a network reads, and BatchNorm's statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from tans_core.networks.elastic import FAMILY
from tans_core.networks.preprocess import (
    Preprocess,
    balanced_indices,
    batch_statistics,
    calibrate,
    normalise,
    shift_repeating_edges,
)
from tests.factories.tasks import grating_task

OWN: dict[str, Any] = {"image_size_px": 8, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}


def test_own_statistics_stay_whatever_the_task() -> None:
    own = Preprocess(**OWN)
    assert own.on(grating_task().info) == own
    assert own.statistics == "own"  # what published weights want is what is meant where nothing is said


def test_statistics_of_the_task_take_the_place_of_those_on_the_card() -> None:
    info = grating_task().info
    found = Preprocess(**OWN, statistics="task", crop=0.9, interpolation="box").on(info)
    assert (found.mean, found.std) == (info.mean, info.std)
    assert (found.image_size_px, found.crop, found.interpolation, found.statistics) == (8, 0.9, "box", "task")


@pytest.mark.parametrize("changes", [{}, {"crop": 0.5}, {"interpolation": "nearest"}, {"image_size_px": 24}])
def test_pixels_are_cropped_and_scaled_as_the_card_says(changes: dict[str, Any]) -> None:
    task = grating_task(train=5, val=2, test=2)
    preprocess = Preprocess(**{**OWN, **changes})
    size, wanted = preprocess.image_size_px, []
    for image in np.stack(list(task.images))[task.splits == "val"]:
        margin = 16 * (1 - preprocess.crop) / 2
        method = getattr(Image.Resampling, preprocess.interpolation.upper())
        box = (margin, margin, 16 - margin, 16 - margin)
        wanted.append(np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), method, box)))
    found = preprocess.pixels(task, "val")
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), np.stack(wanted).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("statistics", ["own", "task"])
def test_chosen_images_are_scaled_and_normalised_by_the_statistics_that_hold(statistics: Any) -> None:
    task = grating_task(train=5, val=2, test=2)
    preprocess = Preprocess(**OWN, statistics=statistics)
    mean, std = (preprocess.mean, preprocess.std) if statistics == "own" else (task.info.mean, task.info.std)
    found = preprocess.chosen(task, [7, 1])
    pixels = task.pixels(8)[[7, 1]]
    wanted = (pixels / 255 - np.array(mean)[None, :, None, None]) / np.array(std)[None, :, None, None]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_fields_of_a_newer_version_are_kept() -> None:
    raw = {**OWN, "mean": [0.1, 0.2, 0.3], "padding": {"mode": "edge"}}
    read = Preprocess.model_validate(raw)
    for one in (read, read.on(grating_task().info), read.model_copy(update={"crop": 0.5})):
        assert one.model_dump(mode="json")["padding"] == {"mode": "edge"}


@pytest.mark.parametrize(
    "change",
    [
        {"image_size_px": 7},
        {"image_size_px": 1025},
        {"image_size_px": 8.5},
        {"crop": 0},
        {"crop": 1.01},
        {"crop": float("nan")},
        {"interpolation": "area"},
        {"statistics": "imagenet"},
        {"mean": (0.1, 0.2)},
        {"std": (0.1, 0.2, 0.3, 0.4)},
        {"std": None},
        {"std": (0.1, 0.2, float("inf"))},
    ],
)
def test_values_out_of_range_are_refused_by_name(change: dict[str, Any]) -> None:
    Preprocess(**{**OWN, "image_size_px": 1024, "crop": 1})
    with pytest.raises(ValidationError) as caught:
        Preprocess(**{**OWN, **change})
    assert {error["loc"][0] for error in caught.value.errors()} == set(change)


class Mixed(nn.Module):
    """Every kind of layer whose mode matters, in modes that differ."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.drop = nn.Dropout(0.5)
        self.instance = nn.InstanceNorm2d(4, track_running_stats=True)
        self.average = nn.BatchNorm2d(4, momentum=None)
        self.untracked = nn.BatchNorm2d(4, track_running_stats=False)
        self.last = nn.BatchNorm1d(4, momentum=0.3)
        self.fails = False
        self.inputs: dict[str, Tensor] = {}
        for norm in (self.first[1], self.average, self.untracked, self.last):
            norm.register_forward_pre_hook(self.note)

    def note(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        name = next(name for name, one in self.named_modules() if one is module)
        self.inputs[name] = inputs[0].detach().clone()

    def features(self, images: Tensor) -> Tensor:
        hidden = self.untracked(self.average(self.instance(self.drop(self.first(images))).relu()))
        found: Tensor = self.last(hidden.mean(dim=(2, 3)))
        if self.fails:
            raise _OutOfMemoryError
        return found


class _OutOfMemoryError(Exception):
    pass


def mixed() -> Mixed:
    torch.manual_seed(0)
    network = Mixed().train()
    network.features(torch.randn(6, 3, 8, 8))  # statistics that are nobody's defaults
    network.average.eval()
    network.drop.train()
    network.first.eval()
    return network


def snapshot(network: nn.Module) -> tuple[dict[str, bool], dict[str, Tensor], dict[str, float | None]]:
    modes = {name: module.training for name, module in network.named_modules()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    momenta = {
        name: one.momentum for name, one in network.named_modules() if isinstance(one, nn.modules.batchnorm._NormBase)
    }
    return modes, state, momenta


def assert_same(before: Any, after: Any, except_for: tuple[str, ...] = ("\0",)) -> None:
    assert before[0] == after[0] and before[2] == after[2]
    assert before[1].keys() == after[1].keys()
    differing = {name for name, value in before[1].items() if not torch.equal(value, after[1][name])}
    assert all(name.endswith(except_for) for name in differing), differing


@pytest.mark.parametrize("fails", [False, True])
def test_batch_statistics_leave_a_network_as_it_was(fails: bool) -> None:
    network = mixed()
    network.fails = fails
    before = snapshot(network)
    try:
        with batch_statistics(network) as norms:
            assert [norm.num_features for norm in norms] == [4, 4, 4, 4]
            for norm in norms:
                norm.momentum = 0.77
            network.features(torch.randn(6, 3, 8, 8))
    except _OutOfMemoryError:
        assert fails
    assert_same(before, snapshot(network))


def test_inside_batch_statistics_only_batchnorm_trains() -> None:
    network = mixed()
    images = torch.randn(6, 3, 8, 8)
    with batch_statistics(network):
        training = {name for name, module in network.named_modules() if module.training}
        first, again = network.features(images), network.features(images)
    assert training == {"first.1", "average", "untracked", "last"}
    assert torch.equal(first, again)  # no dropout
    inputs = network.inputs["last"]
    wanted = (inputs - inputs.mean(dim=0)) / (inputs.var(dim=0, unbiased=False) + network.last.eps).sqrt()
    torch.testing.assert_close(first, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [2, 50])
def test_calibration_sets_mean_and_variance_of_the_batch_and_nothing_else(batch: int) -> None:
    network = mixed()
    before = snapshot(network)
    calibrate(network, torch.randn(batch, 3, 8, 8) * 3 + 1)
    assert_same(before, snapshot(network), ("running_mean", "running_var"))
    assert torch.equal(before[1]["instance.running_mean"], network.instance.running_mean)
    for name in ("first.1", "average", "last"):
        norm, inputs = network.get_submodule(name), network.inputs[name]
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        torch.testing.assert_close(norm.running_mean, inputs.mean(dim=axes), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var, inputs.var(dim=axes, unbiased=True), rtol=1e-4, atol=1e-6)


def test_calibration_that_fails_changes_nothing() -> None:
    network = mixed()
    network.fails = True
    before = snapshot(network)
    with pytest.raises(_OutOfMemoryError):
        calibrate(network, torch.randn(6, 3, 8, 8))
    assert_same(before, snapshot(network))


def test_calibration_of_a_network_without_batchnorm_does_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout())
    before = snapshot(network)
    calibrate(network, torch.randn(6, 3, 8, 8))
    assert_same(before, snapshot(network))


def test_calibration_sets_the_statistics_of_an_elastic_network_to_those_of_all_images_at_once() -> None:
    network = FAMILY.build({"stages": [[{"kernel": 3, "ratio": 0.5}]] * 3}, 2)
    images = torch.randn(40, 3, 16, 16) * 3 + 1
    calibrate(network, images)
    answers = nn.functional.conv2d(images, network.stem.weight, padding=1)
    torch.testing.assert_close(network.stem.norm.running_mean, answers.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(network.stem.norm.running_var, answers.var(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert network.training  # as it was
    assert network.stem.norm.momentum == 0.1


def test_normalise_matches_the_formula() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), dtype=np.uint8))
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    wanted = (images.numpy() / 255 - np.array(mean)[None, :, None, None]) / np.array(std)[None, :, None, None]
    np.testing.assert_allclose(normalise(images, mean, std).numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_shifted_image_is_a_window_of_the_padded_one() -> None:
    images = torch.arange(2 * 3 * 6 * 6, dtype=torch.uint8).reshape(2, 3, 6, 6)
    shifted = shift_repeating_edges(images, 2, torch.Generator().manual_seed(3))
    offsets = torch.randint(0, 5, (2, 2), generator=torch.Generator().manual_seed(3))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    for index in range(2):
        row, column = offsets[0, index], offsets[1, index]
        np.testing.assert_array_equal(shifted[index].numpy(), padded[index, :, row : row + 6, column : column + 6])
    assert shifted.dtype == torch.uint8


def test_no_shift_returns_the_images() -> None:
    images = torch.zeros(1, 3, 4, 4)
    assert shift_repeating_edges(images, 0, torch.Generator()) is images


@pytest.mark.parametrize("count", [6, 9, 50])
def test_balanced_sample_of_sorted_data_holds_each_class_alike_and_is_shuffled(count: int) -> None:
    labels = torch.tensor([0] * 20 + [1] * 20 + [2] * 2)
    chosen = balanced_indices(labels, count, torch.Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(labels))
    counts = torch.bincount(labels[chosen], minlength=3).tolist()
    assert max(counts[:2]) - min(counts[:2]) <= 1
    assert counts[2] == 2
    assert labels[chosen].tolist() != sorted(labels[chosen].tolist())
