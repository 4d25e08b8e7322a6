import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tans_core.errors import WeightsError
from tans_core.networks.elastic import Architecture, BlockChoice, ElasticSpace

SPACES = [
    ElasticSpace(8, (8, 16), (2, 2), 2, (3, 5), (0.5, 1.0)),
    ElasticSpace(16, (24, 48, 96), (1, 2, 2), 3, (3, 5, 7), (0.25, 0.5, 1.0)),
    ElasticSpace(4, (8, 8, 8, 16), (2, 1, 2, 1), 1, (3,), (1.0, 2.0)),
]


def members(space: ElasticSpace, count: int = 4) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(count))]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("size", [17, 32])
def test_counted_costs_are_those_of_the_extracted_network(space: ElasticSpace, size: int) -> None:
    supernet = space.build(space.largest(), num_classes=7).eval()
    for architecture in members(space):
        network = supernet.extract(architecture)
        cost = space.cost(architecture, size, num_classes=7)
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, size, size))
        assert cost.params_m * 1e6 == pytest.approx(sum(p.numel() for p in network.parameters()), abs=0.5)
        assert cost.macs_m * 1e6 == pytest.approx(counter.get_total_flops() / 2, abs=0.5)


@pytest.mark.parametrize("space", SPACES)
def test_active_subnet_answers_exactly_as_the_extracted_network(space: ElasticSpace) -> None:
    torch.manual_seed(0)
    supernet = space.build(space.largest(), num_classes=5)
    images = torch.randn(16, 3, 32, 32)
    for _ in range(3):  # running statistics and scales that differ by channel
        supernet(images * torch.rand(1) * 3)
    for name, value in supernet.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(value, 0.5, 1.5)
    supernet.eval()
    answers = []
    for architecture in members(space):
        supernet.active = architecture
        answers.append(supernet(images))
        torch.testing.assert_close(answers[-1], supernet.extract(architecture)(images), rtol=0, atol=1e-6)
    assert not torch.allclose(answers[0], answers[1])  # the smallest and the largest do differ


def test_extraction_copies_so_that_training_a_subnet_leaves_the_supernet_alone() -> None:
    space = SPACES[0]
    supernet = space.build(space.largest(), num_classes=3)
    subnet = supernet.extract(space.smallest())
    before = supernet.stem.weight.clone()
    with torch.no_grad():
        subnet.stem.weight.add_(1)
    assert torch.equal(supernet.stem.weight, before)


def test_topology_code_of_a_skipped_slot_is_zero() -> None:
    space = ElasticSpace(8, (8,), (2,), 2, (3, 5), (0.5, 1.0))
    one = Architecture(((BlockChoice(5, 1.0),),))
    two = Architecture(((BlockChoice(5, 1.0), BlockChoice(3, 0.5)),))
    assert space.topology(one)[:-2].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1, 0]
    assert space.topology(two)[:-2].tolist() == [0, 1, 0, 1, 1, 0, 1, 0, 0, 1]


def test_topology_code_ends_with_the_costs_as_shares_of_the_largest() -> None:
    space = SPACES[1]
    assert space.topology(space.largest())[-2:].tolist() == [0, 0]
    small, large = (space.cost(member, 32, 1) for member in (space.smallest(), space.largest()))
    wanted = np.log([small.params_m / large.params_m, small.macs_m / large.macs_m])
    np.testing.assert_allclose(space.topology(space.smallest())[-2:], wanted, rtol=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_topology_codes_have_the_announced_width_and_tell_members_apart(space: ElasticSpace) -> None:
    codes = {architecture: tuple(space.topology(architecture)) for architecture in members(space, 20)}
    assert {len(code) for code in codes.values()} == {space.topology_dim}
    assert len(set(codes.values())) == len(codes)


@pytest.mark.parametrize("space", SPACES)
def test_architecture_survives_json(space: ElasticSpace) -> None:
    for architecture in members(space):
        assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [[{"kernel": 3, "ratio": 1.0}]],
        [[{"kernel": 3, "ratio": 1.0}], []],
        [[{"kernel": 9, "ratio": 1.0}], [{"kernel": 3, "ratio": 1.0}]],
        [[{"kernel": 3, "ratio": 0.3}], [{"kernel": 3, "ratio": 1.0}]],
        [[{"kernel": 3, "ratio": 1.0}] * 3, [{"kernel": 3, "ratio": 1.0}]],
    ],
)
def test_architecture_outside_the_space_is_refused(stages: list[list[dict[str, float]]]) -> None:
    space = SPACES[0]
    with pytest.raises(WeightsError):
        space.build(Architecture.from_dict({"stages": stages}), num_classes=3)


@pytest.mark.parametrize("raw", [{}, {"stages": 3}, {"stages": [[{"kernel": "x", "ratio": 1}]]}, {"stages": [[{}]]}])
def test_dictionary_of_another_form_is_a_weights_error(raw: dict[str, object]) -> None:
    with pytest.raises(WeightsError):
        Architecture.from_dict(raw)


@pytest.mark.parametrize("size", [16, 33])
def test_any_working_size_gives_features_of_one_width(size: int) -> None:
    space = SPACES[1]
    network = space.build(space.smallest(), num_classes=4)
    assert network.features(torch.zeros(2, 3, size, size)).shape == (2, space.feature_dim)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 4)


def test_strided_shortcut_is_the_strided_convolution() -> None:
    network = SPACES[1].build(SPACES[1].smallest(), num_classes=3)
    shortcut = network.stages[1][0].shortcut.eval()
    hidden = torch.randn(2, 24, 9, 9)
    wanted = shortcut.norm(torch.nn.functional.conv2d(hidden, shortcut.weight, stride=2))
    torch.testing.assert_close(shortcut(hidden), wanted, rtol=1e-4, atol=1e-5)


def test_training_on_several_threads_survives_batches_of_any_size() -> None:
    """In a process of its own: what it guards against ends the process."""
    program = f"""
import torch
from tans_core.networks.elastic import ElasticSpace
torch.set_num_threads(2)
for space in {SPACES!r}:
    network = space.build(space.largest(), 3)
    for batch in (8, 5, 2, 3, 7) * 6:
        network(torch.randn(batch, 3, 16, 16)).square().sum().backward()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-500:]
