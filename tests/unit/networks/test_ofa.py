"""The Once-for-All family, compared with the package of its authors."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ofa.imagenet_classification.elastic_nn.networks.ofa_mbv3 import OFAMobileNetV3
from torch import Tensor, nn

from tans_core.errors import ParamsError, WeightsError
from tans_core.io import sha256_file
from tans_core.networks.inverted import Member
from tans_core.networks.ofa import FAMILY, OFANetwork, published_code, translated
from tans_core.published.files import masked_topology

SETTINGS: dict[str, Any] = {"image_size_px": 64, "width": 1.2}
OLD_NAMES = (
    (r"^(blocks\.\d+)\.conv\.", r"\1.mobile_inverted_conv."),
    (r"\.conv\.conv\.", ".conv."),
    (r"\.bn\.bn\.", ".bn."),
)


def authors(width: float = 1.2) -> Any:
    """Return the authors' supernet with random weights, statistics and kernel matrices."""
    torch.manual_seed(0)
    made = OFAMobileNetV3(
        n_classes=10, width_mult=width, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    )
    for name, value in made.state_dict().items():
        if name.endswith("_matrix"):
            value += 0.1 * torch.randn(value.shape)
        elif name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return made.eval()


@pytest.fixture(scope="module")
def reference() -> Any:
    return authors()


@pytest.fixture(scope="module")
def supernet(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> OFANetwork:
    """Ours, with the same weights, read from a file as the authors publish them."""
    path = tmp_path_factory.mktemp("ofa") / "ofa_mbv3_d234_e346_k357_w1.2"
    torch.save({"state_dict": reference.state_dict()}, path)
    space = FAMILY.space({**SETTINGS, "weights": str(path)})
    network = space.supernet(num_classes=10)
    FAMILY.start(space, network)
    classifier = translated(reference.state_dict())
    network.classifier.load_state_dict({name: classifier[f"classifier.{name}"] for name in ("weight", "bias")})
    return network.eval()


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def asked(reference: Any) -> tuple[Member, Any]:
    """Draw a subnet of the authors' and return it as a member of ours."""
    chosen = reference.sample_active_subnet()
    blocks = [{"kernel": k, "expansion": e} for k, e in zip(chosen["ks"], chosen["e"], strict=True)]
    stages = [blocks[4 * stage :][:depth] for stage, depth in enumerate(chosen["d"])]
    return FAMILY.space(SETTINGS).member({"width": 1.2, "stages": stages}), chosen


@torch.no_grad()
def test_active_subnets_answer_as_the_authors_do_with_the_same_weights(
    reference: Any, supernet: OFANetwork, noise: Tensor
) -> None:
    random.seed(0)
    for _ in range(20):
        member, _ = asked(reference)
        supernet.active = member
        torch.testing.assert_close(supernet(noise), reference(noise), atol=1e-5, rtol=1e-4)
        theirs = reference.get_active_subnet()
        cost = FAMILY.cost(supernet.space.describe(member), 64, 10)
        assert round(cost.params_m * 1e6) == sum(one.numel() for one in theirs.parameters())
        own = supernet.extract(member)
        torch.testing.assert_close(own(noise), supernet(noise), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(own(noise), theirs.eval()(noise), atol=1e-5, rtol=1e-4)
        loaded = FAMILY.load(supernet.space.describe(member), 10, supernet.state_dict(), "the supernet")
        torch.testing.assert_close(loaded(noise), own(noise), atol=0, rtol=0)
    supernet.active = None


@torch.no_grad()
def test_width_one_and_the_names_of_older_files_are_read(noise: Tensor) -> None:
    reference = authors(width=1.0)
    state = {}
    for name, value in reference.state_dict().items():
        for new, old in OLD_NAMES:
            name = re.sub(new, old, name)
        state[name] = value
    assert set(state) != set(reference.state_dict())
    network = FAMILY.space({**SETTINGS, "width": 1.0}).supernet(num_classes=10)
    network.load_state_dict(translated(state))
    torch.testing.assert_close(network.eval()(noise), reference(noise), atol=1e-5, rtol=1e-4)


def test_ten_thousand_pairs_have_equal_codes_just_where_they_are_equal() -> None:
    space, rng = FAMILY.space(SETTINGS), np.random.default_rng(0)
    members = [space.sample(rng) for _ in range(142)]
    members[-1] = members[0]
    codes = [FAMILY.topology(space.describe(member), 64) for member in members[:-1]]
    codes.append(FAMILY.topology(space.describe(members[-1]), 64))
    pairs = list(itertools.combinations(range(len(members)), 2))
    assert len(pairs) > 10_000
    for one, other in pairs:
        assert np.array_equal(codes[one], codes[other]) == (members[one] == members[other])


def test_published_code_is_the_authors_own() -> None:
    space, rng = FAMILY.space(SETTINGS), np.random.default_rng(1)
    for _ in range(10_000):
        one, other = space.sample(rng), space.sample(rng)
        assert (published_code(one) == published_code(other)) == (one == other)
    raw = np.array([published_code(one), published_code(space.smallest())], dtype=np.float32)
    assert raw.shape == (2, 45)
    masked = masked_topology(raw)
    assert masked[1].sum() == 2 * 5 * 2 + 5  # two blocks a stage, each a kernel and an expansion; and the depths


def test_gradients_reach_the_matrices_of_smaller_kernels(noise: Tensor) -> None:
    space = FAMILY.space(SETTINGS)
    network = space.supernet(num_classes=3)
    network.active = space.smallest()
    network(noise).sum().backward()
    matrices = [one for name, one in network.named_parameters() if "transforms" in name]
    assert len(matrices) == 2 * 20
    used = [one.grad is not None and bool(one.grad.abs().sum() > 0) for one in matrices]
    assert sum(used) == 2 * 5 * 2  # of the two first blocks of each stage


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": 1.1}, "want one of 1.0, 1.2"),
        ({"kernels": [4]}, "kernels"),
        ({"expansions": []}, "expansions"),
        ({"depths": [1]}, "depths"),
        ({"more": 1}, "more"),
    ],
)
def test_wrong_settings_are_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        FAMILY.space({**SETTINGS, **changed})


def test_files_of_other_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    space = FAMILY.space({**SETTINGS, "weights": str(path)})
    with pytest.raises(WeightsError, match=r"other\.pth: not the weights.*lacks .*has unknown bias, weight"):
        FAMILY.start(space, space.supernet(2))
    (weights,) = FAMILY.base_weights(space)
    assert (weights.name, weights.licence, weights.images) == ("ofa-other-pth", "MIT", "ImageNet-1k")
    assert sha256_file(path) in weights.source
    assert not FAMILY.base_weights(FAMILY.space(SETTINGS))
