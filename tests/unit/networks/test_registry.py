"""Families by name: ours, and those that installed packages bring."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tans_core.errors import ParamsError, WeightsError
from tans_core.networks.elastic import FAMILY
from tans_core.networks.registry import (
    check_settings,
    family_of_package,
    get_family,
    known_families,
    network_digest,
    network_files,
    write_versions,
)
from tans_core.networks.trace import TOPOLOGY_DIM
from tests.factories.families import TINY, installed_family
from tests.factories.networks import tiny_space

OURS = ["elastic-residual", "elastic-mbconv", "once-for-all", "library"]

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a package whose entry point gives a family by a name."""
    with contextlib.ExitStack() as stack:

        def put(name: str, code: str, attribute: str = "FAMILY") -> None:
            stack.enter_context(installed_family(tmp_path, monkeypatch, code, name, attribute))

        yield put


def test_family_of_our_own_is_always_there() -> None:
    assert get_family("elastic-residual") is FAMILY
    assert known_families()[0] == "elastic-residual"


def test_unknown_family_is_a_weights_error_that_offers_the_right_one() -> None:
    with pytest.raises(WeightsError) as caught:
        get_family("elastic-residul")
    text = str(caught.value)
    assert "'elastic-residul': no such family (did you mean 'elastic-residual'?). Known: elastic-residual" in text
    assert "tans.families" in text
    with pytest.raises(WeightsError) as caught:
        get_family("x" * 5000)
    assert len(str(caught.value)) < 500 and "did you mean" not in str(caught.value)


def test_installed_package_brings_a_family(install: Install) -> None:
    install("tiny", TINY)
    family = get_family("tiny")
    assert known_families() == [*OURS, "tiny"]
    cost = family.cost({"width": 8}, 33, num_classes=5)
    assert cost.params_m * 1e6 == 8 * 27 + 8 + 8 * 5 + 5
    assert cost.macs_m * 1e6 == 8 * 27 * 16**2 + 8 * 5
    assert family.topology({"width": 8}, 33).shape == (TOPOLOGY_DIM,)
    network = family.build({"width": 8}, 5)
    loaded = family.load({"width": 8}, 5, network.state_dict(), "file")
    images = torch.randn(2, 3, 33, 33)
    assert torch.equal(loaded(images), network(images)) and not loaded.training
    assert not np.array_equal(family.topology({"width": 8}, 33), family.topology({"width": 9}, 33))
    with pytest.raises(WeightsError, match=r"file: not the weights.*lacks stem.weight; has unknown x\."):
        state = {**network.state_dict(), "x": torch.zeros(1)}
        del state["stem.weight"]
        family.load({"width": 8}, 5, state, "file")
    with pytest.raises(WeightsError, match=r"no such family.*Known: .*, tiny"):
        get_family("huge-vision-model")


def test_a_family_says_whose_networks_it_takes_by_name(install: Install) -> None:
    install("broken", "1 / 0")
    assert {family_of_package(package).name for package in ("timm", "torchvision")} == {"library"}
    with pytest.raises(WeightsError, match=r"package 'pytorchcv': no family takes .* Known: timm, torchvision\."):
        family_of_package("pytorchcv")
    install("tiny", TINY.replace('name = "tiny"', 'name = "tiny"\n    packages = ("pytorchcv",)'))
    assert family_of_package("pytorchcv").name == "tiny"


def test_versions_of_installed_families_change_with_package_and_code(install: Install, tmp_path: Path) -> None:
    install("tiny", TINY)
    install("broken", "1 / 0")
    seen: list[str] = []

    def write(*families: str) -> str:
        write_versions(families, tmp_path / "kept")
        path = tmp_path / "kept/versions.txt"
        seen.append(path.read_text() if path.is_file() else "")
        return seen[-1]

    assert write(*OURS, "broken", "elsewhere") == ""
    assert write("tiny", "elastic-residual").startswith("tiny: brought_tiny 1.0, code ")
    assert write("tiny") == seen[-2]
    described = tmp_path / "brought_tiny-1.0.dist-info/METADATA"
    described.write_text(described.read_text().replace("Version: 1.0", "Version: 1.1"))
    assert write("tiny").startswith("tiny: brought_tiny 1.1, code ")
    digest = network_digest()
    (tmp_path / "brought_tiny.py").write_text(TINY + "\n")
    assert write("tiny") != seen[-2] and network_digest() != digest
    assert write() == ""


def test_every_module_of_a_package_counts_as_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "brought_whole"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "networks.py").write_text(TINY.replace('"tiny"', '"whole"'))
    (package / "blocks.py").write_text("SIDE = 3\n")
    described = tmp_path / "brought_whole-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: brought-whole\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[tans.families]\nwhole = brought_whole.networks:FAMILY\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {str(file) for file in package.glob("*.py")} < set(network_files())


def test_installed_package_cannot_take_the_place_of_our_own(install: Install) -> None:
    install("elastic-residual", TINY)
    assert get_family("elastic-residual") is FAMILY
    assert known_families() == OURS


@pytest.mark.parametrize(
    ("code", "attribute", "words"),
    [
        ("1 / 0", "FAMILY", "cannot be loaded (ZeroDivisionError: division by zero)"),
        ("import no_such_module_anywhere", "FAMILY", "cannot be loaded (ModuleNotFoundError"),
        ("def (", "FAMILY", "cannot be loaded (SyntaxError"),
        (TINY, "FAMILIES", "cannot be loaded (AttributeError"),
        ("FAMILY = 3", "FAMILY", "is not a Family of this name"),
        (TINY, "TinyFamily", "is not a Family of this name"),
        (TINY.replace('"tiny"', '"other"'), "FAMILY", "is not a Family of this name"),
    ],
)
def test_package_that_brings_no_family_is_a_weights_error(
    install: Install, code: str, attribute: str, words: str
) -> None:
    install("tiny", code, attribute)
    with pytest.raises(WeightsError) as caught:
        get_family("tiny")
    assert f"family 'tiny': brought_tiny:{attribute} {words}" in str(caught.value)


def test_all_problems_of_the_settings_come_at_once(install: Install) -> None:
    install("tiny", TINY)
    good = {
        "image_size_px": 32,
        "stem_width": 8,
        "widths": [8],
        "strides": [2],
        "max_depth": 1,
        "kernels": [3],
        "ratios": [1.0],
    }
    check_settings({"elastic-residual": good}, 32)
    bad = {**good, "depth": 3, "kernels": [3, 4], "stem_width": 0}
    with pytest.raises(ParamsError) as caught:
        check_settings({"elastic-residual": bad, "elastic-residul": good, "tiny": {"width": 8}}, 32)
    text = str(caught.value)
    assert text.startswith("params.yaml:\n")
    for words in (
        "networks.elastic-residual: ",
        "depth: unknown key (did you mean 'max_depth'?)",
        "kernels.1: got 4",
        "stem_width: got 0",
        "networks.elastic-residul: ",
        "no such family (did you mean 'elastic-residual'?)",
        "networks.tiny: a network of one size has no settings, got ['width']",
    ):
        assert words in text


def test_a_family_that_only_fine_tuning_names_has_to_exist() -> None:
    good = {"elastic-residual": tiny_space().model_dump(mode="json")}
    check_settings(good, 32, ["once-for-all", "library"])
    with pytest.raises(ParamsError, match=r"finetune\.families: libary: no such family \(did you mean 'library'\?\)"):
        check_settings(good, 32, ["libary"])


def test_family_that_reads_larger_images_than_are_kept_is_named() -> None:
    large = {"elastic-residual": tiny_space(image_size_px=64).model_dump(mode="json")}
    check_settings(large, 64)
    with pytest.raises(ParamsError, match=r"reads images of 64 pixels, data\.stored_size_px is 32"):
        check_settings(large, 32)


def test_every_size_that_a_family_is_used_at_is_kept() -> None:
    sizes = {"image_size_px": 32, "used_at_px": [32, 96]}
    settings = {"once-for-all": {**sizes, "width": 1.2}}
    check_settings(settings, 96)
    with pytest.raises(ParamsError, match=r"networks\.once-for-all: reads images of 96 pixels"):
        check_settings(settings, 64)
