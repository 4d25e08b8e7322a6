"""Costs and topology codes, compared with counts by hand and by torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import MobileNet_V3_Small_Weights, ResNet18_Weights, mobilenet_v3_small, resnet18

from tans_core.networks.elastic import FAMILY, Block, ElasticSpace, Member
from tans_core.networks.trace import TOPOLOGY_DIM, Layer, cost_of, topology_code, trace

SETTINGS = {
    "image_size_px": 32,
    "stem_width": 16,
    "widths": [24, 48, 96],
    "strides": [2, 2, 2],
    "max_depth": 3,
    "kernels": [3, 5],
    "ratios": [0.25, 0.5, 1.0],
}
SPACE = FAMILY.space(SETTINGS)


def distinct(space: ElasticSpace, count: int, seed: int = 0) -> list[Member]:
    rng = np.random.default_rng(seed)
    found: dict[Member, None] = {}
    while len(found) < count:
        found[space.sample(rng)] = None
    return list(found)


def code(member: Member, space: ElasticSpace = SPACE) -> tuple[float, ...]:
    return tuple(FAMILY.topology(space.describe(member), space.image_size_px).tolist())


class Small(nn.Module):
    """Strides, groups, a bias, normalisation, and two matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(8, 6)
        self.classifier = nn.Linear(6, 4, bias=False)

    def features(self, images: Tensor) -> Tensor:
        found: Tensor = self.drop(self.depthwise(self.norm(self.first(images)).relu()))
        return self.hidden(found.mean(dim=(2, 3)))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))  # type: ignore[no-any-return]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_small_network_costs_what_one_counts_by_hand(device: str) -> None:
    network = Small().to(device)
    found = trace(network, network, 20)
    side = 10  # of 20 pixels at stride 2
    assert found.params == (3 * 8 * 25 + 8) + (8 + 8) + (8 * 9) + (8 * 6 + 6) + (6 * 4)
    assert found.layers == (
        Layer(kernel=5, stride=2, groups=1, channels=8, side_px=side, values=8 * side**2, macs=3 * 8 * 25 * side**2),
        Layer(kernel=3, stride=1, groups=8, channels=8, side_px=side, values=8 * side**2, macs=8 * 9 * side**2),
        Layer(kernel=1, stride=1, groups=1, channels=6, side_px=1, values=6, macs=8 * 6),
        Layer(kernel=1, stride=1, groups=1, channels=4, side_px=1, values=4, macs=6 * 4),
    )
    cost = cost_of(network, 20)
    assert (cost.params_m, cost.macs_m) == (found.params / 1e6, found.macs / 1e6)
    assert cost.largest_layer_m == 8 * side**2 / 1e6
    assert trace(network, network.features, 20).layers == found.layers[:3]


def counted(member: Member, size: int, classes: int) -> tuple[int, int]:
    """The closed formula of the elastic family: parameters and MACs of its stem, blocks and classifier."""
    params = macs = 0

    def conv(inputs: int, outputs: int, kernel: int, side: int) -> None:
        nonlocal params, macs
        params += inputs * outputs * kernel**2 + 2 * outputs  # and BatchNorm's scale and bias
        macs += inputs * outputs * kernel**2 * side**2

    width, side = SETTINGS["stem_width"], size
    conv(3, width, 3, side)
    for stage, outputs, stride in zip(member, SETTINGS["widths"], SETTINGS["strides"], strict=True):
        for number, block in enumerate(stage):
            inner = max(8, round(outputs * block.ratio / 8) * 8)
            if number == 0:
                side = math.ceil(side / stride)
                conv(width, outputs, 1, side)
            conv(width, inner, block.kernel, side)
            conv(inner, outputs, 3, side)
            width = outputs
    return params + width * classes + classes, macs + width * classes


def test_fifty_elastic_members_cost_what_the_closed_formula_says() -> None:
    for number, member in enumerate(distinct(SPACE, 50)):
        size, classes = 17 + number % 16, 2 + number
        cost = FAMILY.cost(SPACE.describe(member), size, classes)
        params, macs = counted(member, size, classes)
        assert (cost.params_m, cost.macs_m) == (params / 1e6, macs / 1e6)


@pytest.mark.parametrize(
    ("make", "published"),
    [(mobilenet_v3_small, MobileNet_V3_Small_Weights.IMAGENET1K_V1), (resnet18, ResNet18_Weights.IMAGENET1K_V1)],
)
def test_networks_of_torchvision_cost_what_is_published_and_what_torch_counts(
    make: Callable[[], nn.Module], published: MobileNet_V3_Small_Weights | ResNet18_Weights
) -> None:
    with torch.device("meta"):
        whole = trace(*(make(),) * 2, 224)
    assert whole.params == published.meta["num_params"]
    assert round(whole.macs / 1e9, 3) == published.meta["_ops"]  # in 10^9 MACs, rounded
    network = make().eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 64, 64))
    assert trace(network, network, 64).macs == counter.get_total_flops() // 2
    assert trace(network.to("meta"), network, 64).macs == counter.get_total_flops() // 2


class _WrongSizeError(Exception):
    pass


@pytest.mark.parametrize("fails", [False, True])
def test_trace_leaves_modes_and_buffers_as_they_were(fails: bool) -> None:
    network = Small().train()
    network.norm.eval()
    network(torch.randn(4, 3, 20, 20))
    modes = {name: module.training for name, module in network.named_modules()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    seen: list[bool] = []

    def look(images: Tensor) -> Tensor:
        seen.extend(module.training for module in network.modules())
        if fails:
            raise _WrongSizeError
        return network(images)  # type: ignore[no-any-return]

    try:
        trace(network, look, 20)
    except _WrongSizeError:
        assert fails
    assert seen and not any(seen)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_codes_tell_all_pairs_of_random_members_apart() -> None:
    members = distinct(SPACE, 64)  # 2,016 pairs
    assert len({code(member) for member in members}) == 64


def test_codes_tell_all_members_of_a_space_apart_that_differ_in_the_order_of_blocks_alone() -> None:
    space = FAMILY.space({**SETTINGS, "widths": [16], "strides": [2], "ratios": [0.5, 1.0]})
    blocks = [Block(kernel=kernel, ratio=ratio) for kernel in space.kernels for ratio in space.ratios]
    members = [(stage,) for depth in (1, 2, 3) for stage in itertools.product(blocks, repeat=depth)]
    assert len(members) == 4 + 16 + 64
    assert len({code(member, space) for member in members}) == len(members)


def test_members_that_differ_in_stride_or_width_alone_have_other_codes() -> None:
    changes = [{}, {"stem_width": 8}, {"widths": [24, 48, 104]}, {"strides": [2, 1, 2]}, {"strides": [1, 2, 2]}]
    spaces = [FAMILY.space({**SETTINGS, **change}) for change in changes]
    assert len({code(space.smallest(), space) for space in spaces}) == len(changes)


def test_code_is_the_same_for_the_same_architecture_whatever_its_weights() -> None:
    member = distinct(SPACE, 1)[0]
    codes = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = FAMILY.build(SPACE.describe(member), num_classes=5 + seed)
        network(torch.randn(8, 3, 32, 32))  # other BatchNorm statistics, too
        network.reset_classifier(2, torch.Generator().manual_seed(seed))
        codes.append(topology_code(trace(network, network.features, 32), 32, network.feature_dim))
    assert np.array_equal(codes[0], codes[1])
    assert tuple(codes[0].tolist()) == code(member) == code(member)


def test_codes_of_all_families_are_of_one_length_and_finite() -> None:
    with torch.device("meta"):
        networks = [(resnet18(), 512), (mobilenet_v3_small(), 576)]
    codes = [topology_code(trace(network, network, 224), 224, width) for network, width in networks]
    codes += [FAMILY.topology(SPACE.describe(member), 32) for member in (SPACE.smallest(), SPACE.largest())]
    assert {one.shape for one in codes} == {(TOPOLOGY_DIM,)}
    assert all(np.isfinite(one).all() for one in codes)
    assert len({one.tobytes() for one in codes}) == 4


def test_code_says_what_its_parts_are_said_to_say() -> None:
    found = trace(network := Small(), network, 20)
    values = topology_code(found, 20, feature_dim=6)
    levels = values[:56].reshape(7, 8)
    convs = 3 * 8 * 25 * 100 + 8 * 9 * 100
    # Level 1, half of 20 pixels: both convolutions. One pixel is a twentieth, 2 ** -4.3: level 4 holds the products.
    wanted = [2, math.log1p(convs), (5 + 3) / 2, (2 + 1) / 2, 3, 1 / 2, 5 + 0.8 * 3, 3 + 0.8 * 3]
    np.testing.assert_allclose(levels[1], wanted, rtol=1e-6)
    channels = [math.log2(6), math.log2(4)]
    wanted = [2, math.log1p(8 * 6 + 6 * 4), 1, 1, sum(channels) / 2, 0, 1.8, channels[0] + 0.8 * channels[1]]
    np.testing.assert_allclose(levels[4], wanted, rtol=1e-6)
    assert not levels[[0, 2, 3, 5, 6]].any()  # no layer of these resolutions
    wanted = [math.log2(20), math.log2(6), 4, math.log(found.params), math.log(found.macs)]
    np.testing.assert_allclose(values[56:], wanted, rtol=1e-6)


class Odd(nn.Module):
    """Operations that work on a real device and easily fail with shapes only."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.linspace(0, 1, 4)[:3].clone() + float(torch.ones(1).item()))
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.classifier = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.where(images > 0, images, torch.zeros((), device=images.device))
        hidden = nn.functional.gelu(self.conv(hidden).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        hidden = hidden.contiguous().view(len(images), 8, -1) + torch.ones(1, device=images.device)
        return self.classifier(hidden.mean(dim=2))  # type: ignore[no-any-return]


def test_trace_on_shapes_alone_is_that_of_a_real_pass() -> None:
    real, alone = Odd(), Odd().to("meta")
    assert trace(real, real, 16) == trace(alone, alone, 16)


def test_costs_of_attention_are_the_same_wherever_the_network_is() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.layer = nn.Conv2d(3, 16, 8, stride=8), layer

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.patches(images).flatten(2).transpose(1, 2)
            return self.layer(tokens).mean(dim=1)  # type: ignore[no-any-return]

    network = Tokens().eval()
    assert cost_of(network, 32) == cost_of(network.to("meta"), 32)


def test_network_whose_constructor_computes_with_tensors_is_outlined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(FAMILY), "build", lambda self, architecture, num_classes: Odd())
    outline = FAMILY.outline({}, 2)
    assert {value.device.type for value in outline.parameters()} == {"meta"}
