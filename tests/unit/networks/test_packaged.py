"""Networks of timm and torchvision by name."""

import itertools
import resource
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision

from tans_core.errors import ParamsError, WeightsError
from tans_core.networks.packaged import FAMILY
from tests.factories.packaged import NAMES, SIDE_PX, described


@pytest.fixture(scope="module", params=NAMES, ids="-".join)
def architecture(request: pytest.FixtureRequest) -> dict[str, Any]:
    return described(*request.param)


@torch.no_grad()
def test_a_network_has_features_under_one_classifier_and_is_read_back(architecture: dict[str, Any]) -> None:
    network = FAMILY.build(architecture, 5).eval()
    images = torch.randn(2, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
    assert network.features(images).shape == (2, network.feature_dim)
    assert network(images).shape == (2, 5)
    again = FAMILY.load(architecture, 5, network.state_dict(), "the same")
    torch.testing.assert_close(again(images), network(images), atol=0, rtol=0)
    network.reset_classifier(3, torch.Generator().manual_seed(0))
    assert network(images).shape == (2, 3)


def test_costs_are_counted_without_weights(architecture: dict[str, Any]) -> None:
    cost = FAMILY.cost(architecture, SIDE_PX, 5)
    network = FAMILY.build(architecture, 5)
    assert cost.params_m == sum(one.numel() for one in network.parameters()) / 1e6
    assert cost.macs_m > 0
    assert np.isfinite(FAMILY.topology(architecture, SIDE_PX)).all()


def test_codes_of_different_networks_differ() -> None:
    codes = [FAMILY.topology(described(*names), SIDE_PX) for names in NAMES]
    assert len({len(code) for code in codes}) == 1
    for one, other in itertools.combinations(codes, 2):
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("names", NAMES, ids="-".join)
@torch.no_grad()
def test_answers_are_the_librarys(names: tuple[str, str]) -> None:
    package, name = names
    architecture = described(package, name)
    sized = {"img_size": SIDE_PX} if "image_size_px" in architecture else {}
    if package == "timm":
        whole = timm.create_model(name, pretrained=False, num_classes=1000, **sized).eval()
    else:
        whole = torchvision.models.get_model(name, weights=None).eval()
    # The classifier is the one linear layer that the body lacks.
    state, body = whole.state_dict(), FAMILY.build(architecture, 1000).body.state_dict()
    (weight,) = [key for key in state.keys() - body.keys() if key.endswith("weight")]
    classifier = {f"classifier.{part}": state[weight.removesuffix("weight") + part] for part in ("weight", "bias")}
    ours = FAMILY.load(architecture, 1000, {**{f"body.{key}": state[key] for key in body}, **classifier}, "its file")
    images = torch.randn(2, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(images), whole(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "resnet1888"}, "has no network 'resnet1888'"),
        ({"name": "resnet_18"}, "did you mean"),
        ({"name": "hf-hub:someone/network"}, "has no network"),
        ({"name": "local-dir:/tmp/network"}, "has no network"),
        ({"package": "transformers"}, "library"),
        ({"image_size_px": 10**9}, "image_size_px"),
        ({"more": 1}, "more"),
        ({"name": "resnet18", "image_size_px": 32}, "cannot build 'resnet18'"),
        ({"package": "torchvision", "name": "squeezenet1_1"}, "does not end with one linear classifier"),
        ({"package": "torchvision", "name": "googlenet"}, "does not end with one linear classifier"),
        ({"package": "torchvision", "name": "inception_v3"}, "does not end with one linear classifier"),
    ],
)
def test_what_is_no_network_of_a_library_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        FAMILY.build({"package": "timm", "name": "resnet18", **changed}, 2)


def test_costs_of_a_huge_network_take_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = FAMILY.cost({"package": "timm", "name": "vit_giant_patch14_224"}, 224, 2)
    assert cost.params_m > 900
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


def test_a_network_that_needs_memory_to_be_looked_at_is_told() -> None:
    with pytest.raises(WeightsError, match="cannot be checked without loading it"):
        FAMILY.cost({"package": "torchvision", "name": "regnet_y_400mf"}, 32, 2)


def test_no_search_space_can_be_made_of_them() -> None:
    with pytest.raises(ParamsError, match="Newcomers"):
        FAMILY.space({})
