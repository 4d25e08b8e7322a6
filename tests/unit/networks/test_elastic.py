import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tans_core.errors import ParamsError, WeightsError
from tans_core.networks.elastic import FAMILY, Architecture, ElasticNetwork, ElasticSpace, Member


def space(
    stem_width: int, widths: list[int], strides: list[int], depth: int, kernels: list[int], ratios: list[float]
) -> ElasticSpace:
    return FAMILY.space(
        {
            "image_size_px": 32,
            "stem_width": stem_width,
            "widths": widths,
            "strides": strides,
            "max_depth": depth,
            "kernels": kernels,
            "ratios": ratios,
        }
    )


SPACES = [
    space(8, [8, 16], [2, 2], 2, [3, 5], [0.5, 1.0]),
    space(16, [24, 48, 96], [1, 2, 2], 3, [3, 5, 7], [0.25, 0.5, 1.0]),
    space(4, [8, 8, 8, 16], [2, 1, 2, 1], 1, [3], [1.0, 2.0]),
]
BLOCK = {"kernel": 3, "ratio": 1.0}


def members(space: ElasticSpace, count: int = 4) -> list[Member]:
    rng = np.random.default_rng(0)
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(count))]


def build(space: ElasticSpace, member: Member, num_classes: int = 3) -> ElasticNetwork:
    return FAMILY.build(space.describe(member), num_classes)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("size", [17, 32])
def test_counted_costs_are_those_of_the_extracted_network(space: ElasticSpace, size: int) -> None:
    supernet = space.supernet(num_classes=7).eval()
    for member in members(space):
        network = supernet.extract(member)
        cost = FAMILY.cost(space.describe(member), size, num_classes=7)
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, size, size))
        assert cost.params_m * 1e6 == pytest.approx(sum(p.numel() for p in network.parameters()), abs=0.5)
        assert cost.macs_m * 1e6 == pytest.approx(counter.get_total_flops() / 2, abs=0.5)


@pytest.mark.parametrize("space", SPACES)
def test_active_subnet_answers_exactly_as_the_extracted_network(space: ElasticSpace) -> None:
    torch.manual_seed(0)
    supernet = space.supernet(num_classes=5)
    images = torch.randn(16, 3, 32, 32)
    for _ in range(3):  # running statistics and scales that differ by channel
        supernet(images * torch.rand(1) * 3)
    for name, value in supernet.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(value, 0.5, 1.5)
    supernet.eval()
    answers = []
    for member in members(space):
        supernet.active = member
        answers.append(supernet(images))
        torch.testing.assert_close(answers[-1], supernet.extract(member)(images), rtol=0, atol=1e-6)
    assert not torch.allclose(answers[0], answers[1])  # the smallest and the largest do differ


def test_extraction_copies_so_that_training_a_subnet_leaves_the_supernet_alone() -> None:
    space = SPACES[0]
    supernet = space.supernet(num_classes=3)
    subnet = supernet.extract(space.smallest())
    before = supernet.stem.weight.clone()
    with torch.no_grad():
        subnet.stem.weight.add_(1)
    assert torch.equal(supernet.stem.weight, before)


@pytest.mark.parametrize("space", SPACES)
def test_file_of_a_supernet_gives_the_network_that_the_supernet_extracts(space: ElasticSpace) -> None:
    supernet = space.supernet(num_classes=3).eval()
    tensors, images = dict(supernet.state_dict()), torch.randn(2, 3, 16, 16)
    shallow = tuple(stage[:1] for stage in space.largest())  # nothing to slice, only blocks to leave out
    for member in [*members(space), shallow]:
        network = FAMILY.load(space.describe(member), 3, tensors, "file")
        assert torch.equal(network(images), supernet.extract(member)(images))


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("stem.weight", None, "lacks stem.weight"),
        ("stem.weight", torch.zeros(8), r"stem.weight: got \(8,\), want \(8, 3, 3, 3\)"),
        ("classifier.bias", torch.zeros(2), r"classifier.bias: got \(2,\), want \(3,\)"),
        ("extra", torch.zeros(2), "has unknown extra"),
    ],
)
def test_tensors_that_hold_no_such_network_are_named(name: str, tensor: torch.Tensor | None, words: str) -> None:
    space = SPACES[0]
    tensors = dict(build(space, space.smallest()).state_dict())
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    with pytest.raises(WeightsError, match=rf"^file: .*{words}"):
        FAMILY.load(space.describe(space.smallest()), 3, tensors, "file")


@pytest.mark.parametrize("space", SPACES)
def test_architecture_survives_json(space: ElasticSpace) -> None:
    for member in members(space):
        described = json.loads(json.dumps(space.describe(member)))
        assert space.member(described) == member
        assert Architecture.read(described).stages == member


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [[BLOCK]],
        [[BLOCK], []],
        [[{"kernel": 9, "ratio": 1.0}], [BLOCK]],
        [[{"kernel": 7, "ratio": 1.0}], [BLOCK]],
        [[{"kernel": 3, "ratio": 0.3}], [BLOCK]],
        [[BLOCK] * 3, [BLOCK]],
    ],
)
def test_architecture_outside_the_space_is_refused(stages: list[list[dict[str, float]]]) -> None:
    space = SPACES[0]
    with pytest.raises(WeightsError):
        space.member({**space.describe(space.smallest()), "stages": stages})


@pytest.mark.parametrize(("name", "value"), [("stem_width", 16), ("widths", [8, 24]), ("strides", [2, 1])])
def test_architecture_of_another_space_is_refused_by_name(name: str, value: object) -> None:
    space = SPACES[0]
    with pytest.raises(WeightsError, match=f"architecture: {name}: got"):
        space.member({**space.describe(space.smallest()), name: value})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({}, "stages: missing"),
        ({"stages": 3}, "stages: got 3"),
        ({"stages": [[{"kernel": "x", "ratio": 1}]]}, "stages.0.0.kernel: got 'x'"),
        ({"stages": [[{}], [BLOCK], [BLOCK]]}, r"stages.0.0.kernel: missing; stages.0.0.ratio: missing"),
        ({"stages": [[{**BLOCK, "kernel": 3.0}], [BLOCK], [BLOCK]]}, "stages.0.0.kernel: got 3.0"),
        ({"stages": [[{**BLOCK, "ratio": "0.5"}], [BLOCK], [BLOCK]]}, "stages.0.0.ratio: got '0.5'"),
        ({"stages": [[{**BLOCK, "ratio": True}], [BLOCK], [BLOCK]]}, "stages.0.0.ratio: got True"),
        ({"stages": [[{**BLOCK, "ratio": 9.0}], [BLOCK], [BLOCK]]}, "got kernel 3, ratio 9.0; want .* up to 8"),
        ({"stages": [[{**BLOCK, "kernel": 4}], [BLOCK], [BLOCK]]}, "got kernel 4"),
        ({"stages": [[BLOCK]] * 3, "strides": [True, 2, 2]}, "strides.0: got True"),
        ({"stages": [[BLOCK]] * 3, "strides": [2, 2, 2.0]}, "strides.2: got 2.0"),
        ({"stages": [[BLOCK]] * 3, "strides": [2, 2, 3]}, "strides.2: got 3"),
        ({"stages": [[BLOCK]] * 3, "widths": [8, 8, 5000]}, "widths.2: got 5000"),
        ({"stages": [[BLOCK]] * 3, "depths": [1]}, "depths: unknown key"),
        ({"stages": [[BLOCK] * 9] * 3}, "stages.0: .*at most 8"),
        ({"stages": [[{**BLOCK, "ratio": float("nan")}]] * 3}, "not of the elastic residual family"),
    ],
)
def test_dictionary_of_another_form_is_a_weights_error_that_names_what_is_wrong(
    raw: dict[str, Any], words: str
) -> None:
    with pytest.raises(WeightsError, match=words):
        FAMILY.build(raw, 2)


def test_settings_that_span_no_space_are_all_named() -> None:
    good = SPACES[0].model_dump(mode="json")
    with pytest.raises(ParamsError) as caught:
        FAMILY.space({**good, "kernels": [4], "max_depth": 0, "stemwidth": 8, "ratios": []})
    for words in (
        "kernels.0: got 4",
        "max_depth: got 0",
        "stemwidth: unknown key (did you mean 'stem_width'?)",
        "ratios",
    ):
        assert words in str(caught.value)
    with pytest.raises(ParamsError, match="want one stride a stage"):
        FAMILY.space({**good, "strides": [2]})


@pytest.mark.parametrize("size", [16, 33])
def test_any_working_size_gives_features_of_one_width(size: int) -> None:
    network = build(SPACES[1], SPACES[1].smallest(), num_classes=4)
    assert network.feature_dim == 96
    assert network.features(torch.zeros(2, 3, size, size)).shape == (2, 96)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 4)


def test_fresh_classifier_depends_on_its_generator_alone() -> None:
    network = build(SPACES[0], SPACES[0].smallest(), num_classes=4)
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(weights))
        network.reset_classifier(5, torch.Generator().manual_seed(seed))
        weights.append(network.classifier.weight.clone())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_strided_shortcut_is_the_strided_convolution() -> None:
    network = build(SPACES[1], SPACES[1].smallest())
    shortcut = network.stages[1][0].shortcut.eval()
    hidden = torch.randn(2, 24, 9, 9)
    wanted = shortcut.norm(torch.nn.functional.conv2d(hidden, shortcut.weight, stride=2))
    torch.testing.assert_close(shortcut(hidden), wanted, rtol=1e-4, atol=1e-5)


def test_training_on_several_threads_survives_batches_of_any_size() -> None:
    """In a process of its own: what it guards against ends the process."""
    program = f"""
import torch
from tans_core.networks.elastic import FAMILY
torch.set_num_threads(2)
for settings in {[space.model_dump(mode="json") for space in SPACES]!r}:
    network = FAMILY.space(settings).supernet(3)
    for batch in (8, 5, 2, 3, 7) * 6:
        network(torch.randn(batch, 3, 16, 16)).square().sum().backward()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-500:]
